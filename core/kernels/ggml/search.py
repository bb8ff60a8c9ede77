"""How ggml looks for the scale of a group of values: the searches that its encoders share.

Each is ggml's own sequence of float32 operations, written over the words of
`weighbridge.kernels.lanes`; see there for what they work on. Source: ``ggml-quants.c``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from weighbridge.kernels.lanes import (
    Lanes,
    Rows,
    anyl,
    clamp,
    fabs,
    like,
    nearest,
    row,
    scratch,
    select,
    setrow,
    sqrt,
    staircase,
)

Factors = NDArray[np.float32]

Places = NDArray[np.int64]

EPSILON = 1e-15
"""A group whose largest magnitude is less counts as zeros (``GROUP_MAX_EPS``)."""

_LARGEST = float(np.finfo(np.float32).max)


def sum_of_squares(x: Rows) -> Lanes:
    """Return the sum of the squares of all values, in their order."""
    total = like(row(x, 0), 0.0)
    for i in range(len(x)):
        total = total + row(x, i) * row(x, i)
    return total


def spread_weights(x: Rows, w: Rows, at: int, spread: Lanes, weights: Rows) -> Lanes:
    """Set the weights of a group, the rows from `at` on; return their sum.

    A weight is the value's importance, in `w`, times the root of its square plus `spread`.
    """
    total = like(spread, 0.0)
    for i in range(len(weights)):
        value = row(x, at + i)
        weight = row(w, at + i) * sqrt(spread + value * value)
        setrow(weights, i, weight)
        total = total + weight
    return total


def affine_steps(top: int, first: float, delta: float, count: int) -> Factors:
    """Return what `fit_affine` tries in the place of `top`: ``first + delta * i + top``."""
    i = np.arange(count + 1, dtype=np.float32)
    return np.float32(first) + np.float32(delta) * i + np.float32(top)


def signed_steps(top: int) -> Factors:
    """Return what `fit_scale` tries in the place of ``-top``: ``-(top + 0.1 * i)``, but i = 0."""
    i = np.array([i for i in range(-9, 10) if i], np.float32)
    return -(np.float32(top) + np.float32(0.1) * i)


def fit_affine(
    x: Rows,
    at: int,
    weights: Rows,
    trial: Rows,
    top: int,
    steps: Factors,
    absolute: bool,
    bounded: bool,
) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """Find ``x = scale * code - minimum`` with codes from 0 to `top`.

    That is ``make_qkx2_quants``, and where `bounded` is set ``make_qkx3_quants``. From codes for
    each of the `steps` the scale and the minimum that fit them best in the sense of least squares
    are computed; of these pairs the one with the smallest weighted error is taken. Errors are
    squares, or magnitudes where `absolute` is set.

    Args:
        x: the values; the group is the rows from `at` on.
        at: the first row.
        weights: the weight of each value of the group.
        trial: as many rows, written over.
        top: the largest code.
        steps: see `affine_steps`.
        absolute: how errors count.
        bounded: how codes are made: see `affine_code`.

    Returns:
        The scale; the minimum; and what gives the codes, by `affine_code`: their inverse, 0 where
        all are 0, and their low end.
    """
    count = len(weights)
    value = row(x, at)
    weight = row(weights, 0)
    low = value
    high = value
    sum_w = weight
    sum_x = weight * value
    for i in range(1, count):
        value = row(x, at + i)
        weight = row(weights, i)
        low = select(value < low, value, low)
        high = select(value > high, value, high)
        sum_w = sum_w + weight
        sum_x = sum_x + weight * value
    zero = like(low, 0.0)
    low = select(low > 0.0, zero, low)
    constant = high == low
    first_low = low
    inverse = top / (high - low)
    scale = 1.0 / inverse
    best = zero
    for i in range(count):
        value = row(x, at + i)
        code = clamp(nearest(inverse * (value - low)), 0.0, top)
        error = scale * code + low - value
        error = fabs(error) if absolute else error * error
        best = best + row(weights, i) * error
    # With an infinite inverse no code was in nearest's range: all are 0.
    best_inverse = select(inverse > _LARGEST, zero, inverse)
    best_low = low
    for step in steps:
        inverse = step / (high - low)
        sum_l = zero
        sum_l2 = zero
        sum_xl = zero
        for i in range(count):
            value = row(x, at + i)
            code = affine_code(inverse * (value - low), top, bounded)
            setrow(trial, i, code)
            weighted = row(weights, i) * code
            sum_l = sum_l + weighted
            sum_l2 = sum_l2 + weighted * code
            sum_xl = sum_xl + weighted * value
        determinant = sum_w * sum_l2 - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        positive = new_low > 0.0
        new_scale = select(positive, sum_xl / sum_l2, new_scale)
        new_low = select(positive, zero, new_low)
        total = zero
        for i in range(count):
            error = new_scale * row(trial, i) + new_low - row(x, at + i)
            error = fabs(error) if absolute else error * error
            total = total + row(weights, i) * error
        better = (determinant > 0.0) & (total < best)
        best_inverse = select(better, inverse, best_inverse)
        best_low = select(better, low, best_low)
        best = select(better, total, best)
        scale = select(better, new_scale, scale)
        low = select(better, new_low, low)
    scale = select(constant, zero, scale)
    low = select(constant, first_low, low)
    best_inverse = select(constant, zero, best_inverse)
    return scale, -low, best_inverse, best_low


def affine_code(scaled: Lanes, top: float, bounded: bool) -> Lanes:
    """Return the nearest codes from 0 to `top`.

    Where `bounded` is set, what is out of that range is brought into it first, else after it was
    rounded, when `nearest` has changed what is far out.
    """
    if bounded:
        return nearest(clamp(scaled, 0.0, top))
    return clamp(nearest(scaled), 0.0, top)


def largest(x: Rows, at: int, count: int) -> Lanes:
    """Return the value of largest magnitude of `count` rows from `at` on, the first of equals."""
    value = row(x, at)
    most = like(value, 0.0)
    signed = most
    for i in range(count):
        value = row(x, at + i)
        magnitude = fabs(value)
        more = magnitude > most
        most = select(more, magnitude, most)
        signed = select(more, value, signed)
    return signed


def fit_scale(
    x: Rows, at: int, count: int, weights: Rows | None, top: int, steps: Factors
) -> tuple[Lanes, Lanes]:
    """Find ``x = scale * code``, codes from ``-top`` to ``top - 1`` (``make_qx_quants``).

    For each of the `steps` the best scale for the codes that it gives is computed; the one that
    leaves the least error is taken.

    Args:
        x: the values; the group is `count` rows from `at` on.
        at: the first row.
        count: how many rows.
        weights: the weight of each value of the group; None for its square.
        top: see above.
        steps: see `signed_steps`.

    Returns:
        The scale, and what gives the codes, ``nearest(inverse * x)``; zeros for a group of zeros.
    """
    extreme = largest(x, at, count)
    zero = like(extreme, 0.0)
    best_inverse = -top / extreme
    sum_lx, sum_l2 = _scale_sums(x, at, count, weights, best_inverse, top)
    scale = select(sum_l2 == 0.0, zero, sum_lx / sum_l2)
    best = scale * sum_lx
    for step in steps:
        inverse = step / extreme
        sum_lx, sum_l2 = _scale_sums(x, at, count, weights, inverse, top)
        better = (sum_l2 > 0.0) & (sum_lx * sum_lx > best * sum_l2)
        scale = select(better, sum_lx / sum_l2, scale)
        best = select(better, scale * sum_lx, best)
        best_inverse = select(better, inverse, best_inverse)
    nothing = fabs(extreme) < EPSILON
    return select(nothing, zero, scale), select(nothing, zero, best_inverse)


def _scale_sums(
    x: Rows, at: int, count: int, weights: Rows | None, inverse: Lanes, top: int
) -> tuple[Lanes, Lanes]:
    sum_lx = like(inverse, 0.0)
    sum_l2 = sum_lx
    for i in range(count):
        value = row(x, at + i)
        weight = value * value if weights is None else row(weights, i)
        code = clamp(nearest(inverse * value), -top, top - 1)
        sum_lx = sum_lx + weight * value * code
        sum_l2 = sum_l2 + weight * code * code
    return sum_lx, sum_l2


def refine_scales(x: Rows, codes: Rows, scales: Rows, size: int, top: int) -> None:
    """Find ``x = scale * code`` for all groups, changing codes one by one (``make_q3_quants``).

    A code is changed where the best scale for its group then leaves less error, each value
    weighted with its square. That is done up to five times for all codes of a group, until none
    changes, and for all groups side by side: in one of them each step waits for the one before.

    Args:
        x: the values, one group of `size` rows after the other.
        codes: receives ``code + top``, from 0 to ``2 * top - 1``; 0 for a group of zeros.
        scales: receives a row for each group.
        size: rows of a group.
        top: codes go from ``-top`` to ``top - 1``.
    """
    groups = len(scales)
    sums = scratch(x, 2 * groups)
    extremes = scratch(x, groups)
    moved = scratch(x, groups)
    active = np.empty(groups, np.int64)
    for g in range(groups):
        active[g] = g
        extreme = largest(x, g * size, size)
        setrow(extremes, g, extreme)
        sum_lx = like(extreme, 0.0)
        sum_l2 = sum_lx
        inverse = -top / extreme
        for i in range(g * size, g * size + size):
            value = row(x, i)
            weight = value * value
            code = clamp(nearest(inverse * value), -top, top - 1)
            setrow(codes, i, code)
            sum_lx = sum_lx + weight * value * code
            sum_l2 = sum_l2 + weight * code * code
        setrow(sums, 2 * g, sum_lx)
        setrow(sums, 2 * g + 1, sum_l2)
    left = groups
    for _ in range(5):
        _refine_once(x, codes, sums, moved, active[:left], size, top)
        left = _keep_moved(active, left, moved)
    for g in range(groups):
        sum_lx, sum_l2 = row(sums, 2 * g), row(sums, 2 * g + 1)
        zero = like(sum_lx, 0.0)
        nothing = fabs(row(extremes, g)) < EPSILON
        scale = select(sum_l2 > 0.0, sum_lx / sum_l2, zero)
        setrow(scales, g, select(nothing, zero, scale))
        for i in range(g * size, g * size + size):
            setrow(codes, i, select(nothing, zero, row(codes, i) + top))


def _refine_once(
    x: Rows,
    codes: Rows,
    sums: Rows,
    moved: Rows,
    active: Places,
    size: int,
    top: int,
) -> None:
    """Try to change each code of the active groups, the first of all of them first.

    `moved` receives a row for each group: 1 where a code was changed.
    """
    zero = like(row(sums, 0), 0.0)
    one = like(zero, 1.0)
    for g in active:
        setrow(moved, g, zero)
    for i in range(size):
        for g in active:
            at = g * size + i
            code = row(codes, at)
            weight = row(x, at) * row(x, at)
            product = weight * row(x, at)
            sum_lx, sum_l2 = row(sums, 2 * g), row(sums, 2 * g + 1)
            lx = sum_lx - product * code
            l2 = sum_l2 - weight * code * code
            new = clamp(nearest(row(x, at) * l2 / lx), -top, top - 1)
            able = (lx > 0.0) & (new != code)
            lx = lx + product * new
            l2 = l2 + weight * new * new
            better = able & (l2 > 0.0) & (lx * lx * sum_l2 > sum_lx * sum_lx * l2)
            setrow(codes, at, select(better, new, code))
            setrow(sums, 2 * g, select(better, lx, sum_lx))
            setrow(sums, 2 * g + 1, select(better, l2, sum_l2))
            setrow(moved, g, select(better, one, row(moved, g)))


def _keep_moved(active: Places, count: int, moved: Rows) -> int:
    """Bring to the front which of `count` groups have moved; return how many they are."""
    left = 0
    for k in range(count):
        if anyl(row(moved, active[k]) > 0.0):
            active[left] = active[k]
            left += 1
    return left


def fit_levels(
    x: Rows,
    at: int,
    count: int,
    weights: Rows | None,
    edges: Factors,
    levels: Factors,
    steps: Factors,
) -> Lanes:
    """Find ``x = scale * level`` (the search of ``quantize_row_iq4_nl_impl``).

    The value of largest magnitude is put opposite the
    first level, then on each of the `steps`; the best scale for the levels nearest to the values
    is taken from the place that leaves the least error.

    Args:
        x: the values; the group is `count` rows from `at` on.
        at: the first row.
        count: how many rows.
        weights: the weight of each value of the group; None for its square.
        edges: where one level's values end and the next one's begin.
        levels: the levels.
        steps: see above.

    Returns:
        The scale, 0 for a group of zeros.
    """
    extreme = largest(x, at, count)
    zero = like(extreme, 0.0)
    inverse = 1.0 / (-extreme / levels[0])
    sum_qx, sum_q2 = _level_sums(x, at, count, weights, inverse, edges, levels)
    scale = select(sum_q2 > 0.0, sum_qx / sum_q2, zero)
    best = scale * sum_qx
    for step in steps:
        sum_qx, sum_q2 = _level_sums(x, at, count, weights, step / extreme, edges, levels)
        better = (sum_q2 > 0.0) & (sum_qx * sum_qx > best * sum_q2)
        scale = select(better, sum_qx / sum_q2, scale)
        best = select(better, scale * sum_qx, best)
    return select(fabs(extreme) < EPSILON, zero, scale)


def _level_sums(
    x: Rows,
    at: int,
    count: int,
    weights: Rows | None,
    inverse: Lanes,
    edges: Factors,
    levels: Factors,
) -> tuple[Lanes, Lanes]:
    sum_qx = like(inverse, 0.0)
    sum_q2 = sum_qx
    for i in range(count):
        value = row(x, at + i)
        level = staircase(inverse * value, edges, levels)
        weight = value * value if weights is None else row(weights, i)
        weighted = weight * level
        sum_qx = sum_qx + weighted * value
        sum_q2 = sum_q2 + weighted * level
    return sum_qx, sum_q2
