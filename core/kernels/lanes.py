"""The vocabulary of the searches: arithmetic on lanes, where a lane is a block.

A search is a plain function over these words, the operators of Python, and ``&``. All its numbers
are float32, and each lane goes through the same float operations in the same order as ggml's C
code does for one block, so that it rounds as that does. What is a lane depends on who calls:

- called as Python, a row of lanes is a NumPy array with one number for each block of a batch;
- compiled (see `weighbridge.kernels.simd`), it is a vector register with 16 of them.

Both work on scratch arrays of shape ``(rows, lanes)``. Whole numbers are kept as float32 too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[Any]
"""One float32 for each block. (NumPy's types know no float32 quotients.)"""

Mask = NDArray[np.bool_]
"""One truth for each block: what a comparison of lanes gives."""

Rows = NDArray[np.float32]
"""Numbers for each block, of shape ``(rows, lanes)``."""

Octets = NDArray[np.uint8]
"""The bytes of blocks, of shape ``(bytes of a block, lanes)``."""

_MAGIC = 12582912.0
"""1.5 times 2**23: added to a float32, it leaves the nearest whole number in the low 23 bits."""


def scratch(like: Rows, count: int) -> Rows:
    """Return `count` rows as wide as those of `like`, with nothing in them."""
    return np.empty((count, like.shape[1]), np.float32)


def row(rows: Rows, index: int) -> Lanes:
    """Return one row: number `index` of each block."""
    lanes: Lanes = rows[index]
    return lanes


def setrow(rows: Rows, index: int, lanes: Lanes) -> None:
    """Store `lanes` as one row."""
    rows[index] = lanes


def like(lanes: Lanes, number: float) -> Lanes:
    """Return lanes that are all `number`."""
    return np.full_like(lanes, number)


def select(mask: Mask, yes: Lanes, no: Lanes) -> Lanes:
    """Return `yes` in lanes where `mask` is true, `no` in the others.

    Example:
        >>> select(np.array([True, False]), np.float32([1, 2]), np.float32([3, 4])).tolist()
        [1.0, 4.0]
    """
    return np.where(mask, yes, no)


def anyl(mask: Mask) -> bool:
    """Tell whether `mask` is true in any lane."""
    return bool(mask.any())


def fabs(lanes: Lanes) -> Lanes:
    """Return magnitudes."""
    return np.abs(lanes)


def sqrt(lanes: Lanes) -> Lanes:
    """Return square roots."""
    return np.sqrt(lanes)


def nearest(lanes: Lanes) -> Lanes:
    """Return the nearest whole numbers, of two the even one.

    From 2**22 on, and for infinities and NaN, the result is what ggml's ``nearest_int`` makes of
    the bits: 23 of them, less 2**22.

    Example:
        >>> nearest(np.float32([0.5, 1.5, -2.7, 2**22, np.inf, np.nan])).tolist()
        [0.0, 2.0, -3.0, -4194304.0, -4194304.0, 0.0]
    """
    bits = (lanes + np.float32(_MAGIC)).view(np.int32)
    return ((bits & 0x7FFFFF) - 0x400000).astype(np.float32)


def clamp(lanes: Lanes, low: float, high: float) -> Lanes:
    """Return numbers from `low` to `high`; `low` for NaN.

    Example:
        >>> clamp(np.float32([-1, 2.5, np.inf, np.nan]), 0, 3).tolist()
        [0.0, 2.5, 3.0, 0.0]
    """
    return np.fmin(np.fmax(lanes, np.float32(low)), np.float32(high))


def floor(lanes: Lanes) -> Lanes:
    """Return the largest whole numbers that are not larger."""
    return np.floor(lanes)


def wrap(lanes: Lanes, bits: int) -> Lanes:
    """Return the low `bits` bits of whole numbers, as C's casts to unsigned types do.

    Example:
        >>> wrap(np.float32([255, 256, -1]), 8).tolist()
        [255.0, 0.0, 255.0]
    """
    return (lanes.astype(np.int32) & ((1 << bits) - 1)).astype(np.float32)


def upper(lanes: Lanes, bits: int) -> Lanes:
    """Return whole numbers without their low `bits` bits, shifted down.

    Example:
        >>> upper(np.float32([63, 16, 15]), 4).tolist()
        [3.0, 1.0, 0.0]
    """
    return (lanes.astype(np.int32) >> bits).astype(np.float32)


def either(lanes: Lanes, other: Lanes) -> Lanes:
    """Return the bits that are set in either of two whole numbers.

    Example:
        >>> either(np.float32([5]), np.float32([3])).tolist()
        [7.0]
    """
    return (lanes.astype(np.int32) | other.astype(np.int32)).astype(np.float32)


def staircase(lanes: Lanes, edges: NDArray[np.float32], steps: NDArray[np.float32]) -> Lanes:
    """Return the step that each number stands on: the last one where none of `edges` is above it.

    That is where ggml's search puts NaN too.

    Example:
        >>> staircase(np.float32([-9, 0, 2, np.nan]), np.float32([0, 1]), np.float32([5, 6, 7]))
        array([5., 6., 7., 7.], dtype=float32)
    """
    return np.take(steps, np.searchsorted(edges, lanes, side="right"))


def lookup(table: NDArray[np.float32], index: Lanes) -> Lanes:
    """Return what a table has at each index, a whole number within it.

    Example:
        >>> lookup(np.float32([5, 6, 7]), np.float32([2, 0])).tolist()
        [7.0, 5.0]
    """
    return np.take(table, index.astype(np.int32))


def pick(rows: Rows, index: Lanes) -> Lanes:
    """Return from each block's numbers the one at its index, a whole number.

    Example:
        >>> pick(np.float32([[5, 6], [7, 8]]), np.float32([1, 0])).tolist()
        [7.0, 6.0]
    """
    picked: Lanes = np.take_along_axis(rows, index.astype(np.int64)[None], axis=0)[0]
    return picked


def point_shape(levels: tuple[float, ...]) -> tuple[int, int]:
    """Return how many codes a point has, and how many bits a code, that are places in `levels`.

    Example:
        >>> point_shape((1.0, 3.0, 5.0)), point_shape((1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0))
        ((8, 2), (4, 3))
    """
    bits = (len(levels) - 1).bit_length()
    return 32 >> bits, bits


def nearest_point(
    values: Rows,
    weights: Rows,
    at: int,
    levels: tuple[float, ...],
    scale: Lanes,
    start: Lanes,
    neighbours: NDArray[np.float32],
    space: Rows,
) -> Lanes:
    """Return which of some points is nearest to `values`, the first of equals, or -1.

    A point is a number whose digits, the lowest first, stand for ``scale * levels[digit]``.
    Distances are sums of weighted squares, of finite ones the least counts. A lane's points are in
    `neighbours` from behind `start` on, where their number is; for a negative `start` there is
    none.

    Args:
        values: what is near to a point, in the rows from `at` on: 4 of them, or 8.
        weights: as many rows.
        at: the first row.
        levels: 8 where there are 4 values, 3 where there are 8.
        scale: see above.
        start: likewise.
        neighbours: see `weighbridge.kernels.ggml.neighbours`.
        space: three rows, written over.

    Example:
        >>> one, table = np.ones((8, 1), np.float32), np.float32([3, 0, 0x5555, 0xAAAA])
        >>> space, levels = np.zeros((3, 1), np.float32), (1.0, 3.0, 5.0)
        >>> hex(int(nearest_point(2.9 * one, one, 0, levels, one[0], 0 * one[0], table, space)[0]))
        '0x5555'
    """
    some = start >= 0
    first = np.where(some, start, 0).astype(np.int64)
    counts = np.where(some, neighbours[first], 0)
    chosen = np.full_like(scale, -1)
    least = np.full_like(scale, np.finfo(np.float32).max)
    per, bits = point_shape(levels)
    factors = np.array(levels, np.float32)
    for j in range(1, int(counts.max(initial=0)) + 1):
        points = neighbours[np.where(counts >= j, first + j, 1)]
        distance = np.zeros_like(scale)
        for i in range(per):
            digit = points.astype(np.int64) >> (bits * i) & ((1 << bits) - 1)
            error = scale * factors[digit] - values[at + i]
            distance += weights[at + i] * error * error
        nearer = (counts >= j) & (distance < least)
        least = np.where(nearer, distance, least)
        chosen = np.where(nearer, points, chosen)
    return chosen


def half(lanes: Lanes) -> Lanes:
    """Return numbers rounded to float16, as float32; too large ones are infinite.

    Example:
        >>> half(np.float32([1.0001, 1e-9])).tolist()
        [1.0, 0.0]
    """
    return lanes.astype(np.float16).astype(np.float32)


def half_bits(lanes: Lanes) -> Lanes:
    """Return the bits of numbers as float16, as whole numbers.

    Example:
        >>> half_bits(np.float32([1, -2])).tolist()
        [15360.0, 49152.0]
    """
    return lanes.astype(np.float16).view(np.uint16).astype(np.float32)


def setbyte(out: Octets, index: int, lanes: Lanes) -> None:
    """Store whole numbers from 0 to 255 as byte `index` of each block."""
    out[index] = lanes


def sethalf(out: Octets, index: int, lanes: Lanes) -> None:
    """Store numbers as float16, little endian, in bytes `index` and the next of each block."""
    bits = lanes.astype(np.float16).view(np.uint16)
    out[index] = bits & 255
    out[index + 1] = bits >> 8
