"""Finding the strings of an array without looking at their text.

A string is a length of eight bytes and its UTF-8. Vocabularies hold up to a million of them, nearly
all of less than 256 bytes: seven of the eight length bytes are zero. Such places are found for
a whole window of the file at once, and they are the strings exactly if each one leads to the next.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.formats.gguf.types import MAX_STRINGS
from weighbridge.metadata import LazyStrings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.checked import Reader

_PREFIX = 8
"""Bytes in a length."""

_SMALL_WINDOW = 1 << 12
_WINDOW = 1 << 16
"""Bytes that are searched at once: few where windows did not help, then more, up to what fits a
core's own cache together with all that is computed from it."""

_FEW = 32
"""Strings that are walked one by one where a window did not help."""


def skip_strings(reader: Reader, count: int, behind: int = 0) -> LazyStrings:
    """Return the next `count` strings of a header, by address; no byte behind it is looked at.

    Args:
        reader: at the length of the first string.
        count: how many strings there are.
        behind: how many bytes of the header follow them at the least.

    Raises:
        InvalidFile: (rule ``truncated`` or ``count``) when the file ends before; (rule ``count``)
            when there are more than `MAX_STRINGS`.

    Example:
        >>> from weighbridge.checked import Reader
        >>> prefixed = b"".join(bytes([n, *[0] * 7]) + b"x" * n for n in (2, 0, 1))
        >>> list(skip_strings(Reader(memoryview(prefixed), "x"), 3))
        ['xx', '', 'x']
    """
    if count > MAX_STRINGS:
        reader.fail("an array has too many strings", "count", got=count, expected=MAX_STRINGS)
    offsets = np.empty(count, np.int64)
    done = 0
    while done < count:
        step, reach = _one_by_one(reader, offsets[done : done + _FEW]), _SMALL_WINDOW
        while step >= _FEW:
            done += step
            size = min(reach, (count - done) * _PREFIX + behind)
            step = _in_window(reader, offsets[done:], size)
            reach = min(reach * 4, _WINDOW)
        done += step
    return PrefixedStrings(reader.buffer, offsets, reader.offset)


class PrefixedStrings(LazyStrings):
    """Strings that follow each other in a file, each behind its length in eight bytes."""

    def __init__(self, buffer: memoryview, offsets: NDArray[np.int64], end: int) -> None:
        """Keep where the strings begin, and where the last one ends."""
        self.buffer = buffer
        self.offsets = offsets
        self.end = end

    @cached_property
    def lengths(self) -> NDArray[np.int64]:  # type: ignore[override]
        """How many bytes each string has; computed when the first one is looked at."""
        return np.diff(self.offsets, append=self.end + _PREFIX) - _PREFIX


def _one_by_one(reader: Reader, offsets: NDArray[np.int64]) -> int:
    """Walk as many strings as there is room for in `offsets`, and return how many."""
    for i in range(len(offsets)):
        length = reader.count("Q", 1)
        offsets[i] = reader.offset
        reader.take(length)
    return len(offsets)


def _in_window(reader: Reader, offsets: NDArray[np.int64], size: int) -> int:
    """Walk the strings that begin in a window while each leads to the next; return how many.

    At most as many as there is room for in `offsets`.
    """
    if len(offsets) < 2 or size > reader.remaining:
        return 0
    window = np.frombuffer(reader.buffer, np.uint8, size, reader.offset)
    texts, lengths = _candidates(window, reader.order)
    after = texts + lengths
    good = min(_chained(texts, after), len(offsets))
    np.add(texts[:good], reader.offset, out=offsets[:good])
    if good:
        reader.take(int(after[good - 1]))
    return good


def _candidates(window: NDArray[np.uint8], order: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where the text of a string of less than 256 bytes may begin, and its length."""
    zeros = _runs_of_seven(window)
    if order == "<":
        return zeros + (_PREFIX - 1), window[zeros - 1].astype(np.intp)
    return zeros + _PREFIX, window[zeros + (_PREFIX - 1)].astype(np.intp)


def _runs_of_seven(window: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return places where a zero byte and six more follow, at most one out of four neighbours.

    Two lengths are at least eight bytes apart, so that no more can be right; and NumPy is several
    times faster at finding a quarter as many words, of which every fourth is no zero.
    """
    runs = window == 0
    runs = runs[:-1] & runs[1:]
    runs = runs[:-2] & runs[2:]
    runs = runs[:-3] & runs[3:]
    words = runs[: (len(runs) - 1) // 4 * 4].view("<u4")
    places: NDArray[np.intp] = (words != 0).nonzero()[0]
    found = words[places]
    places *= 4
    for bits in (8, 16, 24):
        places += found >= 1 << bits
    return places


def _chained(texts: NDArray[np.intp], after: NDArray[np.intp]) -> int:
    """Count the candidates, from the window's begin on, that each lead to the next one."""
    if not len(texts) or texts[0] != _PREFIX:
        return 0
    broken = after[:-1] + _PREFIX != texts[1:]
    return int(broken.argmax()) + 1 if broken.any() else len(texts)
