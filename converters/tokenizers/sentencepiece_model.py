"""A SentencePiece model file (``tokenizer.model``), read without trusting it.

Source: ``sentencepiece_model.proto`` of SentencePiece: a `ModelProto` of pieces, the settings of
the training, and those of the normaliser.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.errors import InvalidFile
from weighbridge.protobuf import BYTES, FIXED32, VARINT, Message, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.protobuf import Field

FAIRSEQ_FILE = "sentencepiece.bpe.model"
"""The file's name where the ids of the pieces are not those of the model."""

FILES = ("tokenizer.model", "spiece.model", FAIRSEQ_FILE)
"""What Hugging Face's directories call the file."""

UNIGRAM, BPE = 1, 2
"""The types of models that GGUF has a name for."""

PIECES = 1

PARTS = {2: Spec("trainer", BYTES), 3: Spec("normalizer", BYTES)}
PIECE = {1: Spec("text", BYTES), 2: Spec("score", FIXED32), 3: Spec("type", VARINT)}
TRAINER = {3: Spec("type", VARINT), 24: Spec("suffix", VARINT)}
NORMALIZER = {
    2: Spec("charsmap", BYTES),
    3: Spec("prefix", VARINT),
    4: Spec("merges", VARINT),
}
"""The fields of each message that matter here: number -> our name and the wire type."""

TYPES = frozenset(map(int, TokenType))


@dataclass(frozen=True)
class SentencePiece:
    """What a model file says.

    Attributes:
        name: the file's name.
        type: `UNIGRAM`, `BPE`, or a number that stands for another.
        texts: every piece's text.
        scores: every piece's score, a float32.
        types: every piece's `TokenType`; the numbers are those of the file.
        charsmap: how characters are replaced first; empty for not at all.
        adds_prefix: whether a text gets a space before it.
        merges_spaces: whether spaces around a text, and all but one between words, are dropped.
        space_behind: whether a piece has its space behind it.
    """

    name: str
    type: int
    texts: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    charsmap: bytes
    adds_prefix: bool
    merges_spaces: bool
    space_behind: bool


def find(files: Mapping[str, bytes]) -> str | None:
    """Return the name of the model file among side files, None where there is none.

    Example:
        >>> find({"spiece.model": b"", "tokenizer.json": b""})
        'spiece.model'
    """
    return next((name for name in FILES if name in files), None)


def parse(content: bytes, name: str) -> SentencePiece:
    """Return what a model file says.

    Raises:
        InvalidFile: (rule ``sentencepiece-model``) for pieces that SentencePiece would refuse, and
            for what is wrong with any protobuf.

    Example:
        >>> from weighbridge.protobuf import bytes_field, number_field
        >>> piece = bytes_field(1, "▁a") + number_field(3, 1)
        >>> model = parse(bytes_field(1, piece), "tokenizer.model")
        >>> model.texts, model.types, model.type, model.adds_prefix
        (('▁a',), (1,), 1, True)
    """
    message = Message(memoryview(content), name)
    trainer, normalizer = _settings(message)
    pieces = [_piece(message.message(field)) for field in message.each(PIECES)]
    texts = tuple(text for text, _, _ in pieces)
    if not texts or len(set(texts)) < len(texts):
        _wrong(name, "there are no pieces, or two with the same text")
    charsmap = normalizer.get("charsmap")
    return SentencePiece(
        name,
        _number(trainer, "type", UNIGRAM),
        texts,
        tuple(score for _, score, _ in pieces),
        tuple(kind for _, _, kind in pieces),
        b"" if charsmap is None else message.content(charsmap),
        adds_prefix=bool(_number(normalizer, "prefix", 1)),
        merges_spaces=bool(_number(normalizer, "merges", 1)),
        space_behind=bool(_number(trainer, "suffix", 0)),
    )


def _settings(message: Message) -> tuple[dict[str, Field], dict[str, Field]]:
    """Return the fields of the trainer's and of the normaliser's settings, by our names."""
    parts = message.singles(PARTS)
    trainer, normalizer = (parts.get(name) for name in ("trainer", "normalizer"))
    return (
        message.message(trainer).singles(TRAINER) if trainer else {},
        message.message(normalizer).singles(NORMALIZER) if normalizer else {},
    )


def _number(fields: Mapping[str, Field], name: str, default: int) -> int:
    return fields[name].value if name in fields else default


def _piece(message: Message) -> tuple[str, float, int]:
    """Return a piece's text, score and type."""
    fields = message.singles(PIECE)
    text = message.text(fields["text"]) if "text" in fields else ""
    score = 0.0
    if "score" in fields:
        (score,) = struct.unpack_from("<f", message.buffer, fields["score"].start)
    kind = _number(fields, "type", int(TokenType.NORMAL))
    if not text or not math.isfinite(score) or kind not in TYPES:
        _wrong(str(message.path), "a piece has no text, no score or no type", got=repr(text))
    return text, score, kind


def _wrong(name: str, problem: str, got: object = None) -> NoReturn:
    raise InvalidFile(problem, rule="sentencepiece-model", path=name, got=got)
