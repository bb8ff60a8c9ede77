"""ONNX Runtime: runs ONNX graphs of decoders and encoders, told apart by their outputs' names.

The names are those that the exporters of transformers and Optimum give:
``input_ids``, ``attention_mask``, ``token_type_ids``, ``position_ids``, ``past_key_values.*`` in;
``logits``, ``last_hidden_state``, ``sentence_embedding`` and others out.

A directory with an ``export.json``, or a graph that is a part of one, runs as a model of
transformers instead, with its cache: `weighbridge.pipelines.network`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.pipelines.manifest import Manifest, is_export, read_manifest
from weighbridge.pipelines.network import network
from weighbridge.pooling import MODULES
from weighbridge.runtimes.base import (
    Facts,
    Kind,
    Runner,
    Runtime,
    blaming,
    pooled,
)
from weighbridge.runtimes.hugging_face import (
    TOKENIZERS,
    TransformersRunner,
    context_of,
    kind_of,
    pooling_of,
    tokenizer_at,
    vocabulary_of,
)
from weighbridge.runtimes.tokenized import TokenizedRunner
from weighbridge.sidefiles import CONFIG, parse_json
from weighbridge.tensor_names import model_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from weighbridge.model import Config, Model
    from weighbridge.runtimes.base import Floats

IDS = "input_ids"

LOGITS = "logits"

STATES = ("last_hidden_state", "token_embeddings")
"""Outputs that hold a state for each token, the first that there is."""

EMBEDDINGS = ("sentence_embedding", "pooler_output")
"""Outputs that hold one embedding, for graphs without states."""

FOLDERS = ("onnx",)
"""What the folder of the graph is called where config and tokenizer are one folder up."""

TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
}
"""ONNX Runtime's names of the types that inputs have."""

ERRORS_ONLY = 3
"""The severity from which ONNX Runtime prints."""


class OnnxRuntime(Runtime):
    """ONNX Runtime on the processor."""

    name = "onnxruntime"
    formats = frozenset({"onnx", "onnx-directory"})
    packages = ("onnxruntime",)

    def facts(self, model: Model) -> Facts:
        """Return what the graph says, and the config and tokenizer beside it.

        Raises:
            Unsupported: (rule ``onnx-graph``) for a file without a graph, or with another one.
        """
        manifest = manifest_of(model.path)
        if manifest is not None:
            return _exported_facts(manifest)
        outputs = model.graph.outputs if model.graph else ()
        if model.graph is None or IDS not in model.graph.inputs:
            raise Unsupported(
                f"holds no graph that takes {IDS}",
                rule="onnx-graph",
                path=model.path,
                got=f"the inputs {', '.join(model.graph.inputs)}" if model.graph else "weights",
            )
        files = files_beside(model.path)
        config = parse_json(files[CONFIG], CONFIG) if CONFIG in files else {}
        return Facts(
            _kind(config, files, outputs, model.path),
            vocabulary=vocabulary_of(config),
            context=context_of(config),
            tokenizes=any(name in files for name in TOKENIZERS),
            pooling=pooling_of(config, files),
        )

    def start(self, model: Model, facts: Facts, room: int) -> Runner:
        """Load a graph."""
        import onnxruntime

        del room
        assert model.path is not None
        manifest = manifest_of(model.path)
        if manifest is not None:
            place = manifest.directory
            tokenizer = tokenizer_at(place) if facts.tokenizes else None
            return ExportedRunner(network(manifest), tokenizer, place)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        with blaming(self.name, model.path):
            session = onnxruntime.InferenceSession(
                str(model.path), options, providers=["CPUExecutionProvider"]
            )
        tokenizer = tokenizer_at(directory_of(model.path)) if facts.tokenizes else None
        return OnnxRunner(session, tokenizer, model.path)


def manifest_of(path: Path | None) -> Manifest | None:
    """Return what the exported directory says that a path is, or is a graph of."""
    if path is None:
        return None
    place = path if path.is_dir() else path.parent
    if not is_export(place):
        return None
    manifest = read_manifest(place)
    files = {entry["file"] for entry in manifest.components.values()}
    return manifest if path.is_dir() or path.name in files else None


def _exported_facts(manifest: Manifest) -> Facts:
    config = {**manifest.config, "architectures": [manifest.architecture]}
    files = files_beside(manifest.directory)
    return Facts(
        kind_of(config, files, manifest.directory),
        vocabulary=vocabulary_of(config),
        context=context_of(config),
        tokenizes=any(name in files for name in TOKENIZERS),
        pooling=pooling_of(config, files),
    )


