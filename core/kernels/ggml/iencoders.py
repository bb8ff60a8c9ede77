"""How values are encoded as ggml's IQ types.

Each body takes the values of a block as rows of lanes (see `weighbridge.kernels.lanes`) and sets
the bytes of the block. Source: ``ggml-quants.c``.
"""

from __future__ import annotations

import numpy as np

from weighbridge.kernels.ggml.iblocks import IQ2_S, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS, LEVELS
from weighbridge.kernels.ggml.search import Factors, fit_levels, fit_points, grid_steps
from weighbridge.kernels.lanes import (
    Lanes,
    Octets,
    Rows,
    anyl,
    clamp,
    fabs,
    half,
    like,
    lookup,
    nearest,
    row,
    scratch,
    select,
    setbyte,
    sethalf,
    setrow,
    sqrt,
    staircase,
    upper,
    wrap,
)
from weighbridge.kernels.target import encoder, offsets

_NL_D, _NL_QS = offsets(IQ4_NL)
_XS_D, _XS_HIGH, _XS_LOW, _XS_QS = offsets(IQ4_XS)

_3XXS_D, _3XXS_QS, _3XXS_SIGNS = offsets(IQ3_XXS)
_3S_D, _3S_QS, _3S_QH, _3S_SIGNS, _3S_SCALES = offsets(IQ3_S)
_2S_D, _2S_QS, _2S_SIGNS, _2S_QH, _2S_SCALES = offsets(IQ2_S)

_IQ3_XXS_STEPS = grid_steps(7, 0.2, 15)
_IQ3_S_STEPS = grid_steps(7, 0.2, 9)
_IQ2_S_STEPS = grid_steps(2, 0.1, 9)

_EDGES = (LEVELS[:-1] + LEVELS[1:]) / np.float32(2)
_CODES = np.arange(16, dtype=np.float32)
_STEPS = np.arange(-7, 8, dtype=np.float32) + LEVELS[0]


def iq4_nl(x: Rows, out: Octets) -> None:
    """Fit a scale to 32 values, and take the level nearest to each."""
    scale = fit_levels(x, 0, 32, _EDGES, LEVELS, _STEPS)
    sethalf(out, _NL_D, half(scale))
    _set_levels(x, 0, _inverse(scale), out, _NL_QS)


def iq4_xs(x: Rows, out: Octets) -> None:
    """Fit a scale to each 32 values.

    The scales become codes from -32 to 31, -32 for the one of largest magnitude, of the block's
    scale before it is rounded to float16.
    """
    scales = scratch(x, 8)
    extreme = like(row(x, 0), 0.0)
    for s in range(8):
        scale = fit_levels(x, 32 * s, 32, _EDGES, LEVELS, _STEPS)
        setrow(scales, s, scale)
        extreme = select(fabs(scale) > fabs(extreme), scale, extreme)
    d = -extreme / 32.0
    sethalf(out, _XS_D, d)
    inverse = _inverse(d)
    for s in range(8):
        code = clamp(nearest(inverse * row(scales, s)), -32.0, 31.0)
        setrow(scales, s, code + 32.0)
        _set_levels(x, 32 * s, _inverse(d * code), out, _XS_QS + 16 * s)
    for s in range(4):
        low, high = row(scales, 2 * s), row(scales, 2 * s + 1)
        setbyte(out, _XS_LOW + s, wrap(low, 4) + 16.0 * wrap(high, 4))
    for s in range(2):
        high = like(d, 0.0)
        for i in range(4):
            high = high + upper(row(scales, 4 * s + i), 4) * (1 << (2 * i))
        setbyte(out, _XS_HIGH + s, high)


def _inverse(scale: Lanes) -> Lanes:
    zero = like(scale, 0.0)
    return select(scale == 0.0, zero, 1.0 / scale)


def _set_levels(x: Rows, at: int, inverse: Lanes, out: Octets, byte: int) -> None:
    for i in range(16):
        low = staircase(inverse * row(x, at + i), _EDGES, _CODES)
        high = staircase(inverse * row(x, at + 16 + i), _EDGES, _CODES)
        setbyte(out, byte + i, low + 16.0 * high)


