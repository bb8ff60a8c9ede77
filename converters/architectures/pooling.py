"""How an encoder's states become one embedding: files of sentence-transformers, a key in GGUF.

A directory of sentence-transformers lists its modules in ``modules.json``; the pooling module has a
``config.json`` of its own, in two spellings: a flag for each mode or, from newer versions, the name
of the mode. GGUF has ``{arch}.pooling_type``, a number (llama.cpp, ``enum llama_pooling_type``). A
classifier pools by its own head, which llama.cpp calls *rank*.

Source: ``sentence_transformers/sentence_transformer/modules/pooling.py``; ``conversion/base.py`` of
llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.aspects import Aspect, required, wrong
from weighbridge.converters.architectures.labels import is_classifier
from weighbridge.errors import Unsupported
from weighbridge.metadata import Value, scalar
from weighbridge.pooling import FLAGS, MODE, MODULES, config_name, modes_of, modules
from weighbridge.sidefiles import dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

    Files = Mapping[str, bytes]

KEY = "{arch}.pooling_type"

NUMBERS = {"mean": 1, "cls": 2, "lasttoken": 3}
"""sentence-transformers' name of a mode -> llama.cpp's number."""

NONE, RANK = 0, 4
"""The numbers that no pooling module has: every token's state, and the scores of a classifier."""

POOLING = "1_Pooling"
TRANSFORMER = "sentence_bert_config.json"

KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
"""The modules that llama.cpp does the work of; it scales every embedding to length 1 if asked."""


@dataclass(frozen=True)
class Pooling(Aspect):
    """The pooling module of a sentence-transformers directory, or a classifier's head.

    Example:
        >>> files = Pooling().write_files(
        ...     {
        ...         KEY: scalar("u32", 2),
        ...         "{arch}.embedding_length": scalar("u32", 64),
        ...         "{arch}.context_length": scalar("u32", 512),
        ...     }
        ... )
        >>> list(files), Pooling().read_files(files)[KEY].data
        (['modules.json', '1_Pooling/config.json', 'sentence_bert_config.json'], 2)
    """

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return (KEY,)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return *rank* for a classifier; for others, the files say it."""
        del report
        return {KEY: scalar("u32", RANK)} if is_classifier(config) else {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return nothing: `Labels` knows a classifier by its tensors."""
        del metadata, tensors
        return {}

    def read_files(self, files: Files) -> Mapping[str, Value]:
        """Return how the pooling module pools.

        Raises:
            InvalidFile: (rule ``json``) for files that are not what they should be, (rule
                ``missing-file``) when the module's config is not there.
            Unsupported: (rule ``pooling``) for a mode that llama.cpp does not know, (rule
                ``module``) for a module that it does not know.
        """
        _check_modules(files)
        place = config_name(files)
        if place is None:
            return {}
        modes = modes_of(files, place)
        if len(modes) != 1 or modes[0] not in NUMBERS:
            raise Unsupported(
                "the embeddings are pooled in a way that llama.cpp does not know",
                rule="pooling",
                path=place,
                got=" and ".join(modes),
                expected=f"one of {', '.join(NUMBERS)}",
            )
        return {KEY: scalar("u32", NUMBERS[modes[0]])}

    def write_files(self, metadata: Mapping[str, Value]) -> Mapping[str, bytes]:
        """Return a directory's ``modules.json`` and the configs of its two modules.

        Raises:
            InvalidFile: (rule ``config-type``) for a number that means nothing.
        """
        mode = _mode_of(metadata)
        if mode is None:
            return {}
        width = required(metadata, "{arch}.embedding_length", "u32")
        length = required(metadata, "{arch}.context_length", "u32")
        documents = {
            MODULES: [_module(0, "", "Transformer"), _module(1, POOLING, "Pooling")],
            f"{POOLING}/config.json": {"word_embedding_dimension": width, **_flags(mode)},
            TRANSFORMER: {"max_seq_length": length, "do_lower_case": False},
        }
        return {name: dump_json(document) for name, document in documents.items()}

    def revised_files(self, files: Files, metadata: Mapping[str, Value]) -> dict[str, bytes]:
        """Return `files` with another mode in the pooling module's config, the rest left alone."""
        place, mode = config_name(files), _mode_of(metadata)
        if place is None:
            return {**files, **self.write_files(metadata)}
        if mode is None:
            return {name: files[name] for name in files if name not in (MODULES, place)}
        before = parse_json(files[place], place)
        named = {MODE: mode} if MODE in before else _flags(mode)
        return {**files, place: dump_json({**before, **named})}


def _mode_of(metadata: Mapping[str, Value]) -> str | None:
    """Return sentence-transformers' name of a file's pooling, None where it has none."""
    if KEY not in metadata:
        return None
    number = required(metadata, KEY, "u32")
    if number in (NONE, RANK):
        return None
    for mode, known in NUMBERS.items():
        if number == known:
            return mode
    raise wrong(KEY, number, f"one of {[NONE, *NUMBERS.values(), RANK]}")


def _check_modules(files: Files) -> None:
    for module in modules(files):
        kind = str(module.get("type")).rpartition(".")[2]
        if kind not in KNOWN_MODULES:
            raise Unsupported(
                f"{MODULES} has a module that llama.cpp does not know",
                rule="module",
                got=module.get("type"),
                expected=f"one of {', '.join(KNOWN_MODULES)}",
            )


def _flags(mode: str) -> dict[str, bool]:
    """Return the older spelling, which every version reads."""
    return {flag: mode == meant for flag, meant in FLAGS.items()}


def _module(number: int, path: str, kind: str) -> dict[str, Any]:
    type_ = f"sentence_transformers.models.{kind}"
    return {"idx": number, "name": str(number), "path": path, "type": type_}
