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
    floor,
    like,
    lookup,
    nearest,
    nearest_point,
    row,
    scratch,
    select,
    setrow,
    staircase,
)

Factors = NDArray[np.float32]

EPSILON = 1e-15
"""A group whose largest magnitude is less counts as zeros (``GROUP_MAX_EPS``)."""


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
) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """Find ``x = scale * code - minimum`` with codes from 0 to `top` (``make_qkx2_quants``).

    From codes for each of the `steps` the scale and the minimum that fit them best in the sense of
    least squares are computed; of these pairs the one with the smallest weighted error is taken.
    Errors are squares, or magnitudes where `absolute` is set.

    Args:
        x: the values; the group is the rows from `at` on.
        at: the first row.
        weights: the weight of each value of the group.
        trial: as many rows, written over.
        top: the largest code.
        steps: see `affine_steps`.
        absolute: how errors count.

    Returns:
        The scale; the minimum; and what gives the codes, ``nearest(inverse * (x - low))``: their
        inverse, 0 for a constant group, and their low end.
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
    best_inverse = inverse
    best_low = low
    for step in steps:
        inverse = step / (high - low)
        sum_l = zero
        sum_l2 = zero
        sum_xl = zero
        for i in range(count):
            value = row(x, at + i)
            code = clamp(nearest(inverse * (value - low)), 0.0, top)
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


def fit_scale(x: Rows, at: int, count: int, top: int, steps: Factors) -> tuple[Lanes, Lanes]:
    """Find ``x = scale * code``, codes from ``-top`` to ``top - 1`` (``make_qx_quants``).

    Every value is weighted with its square. For each of the `steps` the best scale for the codes
    that it gives is computed; the one that leaves the least error is taken.

    Args:
        x: the values; the group is `count` rows from `at` on.
        at: the first row.
        count: how many rows.
        top: see above.
        steps: see `signed_steps`.

    Returns:
        The scale, and what gives the codes, ``nearest(inverse * x)``; zeros for a group of zeros.
    """
    extreme = largest(x, at, count)
    zero = like(extreme, 0.0)
    best_inverse = -top / extreme
    sum_lx, sum_l2 = _scale_sums(x, at, count, best_inverse, top)
    scale = select(sum_l2 == 0.0, zero, sum_lx / sum_l2)
    best = scale * sum_lx
    for step in steps:
        inverse = step / extreme
        sum_lx, sum_l2 = _scale_sums(x, at, count, inverse, top)
        better = (sum_l2 > 0.0) & (sum_lx * sum_lx > best * sum_l2)
        scale = select(better, sum_lx / sum_l2, scale)
        best = select(better, scale * sum_lx, best)
        best_inverse = select(better, inverse, best_inverse)
    nothing = fabs(extreme) < EPSILON
    return select(nothing, zero, scale), select(nothing, zero, best_inverse)


def _scale_sums(x: Rows, at: int, count: int, inverse: Lanes, top: int) -> tuple[Lanes, Lanes]:
    sum_lx = like(inverse, 0.0)
    sum_l2 = sum_lx
    for i in range(count):
        value = row(x, at + i)
        weight = value * value
        code = clamp(nearest(inverse * value), -top, top - 1)
        sum_lx = sum_lx + weight * value * code
        sum_l2 = sum_l2 + weight * code * code
    return sum_lx, sum_l2


def refine_scales(x: Rows, codes: Rows, scales: Rows, size: int, top: int) -> None:
    """Find ``x = scale * code`` for all groups, changing codes one by one (``make_q3_quants``).

    A code is changed where the best scale for its group then leaves less error, each value
    weighted with its square. That is done up to five times for all codes, and for all groups side
    by side: in one of them each step waits for the one before.

    Args:
        x: the values, one group of `size` rows after the other.
        codes: receives ``code + top``, from 0 to ``2 * top - 1``; 0 for a group of zeros.
        scales: receives a row for each group.
        size: rows of a group.
        top: codes go from ``-top`` to ``top - 1``.
    """
    groups = len(scales)
    sums = scratch(x, 2 * groups)
    weights = scratch(x, groups * size)
    products = scratch(x, groups * size)
    extremes = scratch(x, groups)
    for g in range(groups):
        extreme = largest(x, g * size, size)
        setrow(extremes, g, extreme)
        sum_lx = like(extreme, 0.0)
        sum_l2 = sum_lx
        inverse = -top / extreme
        for i in range(g * size, g * size + size):
            value = row(x, i)
            weight = value * value
            setrow(weights, i, weight)
            setrow(products, i, weight * value)
            code = clamp(nearest(inverse * value), -top, top - 1)
            setrow(codes, i, code)
            sum_lx = sum_lx + weight * value * code
            sum_l2 = sum_l2 + weight * code * code
        setrow(sums, 2 * g, sum_lx)
        setrow(sums, 2 * g + 1, sum_l2)
    for _ in range(5):
        if not _refine_once(x, weights, products, codes, sums, size, top):
            break
    for g in range(groups):
        sum_lx, sum_l2 = row(sums, 2 * g), row(sums, 2 * g + 1)
        zero = like(sum_lx, 0.0)
        nothing = fabs(row(extremes, g)) < EPSILON
        scale = select(sum_l2 > 0.0, sum_lx / sum_l2, zero)
        setrow(scales, g, select(nothing, zero, scale))
        for i in range(g * size, g * size + size):
            setrow(codes, i, select(nothing, zero, row(codes, i) + top))


def _refine_once(
    x: Rows, weights: Rows, products: Rows, codes: Rows, sums: Rows, size: int, top: int
) -> bool:
    """Try to change each code, the first of all groups first; tell whether one was changed."""
    zero = like(row(sums, 0), 0.0)
    changed = zero > zero
    for i in range(size):
        for g in range(len(sums) // 2):
            at = g * size + i
            code = row(codes, at)
            weight = row(weights, at)
            product = row(products, at)
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
            changed = changed | better
    return anyl(changed)


def fit_levels(
    x: Rows, at: int, count: int, edges: Factors, levels: Factors, steps: Factors
) -> Lanes:
    """Find ``x = scale * level`` (the search of ``quantize_row_iq4_nl_impl``).

    Every value is weighted with its square. The value of largest magnitude is put opposite the
    first level, then on each of the `steps`; the best scale for the levels nearest to the values
    is taken from the place that leaves the least error.

    Args:
        x: the values; the group is `count` rows from `at` on.
        at: the first row.
        count: how many rows.
        edges: where one level's values end and the next one's begin.
        levels: the levels.
        steps: see above.

    Returns:
        The scale, 0 for a group of zeros.
    """
    extreme = largest(x, at, count)
    zero = like(extreme, 0.0)
    inverse = 1.0 / (-extreme / levels[0])
    sum_qx, sum_q2 = _level_sums(x, at, count, inverse, edges, levels)
    scale = select(sum_q2 > 0.0, sum_qx / sum_q2, zero)
    best = scale * sum_qx
    for step in steps:
        sum_qx, sum_q2 = _level_sums(x, at, count, step / extreme, edges, levels)
        better = (sum_q2 > 0.0) & (sum_qx * sum_qx > best * sum_q2)
        scale = select(better, sum_qx / sum_q2, scale)
        best = select(better, scale * sum_qx, best)
    return select(fabs(extreme) < EPSILON, zero, scale)


def _level_sums(
    x: Rows, at: int, count: int, inverse: Lanes, edges: Factors, levels: Factors
) -> tuple[Lanes, Lanes]:
    sum_qx = like(inverse, 0.0)
    sum_q2 = sum_qx
    for i in range(count):
        value = row(x, at + i)
        level = staircase(inverse * value, edges, levels)
        weighted = value * value * level
        sum_qx = sum_qx + weighted * value
        sum_q2 = sum_q2 + weighted * level
    return sum_qx, sum_q2


def grid_steps(top: int, delta: float, count: int) -> Factors:
    """Return what `fit_points` tries to put the largest magnitude on, around ``2 * top + 1``."""
    i = np.arange(-count, count + 1, dtype=np.float32)
    return np.float32(2 * top + 1) + i * np.float32(delta)


def fit_points(
    values: Rows,
    weights: Rows,
    roots: Rows,
    codes: Rows,
    trial: Rows,
    per: int,
    base: float,
    top: int,
    steps: Factors,
    again: bool,
    grid: Factors,
    neighbours: Factors,
) -> tuple[Lanes, Lanes]:
    """Find ``value = scale * (2 * code + 1)`` with codes that are points of a grid.

    For each of the `steps` every value gets its nearest code; `per` codes that are no point of the
    grid become one of the points around. Of the best scales for all these the one that leaves the
    least error is taken. Then, with that scale, codes are chosen once more, and a scale for them.

    Args:
        values: the magnitudes of a group.
        weights: their weights.
        roots: square roots of the weights: what the distance of points is weighted with.
        codes: receives the codes.
        trial: as many rows, written over.
        per: codes of a point.
        base: of the number that stands for a point, its codes as digits.
        top: the largest code.
        steps: see `grid_steps`.
        again: choose all codes again; else those alone that were no points of the grid.
        grid: see `weighbridge.kernels.ggml.neighbours`.
        neighbours: likewise.

    Returns:
        The scale, and 1 where no point was found, as numbers are too large; else 0.
    """
    count = len(values)
    most = row(values, 0)
    zero = like(most, 0.0)
    for i in range(1, count):
        most = select(most > row(values, i), most, row(values, i))
    for i in range(count):
        setrow(codes, i, zero)
    parts = count // per
    off = scratch(values, parts)
    new_off = scratch(values, parts)
    wanted = zero + 1.0 if again else zero
    for k in range(parts):
        setrow(off, k, wanted)
    scale = most / (2.0 * top + 1.0)
    best = zero
    failed = zero
    for step in steps:
        inverse = step / most
        _nearest_points(
            values, roots, trial, new_off, per, base, top, inverse, 1.0 / inverse, grid, neighbours
        )
        for k in range(parts):
            failed = select(row(new_off, k) > 1.0, zero + 1.0, failed)
        sum_qx, sum_q2 = _point_sums(values, weights, trial)
        better = (sum_q2 > 0.0) & (sum_qx * sum_qx > best * sum_q2)
        scale = select(better, sum_qx / sum_q2, scale)
        best = select(better, scale * sum_qx, best)
        for i in range(count):
            setrow(codes, i, select(better, row(trial, i), row(codes, i)))
        for k in range(parts):
            setrow(off, k, select(better, row(new_off, k), row(off, k)))
    any_off = zero
    for k in range(parts):
        any_off = any_off + row(off, k)
    todo = (any_off > 0.0) & (scale > 0.0)
    if anyl(todo):
        _nearest_points(
            values, roots, trial, new_off, per, base, top, 1.0 / scale, scale, grid, neighbours
        )
        for k in range(parts):
            chosen = todo & (row(off, k) + wanted > 0.0)
            failed = select(chosen & (row(new_off, k) > 1.0), zero + 1.0, failed)
            for i in range(k * per, k * per + per):
                setrow(codes, i, select(chosen, row(trial, i), row(codes, i)))
        sum_qx, sum_q2 = _point_sums(values, weights, codes)
        scale = select(todo & (sum_q2 > 0.0), sum_qx / sum_q2, scale)
    return scale, failed


def _point_sums(values: Rows, weights: Rows, codes: Rows) -> tuple[Lanes, Lanes]:
    sum_qx = like(row(values, 0), 0.0)
    sum_q2 = sum_qx
    for i in range(len(values)):
        weight = row(weights, i)
        level = 2.0 * row(codes, i) + 1.0
        sum_qx = sum_qx + weight * row(values, i) * level
        sum_q2 = sum_q2 + weight * level * level
    return sum_qx, sum_q2


def _nearest_points(
    values: Rows,
    roots: Rows,
    codes: Rows,
    off: Rows,
    per: int,
    base: float,
    top: int,
    inverse: Lanes,
    scale: Lanes,
    grid: Factors,
    neighbours: Factors,
) -> None:
    """Set codes that are points; `off`: 0 for those of the grid, 1 for others, 2 for none found."""
    zero = like(scale, 0.0)
    space = scratch(values, 3)
    for k in range(len(off)):
        number = zero
        place = 1.0
        for i in range(k * per, k * per + per):
            code = clamp(nearest(0.5 * (inverse * row(values, i) - 1.0)), 0.0, top)
            setrow(codes, i, code)
            number = number + code * place
            place = place * base
        found = lookup(grid, number)
        outside = found < 0.0
        setrow(off, k, select(outside, zero + 1.0, zero))
        if anyl(outside):
            start = select(outside, -found - 1.0, zero - 1.0)
            part = values[k * per : k * per + per]
            point = nearest_point(
                part, roots[k * per : k * per + per], base, scale, start, neighbours, space
            )
            setrow(off, k, select(outside & (point < 0.0), zero + 2.0, row(off, k)))
            point = select(point < 0.0, zero, point)
            for i in range(k * per, k * per + per):
                rest = floor(point * (1.0 / base))
                setrow(codes, i, select(outside, point - rest * base, row(codes, i)))
                point = rest
