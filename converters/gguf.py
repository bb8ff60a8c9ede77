"""GGUF's dialect: its tensor names, shapes and key-values, to Hugging Face's and back.

Families are `Arch` tables found by name; this module puts together what all of them share. Source:
GGUF specification; where it leaves a choice, llama.cpp's converter (``conversion/base.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weighbridge import registry, sidefiles
from weighbridge.aspects import integer
from weighbridge.converters import (
    carried,
    dtypes,
    filetypes,
    general,
    imatrix,
    originals,
    recipes,
    tokenizers,
)
from weighbridge.dialect import Dialect, DialectOptions
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.families import find, find_by_name
from weighbridge.metadata import scalar, string
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.report import Report

if TYPE_CHECKING:
    import os

    from weighbridge.arch import Arch
    from weighbridge.encoding import Encoding
    from weighbridge.importance import ImportanceMatrix
    from weighbridge.metadata import Metadata, Value
    from weighbridge.model import Config
    from weighbridge.recipe import Recipe
    from weighbridge.tensor import Lazy

ARCHITECTURE = "general.architecture"
FILE_TYPE = "general.file_type"
TOKENS = "tokenizer.ggml.tokens"

NOT_SAID = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""The special tokens of a config, which would else be those of the class's first model."""


class GgufDialect(Dialect):
    """Names, shapes and key-values as llama.cpp knows them."""

    name = "gguf"

    def to_canonical(self, model: Model, report: Report, *, weights_only: bool = False) -> Model:
        """Return `model` as Hugging Face's checkpoint.

        The config is the one that the file carries, where it does, with what the key-values say
        otherwise; else it is made from the key-values.
        """
        translated = _emptied(model, HUGGING_FACE)
        with report.collect():
            arch = _family(model)
            files = sidefiles.from_metadata(model.metadata)
            config = _config(arch, model, files, Report() if weights_only else report)
            tensors = arch.to_canonical(model.tensors, config, report)
            dtype = dtypes.recorded(model.metadata, report)
            kept = originals.restored(tensors, model.metadata, dtype, report)
            translated.tensors = dtypes.restored(kept, dtype)
            if not weights_only:
                _check_tokens(model.metadata, config, report)
                translated.config = config
                translated.files = carried.from_metadata(
                    arch, model.metadata, config, files, report
                )
        return translated

    def from_canonical(self, model: Model, report: Report, options: DialectOptions) -> Model:
        """Return a canonical `model` as llama.cpp's converter would write it.

        Key-values that are ours alone, which carry the side files and the dtypes, come last.
        """
        translated = _emptied(model, self.name)
        with report.collect():
            config = _checked_config(model, report)
            arch = find(registry.architectures().values(), config)
            said = arch.to_metadata(config, model.files, report)
            translated.tensors = arch.from_canonical(model.tensors, config, report)
            _note_tied(config, translated.tensors, report)
            written = general.describe(options.name, config, model.files, translated.tensors)
            tokens = _tokenizer(model, config, options, report)
            quirks = carried.of_tokenizer(said)
            translated.metadata = {
                ARCHITECTURE: string(arch.name),
                **written,
                **{key: value for key, value in said.items() if key not in quirks},
                "general.quantization_version": scalar("u32", general.QUANTIZATION_VERSION),
                **tokens,
                **quirks,
                **carried.to_metadata(model.files, config, tokens),
                **dtypes.record(model.tensors),
                **originals.record(
                    model.tensors,
                    translated.tensors,
                    lambda tensors: arch.to_canonical(tensors, config, Report()),
                ),
            }
        return translated

    def recipe(self, name: str, *, pure: bool = False, weighted: bool = False) -> Recipe | None:
        """Return a file type of llama-quantize; see `filetypes`."""
        return filetypes.file_type(name, pure=pure, weighted=weighted)

    def importance(self, path: str | os.PathLike[str]) -> ImportanceMatrix:
        """Read what llama-imatrix writes; see `imatrix`."""
        return imatrix.read(path)

    def weighed(self, model: Model, matrix: ImportanceMatrix) -> Model:
        """Return the model with the key-values ``quantize.imatrix.*``."""
        return replace(model, metadata={**model.metadata, **imatrix.metadata(matrix)})

    def encoding(self, name: str, tensor: Lazy, wanted: Encoding | None) -> Encoding:
        """Return how llama.cpp's converter would store a tensor; see `recipes.encoding`."""
        return recipes.encoding(name, tensor, wanted)

    def complete(self, model: Model) -> Model:
        """Return the model with ``general.file_type`` filled in."""
        before = model.metadata.get(FILE_TYPE)
        number = recipes.file_type(
            model.tensors.values(), before.data if before and isinstance(before.data, int) else None
        )
        if number is None:
            kept = {key: value for key, value in model.metadata.items() if key != FILE_TYPE}
            return replace(model, metadata=kept)
        return replace(model, metadata={**model.metadata, FILE_TYPE: scalar("u32", number)})


