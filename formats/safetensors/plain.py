"""Headers as writers write them, read column by column: all names, all kinds, all offsets at once.

Files differ in what JSON leaves open, and hardly ever do: no spaces, no escapes, every entry with
its dtype, shape and offsets in this order. Such a header is cut before its offsets; each piece then
holds the offsets of one tensor, the name of the next, and its dtype and shape. The latter are few,
so each text is looked at once; with these all offsets are known, and are compared as text. That
takes half the time of a JSON parser and a look at each entry. What is not of this form, or breaks a
rule, is left to `weighbridge.formats.safetensors.header`, which says what is wrong with it.
"""

from __future__ import annotations

import math
import re
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.checked import LIMIT, MAX_DIMENSIONS
from weighbridge.formats.safetensors.dtypes import DTYPES
from weighbridge.tensor import stored

if TYPE_CHECKING:
    from weighbridge.encoding import Dense
    from weighbridge.file import File
    from weighbridge.region import Shape
    from weighbridge.tensor import Tensor

OFFSETS = ',"data_offsets":['
"""What comes before the offsets of a tensor."""

_NAME_END = '":{'

_KIND = re.compile(r'"dtype":"([^"]*)","shape":\[((?:[1-9][0-9]*,)*[1-9][0-9]*)?\]')

_LONGEST = 1000
"""The most characters of a kind that are turned into numbers here: 64 long axes have no more."""

Kind = tuple["Shape", "Dense", int]
"""Shape, encoding, and bytes of a tensor."""


def read_entries(text: str, file: File, start: int) -> dict[str, Tensor] | None:
    """Return the tensors of a plain header, in its order; None where it is not plain, or not valid.

    Args:
        text: the entries, from the quote before the first name to the brace after the last.
        file: the file.
        start: where the data begin in it.
    """
    pieces = f"0,0]}},{text}".split(OFFSETS)
    last = pieces.pop()
    entries = [piece.rpartition(_NAME_END) for piece in pieces]
    kinds = list(map(_Kinds().__getitem__, [kind for _, _, kind in entries]))
    if "\\" in text or _has_controls(text) or None in kinds or not kinds:
        return None
    shapes, encodings, lengths = zip(*kinds, strict=True)
    ends = [0, *accumulate(lengths)]
    written = ["0", *map(str, ends)]
    before = [f'{begin},{end}]}},"' for begin, end in pairwise(written)]
    heads = [head for head, _, _ in entries]
    names = list(map(str.removeprefix, heads, before))
    joined = "".join(names)
    # What does not begin with its prefix has kept its length.
    if len(joined) + len("".join(before[:-1])) != len("".join(heads)) or '"' in joined:
        return None
    if f'{last},"' != before[-1] or start + ends[-1] != file.size:
        return None
    begins = accumulate(lengths[:-1], initial=start)
    tensors = stored(file, zip(names, shapes, encodings, begins, lengths, strict=True))
    return tensors if len(tensors) == len(names) else None


def _has_controls(text: str) -> bool:
    """Tell whether there are characters that JSON has only outside of names."""
    return bool(np.frombuffer(text.encode(), np.uint8).min(initial=0xFF) < ord(" "))


class _Kinds(dict[str, Kind | None]):
    """What the texts of dtypes and shapes mean; None where they are not valid."""

    def __missing__(self, text: str) -> Kind | None:
        self[text] = kind = _kind(text)
        return kind


def _kind(text: str) -> Kind | None:
    found = _KIND.fullmatch(text) if len(text) <= _LONGEST else None
    encoding = DTYPES.get(found[1]) if found else None
    if found is None or encoding is None:
        return None
    shape = tuple(map(int, found[2].split(","))) if found[2] else ()
    bits = math.prod(shape) * encoding.bits
    # No axis is 0, so that none is longer than the whole.
    if bits % 8 or bits > LIMIT or len(shape) > MAX_DIMENSIONS:
        return None
    return shape, encoding, bits // 8
