"""The search of ggml's IQ1 encoders: which values of a group become -1, which 0, and which 1.

In the order of size they are three runs, one behind the other. All ways to cut the group in three
are tried, with all of what is -1, 0 and 1 shifted up by an eighth or down. Written over the words
of `weighbridge.kernels.lanes`. Source: ``ggml-quants.c``, ``quantize_row_iq1_s_impl`` and
``quantize_row_iq1_m_impl``.
"""

from __future__ import annotations

from weighbridge.kernels.lanes import (
    Lanes,
    Mask,
    Rows,
    anyl,
    fabs,
    like,
    pick,
    row,
    scratch,
    select,
    setrow,
    upper,
    wrap,
)

UP = (-0.875, 0.125, 1.125)
"""What -1, 0 and 1 are, shifted up."""

DOWN = (-1.125, -0.125, 0.875)
"""What they are, shifted down."""

NOWHERE = -1.0
"""The cut where none was found: all weights are 0."""

# How much the square of -1 exceeds that of 0, and that of 0 the one of 1.
_UP_STEPS = (UP[0] ** 2 - UP[1] ** 2, UP[1] ** 2 - UP[2] ** 2)
_DOWN_STEPS = (DOWN[0] ** 2 - DOWN[1] ** 2, DOWN[1] ** 2 - DOWN[2] ** 2)

_LOWEST = -3.4028234663852886e38


def sort_group(x: Rows, weights: Rows, values: Rows, order: Rows, ranked: Rows) -> None:
    """Set `values` to those of `x` sorted, `order` to where each was, `ranked` to its weight.

    Equals stay in their order, as in glibc's ``qsort``. The way is Batcher's: what is compared
    with what does not depend on the values, whose number is a power of two.
    """
    count = len(x)
    for i in range(count):
        setrow(values, i, row(x, i))
        setrow(order, i, like(row(x, i), i))
    wide = count // 2
    while wide > 0:
        near, rest, step = count // 2, 0, wide
        while step > 0:
            for i in range(count - step):
                if i & wide == rest:
                    _exchange(values, order, i, i + step)
            step, near, rest = near - wide, near // 2, wide
        wide //= 2
    for i in range(count):
        setrow(ranked, i, pick(weights, row(order, i)))


def _exchange(values: Rows, order: Rows, i: int, j: int) -> None:
    a, b = row(values, i), row(values, j)
    at, bt = row(order, i), row(order, j)
    wrong = (a > b) | ((a == b) & (at > bt))
    low, high = select(wrong, b, a), select(wrong, a, b)
    first, second = select(wrong, bt, at), select(wrong, at, bt)
    setrow(values, i, low)
    setrow(values, j, high)
    setrow(order, i, first)
    setrow(order, j, second)


def set_codes(
    x: Rows,
    values: Rows,
    order: Rows,
    scale: Lanes,
    cut: Lanes,
    least: float,
    codes: Rows,
    downs: Rows,
) -> tuple[Lanes, Mask]:
    """Set codes, and whether eight of them are shifted down, to what a cut says.

    Args:
        x: the values of a group.
        values: these sorted.
        order: where each was.
        scale: of the cut; where it is negative all codes and shifts become the opposite.
        cut: see `cut_shifted_alike`.
        least: groups of smaller magnitudes count as zeros.
        codes: receives the codes: 0, 1 and 2 for -1, 0 and 1.
        downs: receives 1 or 0 for each eight values.

    Returns:
        The scale, not negative, and where there is one.
    """
    most = fabs(row(x, 0))
    for i in range(1, len(x)):
        most = select(most > fabs(row(x, i)), most, fabs(row(x, i)))
    alive = (most >= least) & (cut >= 0.0)
    cut = select(alive, cut, like(cut, 0.0))
    flip = scale < 0.0
    _set_thirds(x, values, order, upper(cut, 8), wrap(upper(cut, 2), 6), codes)
    for i in range(len(x)):
        code = select(flip, 2.0 - row(codes, i), row(codes, i))
        setrow(codes, i, select(alive, code, like(cut, 0.0)))
    for k in range(len(downs)):
        down = wrap(upper(cut, 1), 1) if k == 0 else wrap(cut, 1)
        setrow(downs, k, select(alive, select(flip, 1.0 - down, down), like(cut, 0.0)))
    return select(alive, fabs(scale), like(cut, 0.0)), alive


