"""How values are encoded as ggml's K-quants with importance weights (``quantize_row_q2_K_impl``).

Each body takes the 256 values of a block and their weights as rows of lanes (see
`weighbridge.kernels.lanes`) and sets the bytes of the block. Source: ``ggml-quants.c``.
"""

from __future__ import annotations

import numpy as np

from weighbridge.kernels.ggml.kblocks import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K
from weighbridge.kernels.ggml.kencoders import keep, scale_codes, set_q2, set_q3, set_q4, set_q5
from weighbridge.kernels.ggml.search import (
    EPSILON,
    Factors,
    affine_steps,
    fit_affine,
    fit_scale,
    largest,
    signed_steps,
    spread_weights,
    sum_of_squares,
)
from weighbridge.kernels.lanes import (
    Lanes,
    Octets,
    Rows,
    anyl,
    clamp,
    either,
    fabs,
    half,
    like,
    nearest,
    row,
    scratch,
    select,
    setrow,
    wrap,
)
from weighbridge.kernels.target import weighted_encoder

_Q2_STEPS = affine_steps(3, -0.9, 0.05, 36)
_Q4_STEPS = affine_steps(15, -0.9, 0.05, 36)
_Q5_STEPS = affine_steps(31, -0.9, 0.05, 36)
_Q3_STEPS = signed_steps(4)
_LEVEL_STEPS = signed_steps(32)
_AROUND = np.float32(0.1) * np.array([-4, -3, -2, -1, 1, 2, 3, 4], np.float32)


def weighted_q2_k(x: Rows, w: Rows, out: Octets) -> None:
    """Fit a scale and a minimum to each 16 values, then a factor to all scales, one to all minima.

    The value's importance is multiplied with the root of its square plus the block's mean square;
    a group's weight is the sum of these.
    """
    fits = scratch(x, 64)
    parts = scratch(x, 32)
    codes = scratch(x, 256)
    d, dmin = _fit_groups(x, w, sum_of_squares(x) / 256.0, fits, parts, 16, 3, 15, _Q2_STEPS)
    for s in range(16):
        both = either(row(parts, s), wrap(16.0 * row(parts, 16 + s), 8))
        setrow(parts, s, both)
    set_q2(x, codes, fits, parts, d, dmin, True, out)


def weighted_q3_k(x: Rows, w: Rows, out: Octets) -> None:
    """Fit a scale to each 16 values, then a factor to all scales.

    Weights are as in `weighted_q2_k`, with twice the mean square.
    """
    scales = scratch(x, 16)
    sums = scratch(x, 16)
    weights = scratch(x, 16)
    codes = scratch(x, 256)
    spread = 2.0 * sum_of_squares(x) / 256.0
    zero = like(spread, 0.0)
    for s in range(16):
        setrow(sums, s, spread_weights(x, w, 16 * s, spread, weights))
        scale, inverse = fit_scale(x, 16 * s, 16, weights, 4, _Q3_STEPS)
        setrow(scales, s, scale)
        for i in range(16 * s, 16 * s + 16):
            code = clamp(nearest(inverse * row(x, i)), -4.0, 3.0) + 4.0
            setrow(codes, i, select(inverse == 0.0, zero, code))
    none = fabs(largest(scales, 0, 16)) < EPSILON
    d, inverse = fit_scale(scales, 0, 16, sums, 32, _LEVEL_STEPS)
    for s in range(16):
        level = clamp(nearest(inverse * row(scales, s)), -32.0, 31.0) + 32.0
        setrow(scales, s, select(none, zero, level))
    set_q3(x, codes, scales, half(d), out)


def weighted_q4_k(x: Rows, w: Rows, out: Octets) -> None:
    """Do as `weighted_q2_k` for each 32 values, with twice the mean square."""
    fits = scratch(x, 32)
    parts = scratch(x, 16)
    codes = scratch(x, 256)
    spread = 2.0 * sum_of_squares(x) / 256.0
    d, dmin = _fit_groups(x, w, spread, fits, parts, 8, 15, 63, _Q4_STEPS)
    set_q4(x, codes, fits, parts, d, dmin, True, out)


def weighted_q5_k(x: Rows, w: Rows, out: Octets) -> None:
    """Do as `weighted_q4_k`; codes have a bit more."""
    fits = scratch(x, 32)
    parts = scratch(x, 16)
    codes = scratch(x, 256)
    spread = 2.0 * sum_of_squares(x) / 256.0
    d, dmin = _fit_groups(x, w, spread, fits, parts, 8, 31, 63, _Q5_STEPS)
    for s in range(16):
        setrow(parts, s, clamp(row(parts, s), 0.0, 63.0))
    set_q5(x, codes, fits, parts, d, dmin, True, out)


