"""How values are encoded as IQ2_XXS and IQ2_XS, which ggml makes with importance weights only.

Bodies as in `weighbridge.kernels.ggml.iencoders`. Source: ``ggml-quants.c``,
``quantize_row_iq2_xxs_impl`` and ``quantize_row_iq2_xs_impl``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.kernels.ggml.groups import (
    common_factor,
    flip_signs,
    place_of,
    set_even_magnitudes,
    set_scale_pairs,
    set_signs_and_scales,
    set_weights,
)
from weighbridge.kernels.ggml.iblocks import IQ2_XS, IQ2_XXS
from weighbridge.kernels.ggml.kweighted import fit_positive
from weighbridge.kernels.ggml.points import THREE_LEVELS, fit_points, grid_steps
from weighbridge.kernels.ggml.search import EPSILON, sum_of_squares
from weighbridge.kernels.lanes import (
    Mask,
    Octets,
    Rows,
    like,
    row,
    scratch,
    setbyte,
    sethalf,
    setrow,
    upper,
    wrap,
)
from weighbridge.kernels.target import offsets, weighted_encoder

if TYPE_CHECKING:
    from weighbridge.kernels.ggml.search import Factors

_XXS_D, _XXS_QS = offsets(IQ2_XXS)
_XS_D, _XS_QS, _XS_SCALES = offsets(IQ2_XS)

_XXS_STEPS = grid_steps(THREE_LEVELS, 0.1, 6)
_XS_STEPS = grid_steps(THREE_LEVELS, 0.1, 9)


def weighted_iq2_xxs(x: Rows, w: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Fit a scale to each 32 magnitudes, whose codes are points of a grid, eight each.

    Three times the scale that is best for codes up to 4 stands for the largest magnitude. The
    number of minus signs of each 8 values is made even, by changing the sign that matters the
    least. Scales become codes of 4 bits, of odd multiples of the block's factor.
    """
    values = scratch(x, 32)
    weights = scratch(x, 32)
    codes = scratch(x, 32)
    signs = scratch(x, 32)
    scales = scratch(x, 8)
    common = sum_of_squares(x) / 256.0
    zero = like(common, 0.0)
    failed = zero > zero
    for s in range(8):
        marks = signs[4 * s : 4 * s + 4]
        set_weights(x, w, 32 * s, weights, common)
        most = set_even_magnitudes(x, 32 * s, values, weights, marks)
        first = fit_positive(values, weights, codes, 4)
        alive = (most >= EPSILON) & ((first > 0.0) | (first != first))
        scale, flip, lost = fit_points(
            values,
            weights,
            codes,
            THREE_LEVELS,
            first * 3.0,
            first,
            alive,
            _XXS_STEPS,
            True,
            True,
            places,
            neighbours,
        )
        failed = failed | lost
        setrow(scales, s, scale)
        for k in range(4):
            setbyte(out, _XXS_QS + 8 * s + k, place_of(codes, k, THREE_LEVELS, places))
        flip_signs(marks, flip, alive, 127.0)
    d, inverse = common_factor(scales, 31.0)
    sethalf(out, _XXS_D, d)
    set_signs_and_scales(out, _XXS_QS + 4, 8, signs, scales, d, inverse)
    return failed


def weighted_iq2_xs(x: Rows, w: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Fit a scale to each 16 magnitudes, whose codes are points of a grid, eight each.

    Signs and scales are as in `weighted_iq2_xxs`.
    """
    values = scratch(x, 16)
    weights = scratch(x, 16)
    codes = scratch(x, 16)
    signs = scratch(x, 2)
    scales = scratch(x, 16)
    common = sum_of_squares(x) / 256.0
    zero = like(common, 0.0)
    failed = zero > zero
    for s in range(16):
        set_weights(x, w, 16 * s, weights, common)
        most = set_even_magnitudes(x, 16 * s, values, weights, signs)
        alive = most >= EPSILON
        scale, flip, lost = fit_points(
            values,
            weights,
            codes,
            THREE_LEVELS,
            most,
            most / 5.0,
            alive,
            _XS_STEPS,
            False,
            False,
            places,
            neighbours,
        )
        failed = failed | lost
        setrow(scales, s, scale)
        flip_signs(signs, flip, alive, 127.0)
        for k in range(2):
            place = place_of(codes, k, THREE_LEVELS, places)
            byte = _XS_QS + 4 * s + 2 * k
            setbyte(out, byte, wrap(place, 8))
            setbyte(out, byte + 1, upper(place, 8) + 2.0 * row(signs, k))
    d, inverse = common_factor(scales, 31.0)
    sethalf(out, _XS_D, d)
    set_scale_pairs(out, _XS_SCALES, scales, d, inverse)
    return failed


encode_weighted_iq2_xxs = weighted_encoder(IQ2_XXS, weighted_iq2_xxs, "iq2_xxs")
encode_weighted_iq2_xs = weighted_encoder(IQ2_XS, weighted_iq2_xs, "iq2_xs")