class ExportedRunner(TransformersRunner):
    """A model of transformers whose forward pass is computed by ONNX Runtime."""

    runtime = "ONNX Runtime"


def directory_of(path: Path) -> Path:
    """Return the folder where a graph's config and tokenizer are."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name in FOLDERS else path.parent


def files_beside(path: Path | None) -> Mapping[str, bytes]:
    """Return the small files beside a graph that say what it is."""
    if path is None:
        return {}
    folder = directory_of(path)
    configs = [f"{place.parent.name}/{place.name}" for place in folder.glob("*/config.json")]
    names = [name for name in (CONFIG, MODULES, *configs) if (folder / name).is_file()]
    tokenizers = {name: b"" for name in TOKENIZERS if (folder / name).is_file()}
    return {name: (folder / name).read_bytes() for name in names} | tokenizers


def _kind(
    config: Config, files: Mapping[str, bytes], outputs: Sequence[str], path: Path | None
) -> Kind:
    if model_class(config):
        return kind_of(config, files, path)
    return Kind.DECODER if LOGITS in outputs else Kind.ENCODER


class OnnxRunner(TokenizedRunner):
    """A session of ONNX Runtime, and a tokenizer of transformers where there is one."""

    def __init__(self, session: Any, tokenizer: Any, path: Path) -> None:
        """Keep them."""
        super().__init__(tokenizer)
        self._session = session
        self._path = path

    def logits(self, ids: Sequence[int]) -> Floats:
        """Evaluate the whole text at once."""
        values: Floats = self._run(ids, (LOGITS,))[0]
        return values

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the likeliest tokens; the text is evaluated anew for each of them."""
        made = list(ids)
        for _ in range(count):
            made.append(int(self.logits(made)[-1].argmax()))
        return made[len(ids) :]

    def embed(self, ids: Sequence[int], pooling: str) -> Floats:
        """Pool the states, or return what the graph has pooled itself."""
        wanted = (LOGITS,) if pooling == "rank" else (*STATES, *EMBEDDINGS)
        values: Floats = self._run(ids, wanted)[0].astype(np.float64)
        return pooled(values, pooling) if values.ndim > 1 else values

    def _run(self, ids: Sequence[int], wanted: Sequence[str]) -> NDArray[Any]:
        """Return the first of the wanted outputs that there is, for a batch of one text.

        Raises:
            Unsupported: (rule ``onnx-output``) when there is none of them.
        """
        outputs = {output.name for output in self._session.get_outputs()}
        name = next((name for name in wanted if name in outputs), None)
        if name is None:
            raise Unsupported(
                "gives no output that can be compared",
                rule="onnx-output",
                path=self._path,
                got=", ".join(sorted(outputs)),
                expected=f"one of {', '.join(wanted)}",
            )
        feeds = {given.name: self._fed(given, ids) for given in self._session.get_inputs()}
        with blaming(OnnxRuntime.name, self._path):
            values: NDArray[Any] = self._session.run([name], feeds)[0]
        return values

    def _fed(self, given: Any, ids: Sequence[int]) -> NDArray[Any]:
        """Return what an input is fed: a whole text, and no past.

        Raises:
            InvalidInput: (rule ``onnx-input``) for an input whose meaning is not known.
        """
        values = _filled(given, len(ids)) if given.name != IDS else np.array([ids])
        dtype = TYPES.get(given.type)
        if values is None or dtype is None:
            raise InvalidInput(
                f"has an input '{given.name}' that cannot be filled",
                rule="onnx-input",
                path=self._path,
                got=given.type,
            )
        return values.astype(dtype)

    def close(self) -> None:
        """Let go of the session."""
        self._session = None


def _filled(given: Any, length: int) -> NDArray[Any] | None:
    """Return what an input is for a whole text without a past, None for one that is not known."""
    if given.name.startswith("past_key_values"):
        return np.zeros(_empty(given.shape))
    return {
        "attention_mask": np.ones((1, length)),
        "token_type_ids": np.zeros((1, length)),
        "position_ids": np.arange(length)[None],
        "use_cache_branch": np.zeros(1),
    }.get(given.name)


def _empty(shape: Sequence[int | str]) -> tuple[int, ...]:
    """Return the shape of a past without tokens: a batch of one, other free lengths zero.

    Example:
        >>> _empty(["batch_size", 3, "past_sequence_length", 64])
        (1, 3, 0, 64)
    """
    batch, *others = shape
    return (
        batch if isinstance(batch, int) else 1,
        *(length if isinstance(length, int) else 0 for length in others),
    )


RUNTIME = OnnxRuntime()
