"""How ggml fits a group of magnitudes to points of a grid: the search of its encoders with grids.

Written over the words of `weighbridge.kernels.lanes`, as those in `weighbridge.kernels.ggml.search`
are. Source: ``ggml-quants.c``, ``quantize_row_iq3_s_impl`` and its likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weighbridge.kernels.lanes import (
    Lanes,
    Mask,
    Rows,
    anyl,
    clamp,
    fabs,
    like,
    lookup,
    nearest,
    nearest_point,
    point_shape,
    row,
    scratch,
    select,
    setrow,
    sqrt,
    upper,
    wrap,
)

if TYPE_CHECKING:
    from weighbridge.kernels.ggml.search import Factors

EIGHT_LEVELS = (1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0)
"""What the codes of a grid of 4 magnitudes stand for."""

THREE_LEVELS = (1.0, 3.0, 5.0)
"""What the codes of a grid of 8 magnitudes stand for."""


def grid_steps(levels: tuple[float, ...], delta: float, count: int) -> Factors:
    """Return what `fit_points` tries to put the largest magnitude on, around the last level."""
    i = np.arange(-count, count + 1, dtype=np.float32)
    return np.float32(levels[-1]) + i * np.float32(delta)


def fit_points(
    values: Rows,
    weights: Rows,
    codes: Rows,
    levels: tuple[float, ...],
    most: Lanes,
    scale: Lanes,
    alive: Mask,
    steps: Factors,
    again: bool,
    always: bool,
    places: Factors,
    neighbours: Factors,
) -> tuple[Lanes, Mask, Mask]:
    """Find ``value = scale * (2 * code + 1)`` with codes that are points of a grid.

    For each of the `steps` every value gets its nearest code; codes that together are no point of
    the grid become one of the points around. Of the best scales for all these the one that leaves
    the least error is taken. Then, with that scale, codes are chosen once more, and a scale for
    them.

    Args:
        values: the magnitudes of a group.
        weights: their weights.
        codes: receives the codes, zeros where nothing is `alive`.
        levels: what codes stand for, `EIGHT_LEVELS` or `THREE_LEVELS`.
        most: what is put on each of the `steps`: the largest value, or what stands for it.
        scale: what is taken where no scale leaves less error than zeros do.
        alive: where there is something to find; else the scale is 0.
        steps: see `grid_steps`.
        again: choose all codes again; else those alone that were no points of the grid.
        always: do so too where all of them were.
        places: see `weighbridge.kernels.ggml.neighbours`.
        neighbours: likewise.

    Returns:
        The scale, not negative; where that took all the values' signs to be the opposite; and
        where nothing was found, as numbers are too large.
    """
    count = len(values)
    parts = count // point_shape(levels)[0]
    roots = scratch(values, count)
    trial = scratch(values, count)
    off = scratch(values, parts)
    new_off = scratch(values, parts)
    space = scratch(values, 3)
    zero = like(most, 0.0)
    for i in range(count):
        setrow(roots, i, sqrt(row(weights, i)))
        setrow(codes, i, zero)
    for k in range(parts):
        setrow(off, k, like(most, 1.0) if again else zero)
    best = zero
    lost = zero
    for step in steps:
        inverse = step / most
        _nearest_points(
            values, roots, trial, new_off, levels, inverse, 1.0 / inverse, places, neighbours, space
        )
        sum_qx, sum_q2 = _point_sums(values, weights, trial)
        better = alive & (sum_q2 > 0.0) & (sum_qx * sum_qx > best * sum_q2)
        scale = select(better, sum_qx / sum_q2, scale)
        best = select(better, scale * sum_qx, best)
        for k in range(parts):
            lost = select(row(new_off, k) > lost, row(new_off, k), lost)
        _replace(codes, trial, better)
        _replace(off, new_off, better)
    some_off = like(most, 1.0) if always else zero
    for k in range(parts):
        some_off = some_off + row(off, k)
    todo = alive & (some_off > 0.0) & (scale > 0.0)
    if anyl(todo):
        _nearest_points(
            values, roots, trial, new_off, levels, 1.0 / scale, scale, places, neighbours, space
        )
        lost = _replace_parts(codes, trial, off, new_off, todo, again, lost)
        sum_qx, sum_q2 = _point_sums(values, weights, codes)
        scale = select(todo & (sum_q2 > 0.0), sum_qx / sum_q2, scale)
    scale = select(alive, scale, zero)
    return fabs(scale), scale < 0.0, (alive & (lost > 1.0)) | (scale != scale)


def _replace(rows: Rows, others: Rows, mask: Mask) -> None:
    for i in range(len(rows)):
        setrow(rows, i, select(mask, row(others, i), row(rows, i)))


def _replace_parts(
    codes: Rows, others: Rows, off: Rows, new_off: Rows, todo: Mask, again: bool, lost: Lanes
) -> Lanes:
    """Take the `others` in parts whose `off` is not 0, or in all of them; return what is lost."""
    per = len(codes) // len(off)
    for k in range(len(off)):
        chosen = todo if again else todo & (row(off, k) > 0.0)
        lost = select(chosen & (row(new_off, k) > lost), row(new_off, k), lost)
        _replace(codes[k * per : k * per + per], others[k * per : k * per + per], chosen)
    return lost


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
    levels: tuple[float, ...],
    inverse: Lanes,
    scale: Lanes,
    places: Factors,
    neighbours: Factors,
    space: Rows,
) -> None:
    """Set codes that are points; `off`: 0 for those of the grid, 1 for others, 2 for none found."""
    per, bits = point_shape(levels)
    zero = like(scale, 0.0)
    one = like(scale, 1.0)
    for k in range(len(off)):
        number = zero
        for i in range(per):
            value = row(values, k * per + i)
            code = clamp(nearest(0.5 * (inverse * value - 1.0)), 0.0, len(levels) - 1)
            setrow(codes, k * per + i, code)
            number = number + code * (1 << (bits * i))
        found = lookup(places, number)
        outside = found < 0.0
        setrow(off, k, select(outside, one, zero))
        if anyl(outside):
            start = -1.0 - found
            point = nearest_point(values, roots, k * per, levels, scale, start, neighbours, space)
            setrow(off, k, select(outside & (point < 0.0), one + one, row(off, k)))
            point = select(point < 0.0, zero, point)
            for i in range(per):
                code = wrap(upper(point, bits * i), bits)
                setrow(codes, k * per + i, select(outside, code, row(codes, k * per + i)))
