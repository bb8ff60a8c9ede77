"""Text in columns, for terminals and pipes alike."""

from __future__ import annotations

import unicodedata
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes.

    Example:
        >>> width("weight"), width("重み"), width("e\u0301")
        (6, 4, 1)
    """
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
               for c in text)  # fmt: skip


def columns(rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Return rows as lines, every column as wide as its widest cell.

    Args:
        rows: cells; a row may lack the last ones.
        right: the numbers of the columns that are flush right.

    Example:
        >>> for line in columns([("name", "size"), ("a.weight", "12 B"), ("b", "3 B")], right=[1]):
        ...     print(line)
        name      size
        a.weight  12 B
        b          3 B
    """
    table = [tuple(row) for row in rows]
    widths = [max(map(width, cells)) for cells in zip_longest(*table, fillvalue="")]
    flush = set(right)
    return ["  ".join(_padded(row, widths, flush)).rstrip() for row in table]


def _padded(row: Sequence[str], widths: Sequence[int], right: set[int]) -> Iterable[str]:
    for number, (cell, room) in enumerate(zip(row, widths, strict=False)):
        space = " " * (room - width(cell))
        yield space + cell if number in right else cell + space


def counted(count: int, noun: str) -> str:
    """Return a number of things in words.

    Example:
        >>> counted(1, "tensor"), counted(1200, "tensor")
        ('1 tensor', '1,200 tensors')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
