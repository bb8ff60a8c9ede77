"""How values are encoded as ggml's IQ types that have a grid.

Each body takes the values of a block as rows of lanes (see `weighbridge.kernels.lanes`), sets the
bytes of the block, and tells where numbers are too large. Source: ``ggml-quants.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.kernels.ggml.groups import (
    common_factor,
    flip_signs,
    place_of,
    set_even_magnitudes,
    set_magnitudes,
    set_scale_pairs,
    set_signs_and_scales,
    set_weights,
)
from weighbridge.kernels.ggml.iblocks import IQ2_S, IQ3_S, IQ3_XXS
from weighbridge.kernels.ggml.points import EIGHT_LEVELS, THREE_LEVELS, fit_points, grid_steps
from weighbridge.kernels.ggml.search import sum_of_squares
from weighbridge.kernels.lanes import (
    Mask,
    Octets,
    Rows,
    anyl,
    like,
    row,
    scratch,
    select,
    setbyte,
    sethalf,
    setrow,
    upper,
    wrap,
)
from weighbridge.kernels.target import encoder, offsets, weighted_encoder

if TYPE_CHECKING:
    from weighbridge.kernels.ggml.search import Factors

_3XXS_D, _3XXS_QS, _3XXS_SIGNS = offsets(IQ3_XXS)
_3S_D, _3S_QS, _3S_QH, _3S_SIGNS, _3S_SCALES = offsets(IQ3_S)
_2S_D, _2S_QS, _2S_SIGNS, _2S_QH, _2S_SCALES = offsets(IQ2_S)

_IQ3_XXS_STEPS = grid_steps(EIGHT_LEVELS, 0.2, 15)
_IQ3_S_STEPS = grid_steps(EIGHT_LEVELS, 0.2, 9)
_IQ2_S_STEPS = grid_steps(THREE_LEVELS, 0.1, 9)


def iq3_xxs(x: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Fit a scale to each 32 magnitudes, whose codes are points of a grid, four each.

    The number of minus signs of each 8 values is made even, by changing the sign that matters the
    least. Scales become codes of 4 bits, of odd multiples of the block's factor.
    """
    return _iq3_xxs(x, None, out, places, neighbours)


