"""Headers as writers write them, read column by column: all names, all dtypes, all shapes at once.

Files differ in what JSON leaves open, and hardly ever do: no spaces, no escapes, every entry with
its dtype, shape and offsets in this order. Such a header is cut at its quotes, which leaves ten
pieces for each tensor, and every tenth piece is a column. Dtypes and shapes are few, so each pair
is looked at once; with these all offsets are known, and are compared as text. That takes a third of
the time of a JSON parser and a look at each entry. What is not of this form, or breaks a rule, is
left to `weighbridge.formats.safetensors.header`, which says what is wrong with it.
"""

from __future__ import annotations

import math
import re
from itertools import accumulate
from typing import TYPE_CHECKING

from weighbridge.checked import LIMIT, MAX_DIMENSIONS
from weighbridge.formats.safetensors.dtypes import DTYPES

if TYPE_CHECKING:
    from weighbridge.encoding import Dense

PIECES = 10
"""Pieces of an entry: ``name``, ``:{``, ``dtype``, ``:``, ``BF16``, and so on."""

FIXED = {2: ":{", 3: "dtype", 4: ":", 6: ",", 7: "shape", 9: "data_offsets"}
"""The pieces that are the same in every entry, by their place."""

NAME, DTYPE, SHAPE, OFFSETS = 1, 5, 8, 10

Kind = tuple["Dense", tuple[int, ...], int]
"""Encoding, shape, and bytes of a tensor."""

Row = tuple[Kind, int]
"""What a header says of a tensor: its kind, and where its data begin among all."""

_SHAPE = re.compile(r":\[((?:[1-9][0-9]*,)*[1-9][0-9]*)?\],")


def read_entries(text: str, room: int) -> dict[str, Row] | None:
    """Return the rows of a plain header, in its order; None where it is not plain, or not valid.

    Args:
        text: the entries, from the quote before the first name to the brace after the last.
        room: the bytes of all data.

    Example:
        >>> read_entries('"x":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]}', 6)["x"][0][1]
        (2, 3)
        >>> read_entries('"x":{"dtype":"U8","shape":[2,3],"data_offsets":[0,5]}', 5) is None
        True
    """
    pieces = f"{text},".split('"')
    count = len(pieces) // PIECES
    if "\\" in text or len(pieces) != count * PIECES + 1 or pieces[0]:
        return None
    if any(pieces[place::PIECES].count(fixed) != count for place, fixed in FIXED.items()):
        return None
    pairs = list(zip(pieces[DTYPE::PIECES], pieces[SHAPE::PIECES], strict=True))
    known = {pair: _kind(*pair) for pair in set(pairs)}
    kinds = [kind for kind in map(known.get, pairs) if kind]
    ends = list(accumulate([length for _, _, length in kinds]))
    begins = [0, *ends[:-1]]
    offsets = [f":[{begin},{end}]}}," for begin, end in zip(begins, ends, strict=False)]
    # Which are too few where a kind is not valid.
    if offsets != pieces[OFFSETS::PIECES] or not ends or ends[-1] != room:
        return None
    names = pieces[NAME::PIECES]
    rows = dict(zip(names, zip(kinds, begins, strict=True), strict=True))
    return rows if len(rows) == count and "".join(names).isprintable() else None


def _kind(dtype: str, shape: str) -> Kind | None:
    """Return what a dtype and the text of a shape mean; None where they are not valid."""
    encoding, found = DTYPES.get(dtype), _SHAPE.fullmatch(shape)
    if encoding is None or found is None or len(shape) > _LONGEST:
        return None
    axes = tuple(map(int, found[1].split(","))) if found[1] else ()
    bits = math.prod(axes) * encoding.bits
    # No axis is 0, so that none is longer than the whole.
    if bits % 8 or bits > LIMIT or len(axes) > MAX_DIMENSIONS:
        return None
    return encoding, axes, bits // 8


_LONGEST = 1000
"""The most characters of a shape that are turned into numbers here: 64 long axes have no more."""