def _set_thirds(
    x: Rows, values: Rows, order: Rows, first: Lanes, second: Lanes, codes: Rows
) -> None:
    """Set codes to 0, to 1 from the sorted value `first` on, and to 2 from `second` on."""
    last = float(len(x))
    first_value, first_place = _boundary(values, order, first, last)
    second_value, second_place = _boundary(values, order, second, last)
    zero = like(first, 0.0)
    one = like(first, 1.0)
    for i in range(len(x)):
        value = row(x, i)
        below = (value < first_value) | ((value == first_value) & (first_place > i))
        under = (value < second_value) | ((value == second_value) & (second_place > i))
        setrow(codes, i, select(below, zero, select(under, one, one + one)))


def _boundary(values: Rows, order: Rows, at: Lanes, last: float) -> tuple[Lanes, Lanes]:
    """Return the value and the place that sorted ones begin with at `at`; none does at the end."""
    end = at >= last
    inner = select(end, like(at, 0.0), at)
    value = select(end, like(at, float("inf")), pick(values, inner))
    return value, select(end, like(at, last), pick(order, inner))


def cut_shifted_alike(values: Rows, weights: Rows) -> tuple[Lanes, Lanes]:
    """Find the best scale and cut where one shift is common to all.

    Args:
        values: of a group, sorted.
        weights: theirs.

    Returns:
        The scale, and the cut: ``64 * first + second``, times 4, and 3 more where the shift is
        down; or `NOWHERE`.
    """
    count = len(values)
    sums = scratch(values, 2 * count + 2)
    ends = scratch(values, 4 * count + 4)
    zero = like(row(values, 0), 0.0)
    total_x = zero
    total_w = zero
    setrow(sums, 0, zero)
    setrow(sums, 1, zero)
    for i in range(count):
        total_x = total_x + row(weights, i) * row(values, i)
        total_w = total_w + row(weights, i)
        setrow(sums, 2 * i + 2, total_x)
        setrow(sums, 2 * i + 3, total_w)
    for i in range(count + 1):
        rest_x = total_x - row(sums, 2 * i)
        rest_w = total_w - row(sums, 2 * i + 1)
        setrow(ends, 4 * i, rest_x * UP[2])
        setrow(ends, 4 * i + 1, rest_w * UP[2] * UP[2])
        setrow(ends, 4 * i + 2, rest_x * DOWN[2])
        setrow(ends, 4 * i + 3, rest_w * DOWN[2] * DOWN[2])
    scale = zero
    best = like(zero, _LOWEST)
    cut = like(zero, NOWHERE)
    for first in range(count + 1):
        first_x, first_w = row(sums, 2 * first), row(sums, 2 * first + 1)
        up_x, up_w = first_x * UP[0], first_w * UP[0] * UP[0]
        down_x, down_w = first_x * DOWN[0], first_w * DOWN[0] * DOWN[0]
        for second in range(first, count + 1):
            middle_x = (row(sums, 2 * second) - first_x) * UP[1]
            middle_w = (row(sums, 2 * second + 1) - first_w) * UP[1] * UP[1]
            sum_up = up_x + middle_x + row(ends, 4 * second)
            square_up = up_w + middle_w + row(ends, 4 * second + 1)
            sum_down = down_x - middle_x + row(ends, 4 * second + 2)
            square_down = down_w + middle_w + row(ends, 4 * second + 3)
            better = _is_better(sum_up, square_up, best)
            if anyl(better | _is_better(sum_down, square_down, best)):
                place = 4.0 * (64 * first + second)
                scale = select(better, sum_up / square_up, scale)
                best = select(better, scale * sum_up, best)
                cut = select(better, like(cut, place), cut)
                better = _is_better(sum_down, square_down, best)
                scale = select(better, sum_down / square_down, scale)
                best = select(better, scale * sum_down, best)
                cut = select(better, like(cut, place + 3.0), cut)
    return scale, cut


def _is_better(sum_qx: Lanes, sum_q2: Lanes, best: Lanes) -> Mask:
    return (sum_q2 > 0.0) & (sum_qx * sum_qx > best * sum_q2)