def iq3_xxs(x: Rows, out: Octets, grid: Factors, neighbours: Factors) -> Lanes:
    """Fit a scale to each 32 magnitudes, whose codes are points of a grid, four each.

    The number of minus signs of each 8 values is made even, by changing the sign that matters the
    least. Scales become codes of 4 bits, of odd multiples of the block's factor.
    """
    group = scratch(x, 96)
    signs = scratch(x, 4)
    codes = scratch(x, 32)
    trial = scratch(x, 32)
    scales = scratch(x, 8)
    marks = scratch(x, 32)
    zero = like(row(x, 0), 0.0)
    failed = zero
    for s in range(8):
        for i in range(32):
            value = row(x, 32 * s + i)
            setrow(group, 32 + i, value * value)
            setrow(group, 64 + i, sqrt(value * value))
        most = _even_magnitudes(x, 32 * s, group[:32], group[32:64], signs)
        alive = most >= 1e-8
        scale, lost = fit_points(
            group[:32],
            group[32:64],
            group[64:],
            codes,
            trial,
            4,
            8.0,
            7,
            _IQ3_XXS_STEPS,
            False,
            grid,
            neighbours,
        )
        scale = select(alive, scale, zero)
        flip = scale < 0.0
        scale = fabs(scale)
        failed = select((alive & (lost > 0.0)) | (scale != scale), zero + 1.0, failed)
        setrow(scales, s, scale)
        for k in range(8):
            setbyte(
                out, _3XXS_QS + 8 * s + k, select(alive, _place(codes, 4 * k, 4, 8.0, grid), zero)
            )
        for k in range(4):
            mark = select(flip, 127.0 - row(signs, k), row(signs, k))
            setrow(marks, 4 * s + k, select(alive, mark, zero))
    d, inverse = _grid_factor(scales, 8, 31.0)
    none = d == 0.0
    sethalf(out, _3XXS_D, d * 1.0125)
    for s in range(8):
        code = _scale_code(inverse, row(scales, s), 15.0)
        first, second = row(marks, 4 * s), row(marks, 4 * s + 1)
        third, fourth = row(marks, 4 * s + 2), row(marks, 4 * s + 3)
        at = _3XXS_SIGNS + 4 * s
        setbyte(out, at, select(none, zero, first + 128.0 * wrap(second, 1)))
        setbyte(out, at + 1, select(none, zero, upper(second, 1) + 64.0 * wrap(third, 2)))
        setbyte(out, at + 2, select(none, zero, upper(third, 2) + 32.0 * wrap(fourth, 3)))
        setbyte(out, at + 3, select(none, zero, upper(fourth, 3) + 16.0 * code))
    return failed


def iq3_s(x: Rows, out: Octets, grid: Factors, neighbours: Factors) -> Lanes:
    """Fit a scale to each 32 magnitudes, whose codes are points of a grid, four each.

    Scales become codes of 4 bits, of odd multiples of the block's factor. As in ggml, the points
    and signs of what follows a group of zeros are stored in its place.
    """
    group = scratch(x, 96)
    codes = scratch(x, 32)
    trial = scratch(x, 32)
    scales = scratch(x, 8)
    bytes_ = scratch(x, 96)
    alive = scratch(x, 8)
    zero = like(row(x, 0), 0.0)
    failed = zero
    for s in range(8):
        for i in range(32):
            value = row(x, 32 * s + i)
            setrow(group, 32 + i, value * value)
            setrow(group, 64 + i, sqrt(value * value))
        most = _magnitudes(x, 32 * s, group[:32], bytes_[64 + 4 * s : 68 + 4 * s])
        living = most > 0.0
        scale, lost = fit_points(
            group[:32],
            group[32:64],
            group[64:],
            codes,
            trial,
            4,
            8.0,
            7,
            _IQ3_S_STEPS,
            True,
            grid,
            neighbours,
        )
        scale = select(living, scale, zero)
        flip = scale < 0.0
        scale = fabs(scale)
        failed = select((living & (lost > 0.0)) | (scale != scale), zero + 1.0, failed)
        setrow(scales, s, scale)
        setrow(alive, s, select(living, zero + 1.0, zero))
        high = zero
        for k in range(8):
            place = _place(codes, 4 * k, 4, 8.0, grid)
            setrow(bytes_, 8 * s + k, wrap(place, 8))
            high = high + upper(place, 8) * (1 << k)
        setbyte(out, _3S_QH + s, select(living, high, zero))
        for k in range(64 + 4 * s, 68 + 4 * s):
            setrow(bytes_, k, select(flip, 255.0 - row(bytes_, k), row(bytes_, k)))
    _close_gaps(bytes_[:64], alive, 8)
    _close_gaps(bytes_[64:], alive, 4)
    for i in range(64):
        setbyte(out, _3S_QS + i, row(bytes_, i))
    for i in range(32):
        setbyte(out, _3S_SIGNS + i, row(bytes_, 64 + i))
    d, inverse = _grid_factor(scales, 8, 31.0)
    sethalf(out, _3S_D, d * 1.033)
    _set_scale_pairs(out, _3S_SCALES, scales, d, inverse)
    return failed


