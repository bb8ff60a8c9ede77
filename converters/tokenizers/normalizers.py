"""What a tokenizer does to a text before cutting it, and how much of it GGUF can say.

Two things: whether capitals become small letters, and whether accents are taken off. llama.cpp
reads them for WordPiece alone, and takes both for granted.

Sources: the `tokenizers` library for the steps; llama.cpp's converter (``gguf-py/gguf/vocab.py``)
for the key-values and ``src/llama-vocab.cpp`` for what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers import keys
from weighbridge.metadata import scalar

if TYPE_CHECKING:
    from weighbridge.converters.tokenizers.document import Document
    from weighbridge.metadata import Metadata, Value

BERT = "BertNormalizer"

STEPS = frozenset({BERT, "Lowercase", "StripAccents", "NFD"})
"""What llama.cpp does; it takes letters and accents apart to strip the accents."""

MOST_STEPS = 1000
"""How many steps a normalizer may have; sequences may stand in sequences."""


@dataclass(frozen=True)
class Flags:
    """The two things.

    Attributes:
        lowercase: whether capitals become small letters, None if nothing says so.
        strip_accents: whether accents are taken off, None if nothing says so, which means with
            BERT's normalizer that it is done if `lowercase` is.
    """

    lowercase: bool | None = None
    strip_accents: bool | None = None


def steps(document: Document) -> Iterator[Mapping[str, object]]:
    """Yield the steps of a tokenizer.json's normalizer, those of sequences one after the other.

    Example:
        >>> inner = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}
        >>> [step["type"] for step in steps({"normalizer": inner})]
        ['NFD', 'Lowercase']
    """
    waiting = [document.get("normalizer")]
    for _ in range(MOST_STEPS):
        if not waiting:
            return
        step = waiting.pop(0)
        inner = step.get("normalizers") if isinstance(step, Mapping) else None
        if isinstance(inner, list):
            waiting = [*inner[:MOST_STEPS], *waiting]
        elif isinstance(step, Mapping):
            yield step


def read(document: Document) -> Flags:
    """Return what a tokenizer.json says of the two things; of several steps the last one counts.

    Example:
        >>> read({"normalizer": {"type": "BertNormalizer", "lowercase": True}})
        Flags(lowercase=True, strip_accents=None)
    """
    said: dict[str, bool] = {}
    for step in steps(document):
        said |= _said(step)
    return Flags(**said)


def _said(step: Mapping[str, object]) -> dict[str, bool]:
    match step.get("type"):
        case "Lowercase":
            return {"lowercase": True}
        case "StripAccents":
            return {"strip_accents": True}
        case "BertNormalizer":
            entries = {name: step.get(name) for name in ("lowercase", "strip_accents")}
            return {name: value for name, value in entries.items() if isinstance(value, bool)}
    return {}


def to_gguf(document: Document, *, assumed: bool) -> dict[str, Value]:
    """Return the key-values for a tokenizer.json.

    Args:
        document: the tokenizer.json.
        assumed: whether llama.cpp does both where the file does not say; a tokenizer that does not
            must say so then.

    Example:
        >>> to_gguf({"normalizer": None}, assumed=False)
        {}
        >>> sorted(to_gguf({"normalizer": None}, assumed=True))
        ['tokenizer.ggml.normalizer.lowercase', 'tokenizer.ggml.normalizer.strip_accents']
    """
    flags = read(document)
    lowercase, strip_accents = flags.lowercase, flags.strip_accents
    if assumed and not any(step.get("type") == BERT for step in steps(document)):
        lowercase, strip_accents = bool(lowercase), bool(strip_accents)
    said = {keys.LOWERCASE: lowercase, keys.STRIP_ACCENTS: strip_accents}
    return {key: scalar("bool", value) for key, value in said.items() if value is not None}


def bert(metadata: Metadata) -> dict[str, object]:
    """Return the normalizer that does what llama.cpp does to a text that WordPiece cuts.

    Example:
        >>> bert({})["lowercase"], bert({})["strip_accents"]
        (True, None)
    """
    lowercase = keys.flag(metadata, keys.LOWERCASE)
    return {
        "type": BERT,
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": keys.flag(metadata, keys.STRIP_ACCENTS),
        "lowercase": True if lowercase is None else lowercase,
    }
