"""What ggml's encoders with grids share: the signs, weights, points and scales of groups.

Written over the words of `weighbridge.kernels.lanes`. Source: ``ggml-quants.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.kernels.lanes import (
    Lanes,
    Mask,
    Octets,
    Rows,
    clamp,
    like,
    lookup,
    nearest,
    point_shape,
    row,
    select,
    setbyte,
    setrow,
    sqrt,
    upper,
    wrap,
)

if TYPE_CHECKING:
    from weighbridge.kernels.ggml.search import Factors


def set_weights(x: Rows, w: Rows | None, at: int, weights: Rows, common: Lanes) -> None:
    """Set the weights of the values from `at` on.

    That is a value's square and what is `common` to all; with importance `w` it is the importance
    times the root of that.
    """
    for i in range(len(weights)):
        weight = common + row(x, at + i) * row(x, at + i)
        setrow(weights, i, weight if w is None else row(w, at + i) * sqrt(weight))


def set_magnitudes(x: Rows, at: int, values: Rows, signs: Rows) -> Lanes:
    """Set `values` to magnitudes, and a byte of `signs` for each eight; return the largest."""
    zero = like(row(x, at), 0.0)
    most = zero
    for k in range(len(values) // 8):
        mark = zero
        for i in range(8):
            value = row(x, at + 8 * k + i)
            minus = value < 0.0
            mark = mark + select(minus, zero + (1 << i), zero)
            value = select(minus, -value, value)
            most = select(most > value, most, value)
            setrow(values, 8 * k + i, value)
        setrow(signs, k, mark)
    return most


def set_even_magnitudes(x: Rows, at: int, values: Rows, weights: Rows, signs: Rows) -> Lanes:
    """Set `values` and seven bits of `signs` so that each eight have an even number of minuses.

    The value of least weight times square gets the other sign, and so may be negative. Returns the
    largest.
    """
    set_magnitudes(x, at, values, signs)
    zero = like(row(x, at), 0.0)
    for k in range(len(signs)):
        mark = row(signs, k)
        minuses = zero
        for i in range(8):
            minuses = minuses + wrap(upper(mark, i), 1)
        value = row(x, at + 8 * k)
        least = row(weights, 8 * k) * value * value
        where = zero
        for i in range(1, 8):
            value = row(x, at + 8 * k + i)
            matter = row(weights, 8 * k + i) * value * value
            less = matter < least
            least = select(less, matter, least)
            where = select(less, zero + i, where)
        odd = wrap(minuses, 1) > 0.0
        for i in range(8):
            value = row(values, 8 * k + i)
            turned = odd & (where == i)
            setrow(values, 8 * k + i, select(turned, -value, value))
            bit = wrap(upper(mark, i), 1)
            mark = select(turned, mark + (1.0 - 2.0 * bit) * (1 << i), mark)
        setrow(signs, k, wrap(mark, 7))
    most = row(values, 0)
    for i in range(1, len(values)):
        most = select(most > row(values, i), most, row(values, i))
    return most


def flip_signs(signs: Rows, flip: Mask, alive: Mask, ones: float) -> None:
    """Change all the signs, the bits of `ones`, where `flip` is true; none where not `alive`."""
    for k in range(len(signs)):
        mark = row(signs, k)
        mark = select(flip, ones - mark, mark)
        setrow(signs, k, select(alive, mark, like(mark, 0.0)))


def place_of(codes: Rows, k: int, levels: tuple[float, ...], places: Factors) -> Lanes:
    """Return which point of the grid the codes of part `k` are; 0 where they are none."""
    per, bits = point_shape(levels)
    number = like(row(codes, 0), 0.0)
    for i in range(per):
        number = number + row(codes, k * per + i) * (1 << (bits * i))
    found = lookup(places, number)
    return select(found < 0.0, number * 0.0, found)


def common_factor(scales: Rows, steps: float) -> tuple[Lanes, Lanes]:
    """Return a `steps`-th of the largest scale, and its inverse."""
    most = like(row(scales, 0), 0.0)
    for s in range(len(scales)):
        most = select(most > row(scales, s), most, row(scales, s))
    d = most / steps
    return d, 1.0 / d


def scale_code(inverse: Lanes, scale: Lanes, top: float) -> Lanes:
    """Return which odd multiple of a block's factor, given its inverse, is nearest to a scale."""
    return clamp(nearest(0.5 * (inverse * scale - 1.0)), 0.0, top)


def set_scale_pairs(out: Octets, at: int, scales: Rows, d: Lanes, inverse: Lanes) -> None:
    """Set the codes of scales, two in a byte; zeros where the factor `d` is 0."""
    zero = like(d, 0.0)
    for s in range(len(scales) // 2):
        low = scale_code(inverse, row(scales, 2 * s), 15.0)
        high = scale_code(inverse, row(scales, 2 * s + 1), 15.0)
        setbyte(out, at + s, select(d == 0.0, zero, low + 16.0 * high))


def set_signs_and_scales(
    out: Octets, at: int, stride: int, signs: Rows, scales: Rows, d: Lanes, inverse: Lanes
) -> None:
    """Set four bytes for each scale, `stride` apart: four times seven signs, and its code."""
    zero = like(d, 0.0)
    none = d == 0.0
    for s in range(len(scales)):
        code = scale_code(inverse, row(scales, s), 15.0)
        first, second = row(signs, 4 * s), row(signs, 4 * s + 1)
        third, fourth = row(signs, 4 * s + 2), row(signs, 4 * s + 3)
        byte = at + stride * s
        setbyte(out, byte, select(none, zero, first + 128.0 * wrap(second, 1)))
        setbyte(out, byte + 1, select(none, zero, upper(second, 1) + 64.0 * wrap(third, 2)))
        setbyte(out, byte + 2, select(none, zero, upper(third, 2) + 32.0 * wrap(fourth, 3)))
        setbyte(out, byte + 3, select(none, zero, upper(fourth, 3) + 16.0 * code))