def weighted_q6_k(x: Rows, w: Rows, out: Octets) -> None:
    """Do as `q6_k`, each value weighted with its importance alone."""
    scale_codes(x, w, out)


def _fit_groups(
    x: Rows,
    w: Rows,
    spread: Lanes,
    fits: Rows,
    parts: Rows,
    count: int,
    top: int,
    top_part: int,
    steps: Factors,
) -> tuple[Lanes, Lanes]:
    """Set the fits of `count` groups, and codes of their scales and minima; return the factors."""
    size = 256 // count
    weights = scratch(x, size)
    trial = scratch(x, size)
    sums = scratch(x, count)
    for s in range(count):
        setrow(sums, s, spread_weights(x, w, size * s, spread, weights))
        keep(fits, s, count, fit_affine(x, size * s, weights, trial, top, steps, False, True))
    d = fit_positive(fits[:count], sums, parts[:count], top_part)
    dmin = fit_positive(fits[count : 2 * count], sums, parts[count : 2 * count], top_part)
    return half(d), half(dmin)


def fit_positive(x: Rows, weights: Rows, codes: Rows, top: int) -> Lanes:
    """Find ``x = scale * code`` with codes from 0 to `top` (``make_qp_quants``).

    The largest value is put on `top`, and on numbers around it. From the place that leaves the
    least error codes are changed one by one, as in `refine_scales`.

    Args:
        x: the values.
        weights: the weight of each.
        codes: receives the codes: 8 bits of them, as negative values have negative ones.
        top: the largest code.

    Returns:
        The scale; 0 for values that are as good as 0.
    """
    most = like(row(x, 0), 0.0)
    for i in range(len(x)):
        most = select(most > row(x, i), most, row(x, i))
    inverse = top / most
    best = like(most, 0.0)
    for i in range(len(x)):
        code = wrap(nearest(inverse * row(x, i)), 8)
        error = row(x, i) - 1.0 / inverse * code
        best = best + row(weights, i) * error * error
    for step in _AROUND:
        trial = (step + top) / most
        total = like(most, 0.0)
        for i in range(len(x)):
            error = row(x, i) - 1.0 / trial * _code_below(trial * row(x, i), top)
            total = total + row(weights, i) * error * error
        better = total < best
        best = select(better, total, best)
        inverse = select(better, trial, inverse)
    return _refine_positive(x, weights, codes, top, inverse, most < EPSILON)


def _refine_positive(
    x: Rows, weights: Rows, codes: Rows, top: int, inverse: Lanes, none: Lanes
) -> Lanes:
    sum_lx = like(inverse, 0.0)
    sum_l2 = sum_lx
    zero = sum_lx
    for i in range(len(x)):
        code = _code_below(inverse * row(x, i), top)
        setrow(codes, i, wrap(code, 8))
        sum_lx = sum_lx + row(weights, i) * row(x, i) * code
        sum_l2 = sum_l2 + row(weights, i) * code * code
    for _ in range(5):
        changed = zero > zero
        for i in range(len(x)):
            value, weight, code = row(x, i), row(weights, i), row(codes, i)
            lx = sum_lx - weight * value * code
            l2 = sum_l2 - weight * code * code
            new = _code_below(value * l2 / lx, top)
            able = (lx > 0.0) & (l2 > 0.0) & (new != code)
            lx = lx + weight * value * new
            l2 = l2 + weight * new * new
            better = able & (lx * lx * sum_l2 > sum_lx * sum_lx * l2)
            setrow(codes, i, select(better, wrap(new, 8), code))
            sum_lx = select(better, lx, sum_lx)
            sum_l2 = select(better, l2, sum_l2)
            changed = changed | better
        if not anyl(changed):
            break
    for i in range(len(x)):
        setrow(codes, i, select(none, zero, row(codes, i)))
    return select(none, zero, select(sum_l2 > 0.0, sum_lx / sum_l2, zero))


def _code_below(scaled: Lanes, top: float) -> Lanes:
    code = nearest(scaled)
    return select(code < top, code, like(code, top))


encode_weighted_q2_k = weighted_encoder(Q2_K, weighted_q2_k)
encode_weighted_q3_k = weighted_encoder(Q3_K, weighted_q3_k)
encode_weighted_q4_k = weighted_encoder(Q4_K, weighted_q4_k)
encode_weighted_q5_k = weighted_encoder(Q5_K, weighted_q5_k)
encode_weighted_q6_k = weighted_encoder(Q6_K, weighted_q6_k)