def weighted_iq3_xxs(x: Rows, w: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Do as `iq3_xxs`, with the importance of values."""
    return _iq3_xxs(x, w, out, places, neighbours)


def _iq3_xxs(x: Rows, w: Rows | None, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    values = scratch(x, 32)
    weights = scratch(x, 32)
    codes = scratch(x, 32)
    signs = scratch(x, 32)
    scales = scratch(x, 8)
    zero = like(row(x, 0), 0.0)
    common = zero if w is None else 2.0 * sum_of_squares(x) / 256.0
    failed = zero > zero
    for s in range(8):
        marks = signs[4 * s : 4 * s + 4]
        set_weights(x, w, 32 * s, weights, common)
        most = set_even_magnitudes(x, 32 * s, values, weights, marks)
        alive = most >= 1e-8
        scale, flip, lost = fit_points(
            values,
            weights,
            codes,
            EIGHT_LEVELS,
            most,
            most / 15.0,
            alive,
            _IQ3_XXS_STEPS,
            False,
            False,
            places,
            neighbours,
        )
        failed = failed | lost
        setrow(scales, s, scale)
        for k in range(8):
            setbyte(out, _3XXS_QS + 8 * s + k, place_of(codes, k, EIGHT_LEVELS, places))
        flip_signs(marks, flip, alive, 127.0)
    d, inverse = common_factor(scales, 31.0)
    sethalf(out, _3XXS_D, d * 1.0125)
    set_signs_and_scales(out, _3XXS_SIGNS, 4, signs, scales, d, inverse)
    return failed


def iq3_s(x: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Fit a scale to each 32 magnitudes, whose codes are points of a grid, four each.

    Scales become codes of 4 bits, of odd multiples of the block's factor. As in ggml, the points
    and signs of what follows a group of zeros are stored in its place.
    """
    return _iq3_s(x, None, out, places, neighbours)


def weighted_iq3_s(x: Rows, w: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Do as `iq3_s`, with the importance of values."""
    return _iq3_s(x, w, out, places, neighbours)


def _iq3_s(x: Rows, w: Rows | None, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    values = scratch(x, 32)
    weights = scratch(x, 32)
    codes = scratch(x, 32)
    points = scratch(x, 64)
    signs = scratch(x, 32)
    scales = scratch(x, 8)
    largest = scratch(x, 8)
    zero = like(row(x, 0), 0.0)
    common = zero if w is None else 2.0 * sum_of_squares(x) / 256.0
    failed = zero > zero
    for s in range(8):
        marks = signs[4 * s : 4 * s + 4]
        set_weights(x, w, 32 * s, weights, common)
        most = set_magnitudes(x, 32 * s, values, marks)
        setrow(largest, s, most)
        alive = most > 0.0
        scale, flip, lost = fit_points(
            values,
            weights,
            codes,
            EIGHT_LEVELS,
            most,
            most / 15.0,
            alive,
            _IQ3_S_STEPS,
            True,
            False,
            places,
            neighbours,
        )
        failed = failed | lost
        setrow(scales, s, scale)
        high = zero
        for k in range(8):
            place = place_of(codes, k, EIGHT_LEVELS, places)
            setrow(points, 8 * s + k, wrap(place, 8))
            high = high + upper(place, 8) * (1 << k)
        setbyte(out, _3S_QH + s, high)
        flip_signs(marks, flip, alive, 255.0)
    _close_gaps(points, largest, 8)
    _close_gaps(signs, largest, 4)
    for i in range(64):
        setbyte(out, _3S_QS + i, row(points, i))
    for i in range(32):
        setbyte(out, _3S_SIGNS + i, row(signs, i))
    d, inverse = common_factor(scales, 31.0)
    sethalf(out, _3S_D, d * 1.033)
    set_scale_pairs(out, _3S_SCALES, scales, d, inverse)
    return failed


def iq2_s(x: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Fit a scale to each 16 magnitudes, whose codes are points of a grid, eight each.

    A value's weight is its square plus half of the mean square of the block. Scales become codes
    of 4 bits, of odd multiples of the block's factor.
    """
    return _iq2_s(x, None, out, places, neighbours)


def weighted_iq2_s(x: Rows, w: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Do as `iq2_s`, with the importance of values."""
    return _iq2_s(x, w, out, places, neighbours)


def _iq2_s(x: Rows, w: Rows | None, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    values = scratch(x, 16)
    weights = scratch(x, 16)
    codes = scratch(x, 16)
    signs = scratch(x, 2)
    scales = scratch(x, 16)
    zero = like(row(x, 0), 0.0)
    spread = 2.0 * sum_of_squares(x) / 256.0
    common = 0.25 * spread if w is None else spread
    failed = zero > zero
    high = zero
    for s in range(16):
        set_weights(x, w, 16 * s, weights, common)
        most = set_magnitudes(x, 16 * s, values, signs)
        alive = most >= 1e-8
        scale, flip, lost = fit_points(
            values,
            weights,
            codes,
            THREE_LEVELS,
            most,
            most / 5.0,
            alive,
            _IQ2_S_STEPS,
            False,
            False,
            places,
            neighbours,
        )
        failed = failed | lost
        setrow(scales, s, scale)
        flip_signs(signs, flip, alive, 255.0)
        high = high if s % 2 else zero
        for k in range(2):
            place = place_of(codes, k, THREE_LEVELS, places)
            setbyte(out, _2S_QS + 2 * s + k, wrap(place, 8))
            setbyte(out, _2S_SIGNS + 2 * s + k, row(signs, k))
            high = high + upper(place, 8) * (1 << (4 * (s % 2) + 2 * k))
        setbyte(out, _2S_QH + s // 2, high)
    d, inverse = common_factor(scales, 31.0)
    sethalf(out, _2S_D, d * 0.9875)
    set_scale_pairs(out, _2S_SCALES, scales, d, inverse)
    return failed


def _close_gaps(bytes_: Rows, most: Rows, size: int) -> None:
    """Move up what follows a group whose largest value is 0; zeros come in at the end."""
    zero = like(row(most, 0), 0.0)
    for k in range(8):
        s = 7 - k
        dead = row(most, s) == 0.0
        if anyl(dead):
            for i in range(s * size, 8 * size):
                behind = row(bytes_, i + size) if i + size < 8 * size else zero
                setrow(bytes_, i, select(dead, behind, row(bytes_, i)))


encode_iq3_xxs = encoder(IQ3_XXS, iq3_xxs, "iq3_xxs")
encode_iq3_s = encoder(IQ3_S, iq3_s, "iq3_s")
encode_iq2_s = encoder(IQ2_S, iq2_s, "iq2_s")
encode_weighted_iq3_xxs = weighted_encoder(IQ3_XXS, weighted_iq3_xxs, "iq3_xxs")
encode_weighted_iq3_s = weighted_encoder(IQ3_S, weighted_iq3_s, "iq3_s")
encode_weighted_iq2_s = weighted_encoder(IQ2_S, weighted_iq2_s, "iq2_s")
