"""Where llama.cpp treats text for WordPiece otherwise than `tokenizers`, character by character."""

from __future__ import annotations

import unicodedata
from functools import cache

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from support.corpus import Reason
from weighbridge.converters.tokenizers.arrays import PHANTOM_SPACE

CUT = "\v\f\x85"
"""What ends a line in some places, and is nothing to BERT."""

PLAIN = BertNormalizer(lowercase=False, strip_accents=False)
"""It cleans and sets Chinese characters apart."""

STRIPPING = BertNormalizer(lowercase=False, strip_accents=True)

LONGEST = 100
"""How many characters a word may have."""


def decomposed(line: str) -> str:
    """Return a line with letters and marks apart."""
    return unicodedata.normalize("NFD", line)


@cache
def _is_kept(mark: str) -> bool:
    return unicodedata.category(mark)[0] == "M" and STRIPPING.normalize_str(mark) == mark


@cache
def _is_cut_short(character: str) -> bool:
    return any(unicodedata.category(one)[0] != "M" for one in decomposed(character)[1:])


@cache
def _is_newer(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cf":
        return PLAIN.normalize_str(character) == character
    cuts = len(BertPreTokenizer().pre_tokenize_str(f"a{character}b")) > 2
    return category[0] != "Z" and not character.isascii() and cuts != (category[0] == "P")


def _words(line: str) -> list[str]:
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(PLAIN.normalize_str(line))]


MARKS = Reason(
    "llama.cpp takes off every mark, and of letters that fall apart it keeps the first",
    lambda line: any(map(_is_kept, decomposed(line))) or any(map(_is_cut_short, line)),
    "Korean and most scripts of South Asia",
)
NEWER = Reason(
    "llama.cpp's tables are newer than Unicode 8, it cuts at all control characters of space, and "
    "its own sign begins a word",
    lambda line: any(c in CUT or c == PHANTOM_SPACE or _is_newer(c) for c in line),
    "newer versions of Unicode",
)
LONG = Reason(
    "a word of more than 100 characters is unknown",
    lambda line: any(len(word) > LONGEST for word in _words(line)),
    "words of more than 100 characters",
)
