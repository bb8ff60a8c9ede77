"""What a tokenizer.json with SentencePiece's spaces does to a text before its model sees it.

SentencePiece writes a space as ``▁`` and may put one before a text. In a tokenizer.json that is
done by normalizers (``Prepend``, ``Replace``) or by a pre-tokenizer (``Metaspace``). Source: the
`tokenizers` library.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers.arrays import PHANTOM_SPACE
from weighbridge.converters.tokenizers.document import wrong
from weighbridge.converters.tokenizers.pretokenizers import flat
from weighbridge.errors import InvalidFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.converters.tokenizers.document import Document, Source
    from weighbridge.converters.tokenizers.sentencepiece_model import SentencePiece

    Step = Mapping[str, object]

SPLITTERS = ("WhitespaceSplit", "Whitespace")
"""Pre-tokenizers that drop the spaces between words."""

ESCAPES = {"type": "Replace", "pattern": {"String": " "}, "content": PHANTOM_SPACE}
PREPENDS = {"type": "Prepend", "prepend": PHANTOM_SPACE}
UNESCAPES = {"type": "Replace", "pattern": {"String": PHANTOM_SPACE}, "content": " "}
"""Steps as `tokenizers` writes them."""

MANY_SPACES = (" {2,}", " +", r"\s+", r"\s{2,}")
"""Patterns that match a run of spaces."""


@dataclass
class Spacing:
    """What is done to a text.

    Attributes:
        prefix: where a space is put: before ``each`` piece between special tokens, before the
            ``first`` one if the text begins with it, or ``never``.
        twice: whether the space is put even before a text that begins with one.
        merges: whether only one space between words is kept, and none around the text.
        cuts: whether the text is cut before each space, so that no token has one inside.
        escapes: whether spaces become ``▁`` at all.
        charsmap: how characters are replaced; empty for not at all.
        others: the types of other steps.
    """

    prefix: str = "never"
    twice: bool = True
    merges: bool = False
    cuts: bool = False
    escapes: bool = False
    charsmap: bytes = b""
    others: list[str] = field(default_factory=list)


def of_source(source: Source) -> Spacing:
    """Return what is done to a text; tokenizer.json is believed before the model file.

    Raises:
        InvalidFile: (rules ``tokenizer-json`` and ``charsmap``) for a map of characters that is
            none.
    """
    if source.document or source.model is None:
        return of_document(source.document)
    return of_model(source.model)


def of_document(document: Document) -> Spacing:
    """Return what a tokenizer.json does to a text.

    Raises:
        InvalidFile: (rules ``tokenizer-json`` and ``charsmap``) for a map of characters that is
            none.

    Example:
        >>> of_document({"normalizer": {"type": "Prepend", "prepend": "▁"}}).prefix
        'each'
    """
    spacing = Spacing()
    for step in flat(document.get("normalizer"), "normalizers"):
        _normalize(step, spacing)
    for step in flat(document.get("pre_tokenizer"), "pretokenizers"):
        _cut(step, spacing)
    return spacing


def _normalize(step: Step, spacing: Spacing) -> None:
    kind, pattern = step.get("type"), _pattern(step)
    if kind == "Prepend" and step.get("prepend") == PHANTOM_SPACE:
        spacing.prefix = "each"
    elif kind == "Replace" and pattern == " " and step.get("content") == PHANTOM_SPACE:
        spacing.escapes = True
    elif kind == "Strip" or _merges(step):
        spacing.merges = True
    elif kind == "Precompiled":
        spacing.charsmap = _charsmap(step.get("precompiled_charsmap"))
    else:
        spacing.others.append(str(kind))


def _merges(step: Step) -> bool:
    """Say whether a step leaves one space of many."""
    leaves_one = step.get("content") in (" ", PHANTOM_SPACE)
    return step.get("type") == "Replace" and leaves_one and _pattern(step) in MANY_SPACES


def _cut(step: Step, spacing: Spacing) -> None:
    kind = step.get("type")
    if kind == "Metaspace" and step.get("replacement", PHANTOM_SPACE) == PHANTOM_SPACE:
        spacing.escapes = True
        spacing.twice = False
        spacing.cuts = spacing.cuts or bool(step.get("split", True))
        scheme = step.get("prepend_scheme", "always")
        if step.get("add_prefix_space", True) and scheme in ("always", "first"):
            spacing.prefix = "each" if scheme == "always" else "first"
    elif kind in SPLITTERS or (kind == "Split" and _drops_spaces(step)):
        spacing.merges = spacing.cuts = True
        if kind == "Whitespace":
            spacing.others.append("Whitespace")
    elif not (kind == "Split" and _pattern(step) == " " and spacing.escapes):
        spacing.others.append(str(kind))


def _drops_spaces(step: Step) -> bool:
    return _pattern(step) == " " and step.get("behavior") == "Removed"


def _pattern(step: Step) -> str | None:
    """Return what a step looks for, a text or a pattern."""
    pattern = step.get("pattern")
    found = pattern.get("String", pattern.get("Regex")) if isinstance(pattern, dict) else None
    return found if isinstance(found, str) else None


def _charsmap(text: object) -> bytes:
    if text is None:
        return b""
    try:
        content = base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        wrong("'precompiled_charsmap' is not base64", got=str(text)[:40])
    return check_charsmap(content)


def check_charsmap(content: bytes) -> bytes:
    r"""Return a map of characters whose first part, a trie of 32-bit units, is whole.

    Source: SentencePiece's ``normalizer.cc``: the trie's size in bytes, the trie, then the texts
    that take a character's place, each ended by a zero.

    Raises:
        InvalidFile: (rule ``charsmap``).

    Example:
        >>> check_charsmap(b"\4\0\0\0\0\0\0\0a\0")
        b'\x04\x00\x00\x00\x00\x00\x00\x00a\x00'
    """
    size = int.from_bytes(content[:4], "little")
    if content and (len(content) <= 4 + size or size % 4 or not size or content[-1]):
        raise InvalidFile(
            "the map of characters is cut short",
            rule="charsmap",
            got=f"{len(content)} bytes",
            expected=f"a trie of {size} bytes and texts behind it",
        )
    return content


def of_model(model: SentencePiece) -> Spacing:
    """Return what SentencePiece does to a text.

    Raises:
        InvalidFile: (rule ``charsmap``) for a map of characters that is none.
    """
    return Spacing(
        prefix="each" if model.adds_prefix else "never",
        merges=model.merges_spaces,
        escapes=True,
        charsmap=check_charsmap(model.charsmap),
        others=["a space behind each word"] if model.space_behind else [],
    )


def warn(spacing: Spacing, texts: Iterable[str], warnings: list[str]) -> None:
    """Say where llama.cpp treats a text otherwise, whatever the kind.

    Args:
        spacing: what the tokenizer does.
        texts: the tokens.
        warnings: is told.
    """
    if spacing.prefix == "first":
        warnings.append(
            "llama.cpp puts a space before a text after every special token too, this tokenizer "
            "only before the first text"
        )
    if spacing.prefix != "never" and not spacing.twice and not spacing.merges:
        warnings.append("llama.cpp puts a space before a text also if it begins with one")
    if spacing.cuts and any(PHANTOM_SPACE in text[1:] for text in texts):
        warnings.append("llama.cpp also finds tokens with spaces inside, which this tokenizer cuts")
    if spacing.others:
        warnings.append(
            "llama.cpp does not change or cut texts as this tokenizer does: "
            f"{', '.join(spacing.others)}"
        )


def normalizer(*, prefix: bool) -> dict[str, object]:
    """Return the normalizer that writes spaces as llama.cpp does.

    Example:
        >>> normalizer(prefix=False)["type"]
        'Replace'
    """
    if not prefix:
        return dict(ESCAPES)
    return {"type": "Sequence", "normalizers": [dict(PREPENDS), dict(ESCAPES)]}


def decoder(*, prefix: bool) -> dict[str, object]:
    """Return the decoder that makes spaces and bytes of tokens again.

    Example:
        >>> [step["type"] for step in decoder(prefix=False)["decoders"]]
        ['Replace', 'ByteFallback', 'Fuse']
    """
    steps = [dict(UNESCAPES), {"type": "ByteFallback"}, {"type": "Fuse"}]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {"type": "Sequence", "decoders": [*steps, *strip]}