def cut_shifted_by_halves(values: Rows, order: Rows, weights: Rows) -> tuple[Lanes, Lanes]:
    """Find the best scale and cut where each half of the group has a shift of its own.

    Each half has its sums up to each cut. As -1, 0 and 1 are one apart, the sum of products is
    that of all as 1 less those before the first and before the second cut.

    Args:
        values: of a group, sorted.
        order: where each was in the group.
        weights: theirs.

    Returns:
        The scale, and the cut: ``64 * first + second``, times 4, and 2 more where the first half
        is shifted down, 1 more where the second one is; or `NOWHERE`.
    """
    count = len(values)
    sums = scratch(values, 4 * count + 4)
    heads = scratch(values, 4)
    totals = scratch(values, 4)
    _set_half_sums(values, order, weights, sums)
    end = 4 * count
    for k in range(2):
        setrow(totals, 2 * k, row(sums, end + k) * UP[2])
        setrow(totals, 2 * k + 1, row(sums, end + k) * DOWN[2])
    zero = like(row(values, 0), 0.0)
    scale = zero
    best = like(zero, _LOWEST)
    cut = like(zero, NOWHERE)
    for first in range(count + 1):
        for k in range(2):
            all_w, first_w = row(sums, end + 2 + k), row(sums, 4 * first + 2 + k)
            setrow(heads, 2 * k, all_w * UP[2] * UP[2] + first_w * _UP_STEPS[0])
            setrow(heads, 2 * k + 1, all_w * DOWN[2] * DOWN[2] + first_w * _DOWN_STEPS[0])
        for second in range(first, count + 1):
            at = 4 * second
            before = row(sums, 4 * first) + row(sums, at)
            after = row(sums, 4 * first + 1) + row(sums, at + 1)
            up_x, down_x = row(totals, 0) - before, row(totals, 1) - before
            up_x2, down_x2 = row(totals, 2) - after, row(totals, 3) - after
            weight, weight2 = row(sums, at + 2), row(sums, at + 3)
            up_w = row(heads, 0) + weight * _UP_STEPS[1]
            down_w = row(heads, 1) + weight * _DOWN_STEPS[1]
            up_w2 = row(heads, 2) + weight2 * _UP_STEPS[1]
            down_w2 = row(heads, 3) + weight2 * _DOWN_STEPS[1]
            a, b, c, d = up_x + up_x2, up_x + down_x2, down_x + up_x2, down_x + down_x2
            e, f, g, h = up_w + up_w2, up_w + down_w2, down_w + up_w2, down_w + down_w2
            better = _is_better(a, e, best) | _is_better(b, f, best)
            if anyl(better | _is_better(c, g, best) | _is_better(d, h, best)):
                place = 4.0 * (64 * first + second)
                scale, best, cut = _keep_better(a, e, place, scale, best, cut)
                scale, best, cut = _keep_better(b, f, place + 1.0, scale, best, cut)
                scale, best, cut = _keep_better(c, g, place + 2.0, scale, best, cut)
                scale, best, cut = _keep_better(d, h, place + 3.0, scale, best, cut)
    return scale, cut


def _set_half_sums(values: Rows, order: Rows, weights: Rows, sums: Rows) -> None:
    """Set for each cut what is before it: products of both halves, and weights of both."""
    zero = like(row(values, 0), 0.0)
    for k in range(4):
        setrow(sums, k, zero)
    for i in range(len(values)):
        late = row(order, i) >= len(values) // 2
        weight = row(weights, i)
        product = weight * row(values, i)
        for k in range(2):
            term = product if k == 0 else weight
            early, later = row(sums, 4 * i + 2 * k), row(sums, 4 * i + 2 * k + 1)
            setrow(sums, 4 * i + 2 * k + 4, select(late, early, early + term))
            setrow(sums, 4 * i + 2 * k + 5, select(late, later + term, later))


def _keep_better(
    sum_qx: Lanes, sum_q2: Lanes, place: float, scale: Lanes, best: Lanes, cut: Lanes
) -> tuple[Lanes, Lanes, Lanes]:
    better = _is_better(sum_qx, sum_q2, best)
    scale = select(better, sum_qx / sum_q2, scale)
    best = select(better, scale * sum_qx, best)
    return scale, best, select(better, like(cut, place), cut)
