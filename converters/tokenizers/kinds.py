"""The kinds of tokenizers, by the name that ``tokenizer.ggml.model`` has for each.

A kind is a module beside this one. It knows the vocabulary alone; special tokens, chat templates
and the files' settings are the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from weighbridge.converters.tokenizers import (
    byte_level_bpe,
    keys,
    sentencepiece_bpe,
    sentencepiece_model,
    unigram,
    wordpiece,
)
from weighbridge.converters.tokenizers.document import FILE
from weighbridge.errors import InvalidFile, Unsupported

if TYPE_CHECKING:
    from weighbridge.converters.tokenizers.document import Document, Source
    from weighbridge.converters.tokenizers.special import Defaults
    from weighbridge.metadata import Metadata, Value


class Kind(Protocol):
    """What a module has to have to be a kind of tokenizer.

    Attributes:
        TITLE: what people call it.
    """

    TITLE: str

    def owns(self, document: Document) -> bool:
        """Say whether a tokenizer.json is of this kind."""

    def to_gguf(
        self, source: Source, *, vocab_size: int, pre: str | None, warnings: list[str]
    ) -> dict[str, Value]:
        """Return the key-values of the vocabulary, the model's name first."""

    def from_gguf(self, metadata: Metadata) -> dict[str, object]:
        """Return the tokenizer.json that the key-values stand for."""

    def texts(self, metadata: Metadata) -> list[str]:
        """Return every id's token as tokenizer.json spells it."""

    def defaults(self, metadata: Metadata) -> Defaults:
        """Return what llama.cpp does where a file of this kind does not say."""


KINDS: Mapping[str, Kind] = {
    byte_level_bpe.NAME: byte_level_bpe,
    wordpiece.NAME: wordpiece,
    sentencepiece_bpe.NAME: sentencepiece_bpe,
    unigram.NAME: unigram,
}
"""Name in GGUF -> the kind."""

MODEL_KINDS: Mapping[int, Kind] = {
    sentencepiece_model.BPE: sentencepiece_bpe,
    sentencepiece_model.UNIGRAM: unigram,
}
"""Type of SentencePiece's model -> the kind."""


def of_source(source: Source) -> Kind:
    """Return the kind of a directory's tokenizer: tokenizer.json tells, else the model file.

    Raises:
        Unsupported: (rule ``tokenizer-model``) for one that is not known.
    """
    model = None if FILE in source.files else source.model
    if model is None:
        return of_document(source.document)
    if model.type not in MODEL_KINDS:
        raise Unsupported(
            "the tokenizer is of a kind that cannot be carried over",
            rule="tokenizer-model",
            path=model.name,
            got=f"SentencePiece's type {model.type}",
            expected=f"one of {_titles(MODEL_KINDS.values())}",
        )
    return MODEL_KINDS[model.type]


def of_document(document: Document) -> Kind:
    """Return the kind of a tokenizer.json.

    Raises:
        Unsupported: (rule ``tokenizer-model``) for one that is not known.
    """
    for kind in KINDS.values():
        if kind.owns(document):
            return kind
    model = document.get("model")
    raise Unsupported(
        "the tokenizer is of a kind that cannot be carried over",
        rule="tokenizer-model",
        path=FILE,
        got=f"{model.get('type') if isinstance(model, Mapping) else None} "
        f"after {_types(document.get('pre_tokenizer'))}",
        expected=f"one of {_titles(KINDS.values())}",
    )


def _titles(kinds: Iterable[Kind]) -> str:
    return ", ".join(kind.TITLE for kind in kinds)


def _types(step: object) -> str:
    """Return the types of the pre-tokenizers, in a word."""
    if not isinstance(step, Mapping):
        return "no pre-tokenizer"
    inner = step.get("pretokenizers")
    steps = (
        [one for one in inner if isinstance(one, Mapping)] if isinstance(inner, list) else [step]
    )
    return ", ".join(str(one.get("type")) for one in steps)


def of_metadata(metadata: Metadata) -> Kind:
    """Return the kind of a GGUF's tokenizer.

    Raises:
        InvalidFile: (rule ``missing-key``) when the file does not name it.
        Unsupported: (rule ``tokenizer-model``) for one that is not known.
    """
    name = keys.text(metadata, keys.MODEL)
    if name is None:
        raise InvalidFile("there is no tokenizer", rule="missing-key", expected=keys.MODEL)
    if name not in KINDS:
        raise Unsupported(
            "the tokenizer is of a kind that cannot be carried over",
            rule="tokenizer-model",
            got=name,
            expected=f"one of {', '.join(KINDS)}",
        )
    return KINDS[name]