def iq2_s(x: Rows, out: Octets, grid: Factors, neighbours: Factors) -> Lanes:
    """Fit a scale to each 16 magnitudes, whose codes are points of a grid, eight each.

    A value's weight is its square plus half of the mean square of the block. Scales become codes
    of 4 bits, of odd multiples of the block's factor.
    """
    group = scratch(x, 48)
    signs = scratch(x, 2)
    codes = scratch(x, 16)
    trial = scratch(x, 16)
    scales = scratch(x, 16)
    zero = like(row(x, 0), 0.0)
    failed = zero
    total = zero
    for i in range(256):
        total = total + row(x, i) * row(x, i)
    common = 0.25 * (2.0 * total / 256.0)
    high = zero
    for s in range(16):
        for i in range(16):
            value = row(x, 16 * s + i)
            weight = common + value * value
            setrow(group, 16 + i, weight)
            setrow(group, 32 + i, sqrt(weight))
        most = _magnitudes(x, 16 * s, group[:16], signs)
        alive = most >= 1e-8
        scale, lost = fit_points(
            group[:16],
            group[16:32],
            group[32:],
            codes,
            trial,
            8,
            4.0,
            2,
            _IQ2_S_STEPS,
            False,
            grid,
            neighbours,
        )
        scale = select(alive, scale, zero)
        flip = scale < 0.0
        scale = fabs(scale)
        failed = select((alive & (lost > 0.0)) | (scale != scale), zero + 1.0, failed)
        setrow(scales, s, scale)
        for k in range(2):
            place = select(alive, _place(codes, 8 * k, 8, 4.0, grid), zero)
            setbyte(out, _2S_QS + 2 * s + k, wrap(place, 8))
            if s % 2 == 0 and k == 0:
                high = zero
            high = high + upper(place, 8) * (1 << (4 * (s % 2) + 2 * k))
            mark = select(flip, 255.0 - row(signs, k), row(signs, k))
            setbyte(out, _2S_SIGNS + 2 * s + k, select(alive, mark, zero))
        setbyte(out, _2S_QH + s // 2, high)
    d, inverse = _grid_factor(scales, 16, 31.0)
    sethalf(out, _2S_D, d * 0.9875)
    _set_scale_pairs(out, _2S_SCALES, scales, d, inverse)
    return failed


def _magnitudes(x: Rows, at: int, values: Rows, signs: Rows) -> Lanes:
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


def _even_magnitudes(x: Rows, at: int, values: Rows, weights: Rows, signs: Rows) -> Lanes:
    """Set `values` and seven bits of `signs` so that each eight have an even number of minuses.

    The value of least weight times square gets the other sign, and so may be negative.
    """
    _magnitudes(x, at, values, signs)
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


def _place(codes: Rows, at: int, per: int, base: float, grid: Factors) -> Lanes:
    """Return which point of the grid some codes are; 0 where they are none."""
    number = like(row(codes, at), 0.0)
    place = 1.0
    for i in range(at, at + per):
        number = number + row(codes, i) * place
        place = place * base
    found = lookup(grid, number)
    return select(found < 0.0, number * 0.0, found)


def _grid_factor(scales: Rows, count: int, steps: float) -> tuple[Lanes, Lanes]:
    """Return a `steps`-th of the largest scale, and its inverse."""
    most = like(row(scales, 0), 0.0)
    for s in range(count):
        most = select(most > row(scales, s), most, row(scales, s))
    d = most / steps
    return d, 1.0 / d


def _scale_code(inverse: Lanes, scale: Lanes, top: float) -> Lanes:
    return clamp(nearest(0.5 * (inverse * scale - 1.0)), 0.0, top)


def _set_scale_pairs(out: Octets, at: int, scales: Rows, d: Lanes, inverse: Lanes) -> None:
    zero = like(d, 0.0)
    for s in range(len(scales) // 2):
        low = _scale_code(inverse, row(scales, 2 * s), 15.0)
        high = _scale_code(inverse, row(scales, 2 * s + 1), 15.0)
        setbyte(out, at + s, select(d == 0.0, zero, low + 16.0 * high))


def _close_gaps(bytes_: Rows, alive: Rows, size: int) -> None:
    """Move up what follows a group that is not `alive`; zeros come in at the end."""
    zero = like(row(alive, 0), 0.0)
    for k in range(8):
        s = 7 - k
        dead = row(alive, s) == 0.0
        if anyl(dead):
            for i in range(s * size, 8 * size):
                behind = row(bytes_, i + size) if i + size < 8 * size else zero
                setrow(bytes_, i, select(dead, behind, row(bytes_, i)))


encode_iq4_nl = encoder(IQ4_NL, iq4_nl)
encode_iq4_xs = encoder(IQ4_XS, iq4_xs)
encode_iq3_xxs = encoder(IQ3_XXS, iq3_xxs, "iq3_xxs")
encode_iq3_s = encoder(IQ3_S, iq3_s, "iq3_s")
encode_iq2_s = encoder(IQ2_S, iq2_s, "iq2_s")