DIALECT = GgufDialect()


def _emptied(model: Model, dialect: str) -> Model:
    return replace(model, dialect=dialect, tensors={}, metadata={}, config=None, files={})


def _family(model: Model) -> Arch:
    if ARCHITECTURE not in model.metadata:
        raise InvalidFile(f"lacks the key-value {ARCHITECTURE}", rule="missing-key")
    name = model.metadata[ARCHITECTURE].plain()
    families = registry.architectures().values()
    return find_by_name(families, name, model.metadata, model.tensors)


def _config(arch: Arch, model: Model, files: Mapping[str, bytes], report: Report) -> dict[str, Any]:
    """Return the config that the file carries, brought up to date, or one from the key-values."""
    if sidefiles.CONFIG in files:
        before = sidefiles.parse_json(files[sidefiles.CONFIG], sidefiles.CONFIG)
        return arch.revise(before, files, model.metadata, model.tensors, report)
    config = arch.to_config(model.metadata, model.tensors, report)
    ids: dict[str, Any] = {}
    with report.collect():
        ids = tokenizers.generation_ids(model.metadata)
    return NOT_SAID | config | ids


def _check_tokens(metadata: Metadata, config: Config, report: Report) -> None:
    """Tell when there are more or fewer tokens than embeddings."""
    with report.collect():
        tokens = metadata.get(TOKENS)
        size = integer(config, "vocab_size")
        if tokens is not None and tokens.type == "array" and len(tokens.data) != size:  # type: ignore[arg-type]
            raise InvalidFile(
                f"{TOKENS} and the size of the vocabulary differ",
                rule="vocabulary-size",
                got=f"{len(tokens.data)} tokens",  # type: ignore[arg-type]
                expected=size,
            )


def _checked_config(model: Model, report: Report) -> Config:
    """Return the config; one that says that the weights are stored in unknown ways is a problem."""
    if model.config is None:
        raise InvalidFile("has no config.json", rule="missing-config")
    settings = model.config.get("quantization_config")
    if settings:
        method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
        report.problem(
            Unsupported(
                "the checkpoint's weights are quantised in a way that is not read yet",
                rule="quantized-checkpoint",
                got=method,
                hint="convert the checkpoint that it was made from",
            )
        )
    return model.config


def _note_tied(config: Config, tensors: Mapping[str, Lazy], report: Report) -> None:
    if config.get("tie_word_embeddings") and "output.weight" in tensors:
        report.note(
            "tied",
            "lm_head.weight",
            "config.json ties it to the embedding, and it is there all the same: llama.cpp uses it",
        )


def _tokenizer(
    model: Model, config: Config, options: DialectOptions, report: Report
) -> dict[str, Value]:
    result = tokenizers.Result({})
    with report.collect():
        size = integer(config, "vocab_size")
        result = tokenizers.to_gguf(model.files, config, vocab_size=size, pre=options.pre_tokenizer)
    for warning in result.warnings:
        report.note("warning", carried.TOKENIZER, warning)
    return result.metadata
