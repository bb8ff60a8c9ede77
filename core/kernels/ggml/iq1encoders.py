"""How values are encoded as IQ1_S, which ggml makes with importance weights only, and as IQ1_M.

Bodies as in `weighbridge.kernels.ggml.iencoders`. Source: ``ggml-quants.c``,
``quantize_row_iq1_s_impl`` and ``quantize_row_iq1_m_impl``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.kernels.ggml.groups import (
    common_factor,
    place_of,
    scale_code,
    set_weights,
)
from weighbridge.kernels.ggml.iblocks import IQ1_M, IQ1_S
from weighbridge.kernels.ggml.iq1search import (
    DOWN,
    UP,
    cut_shifted_alike,
    cut_shifted_by_halves,
    set_codes,
    sort_group,
)
from weighbridge.kernels.ggml.points import THREE_LEVELS
from weighbridge.kernels.ggml.search import sum_of_squares
from weighbridge.kernels.lanes import (
    Lanes,
    Mask,
    Octets,
    Rows,
    anyl,
    half_bits,
    like,
    lookup,
    nearest_point,
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

_S_D, _S_QS, _S_QH = offsets(IQ1_S)
_M_QS, _M_QH, _M_SCALES = offsets(IQ1_M)


def weighted_iq1_s(x: Rows, w: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Fit a scale and a shift to each 32 values, whose codes are points of a grid, eight each.

    Scales become codes of 3 bits, of odd multiples of the block's factor.
    """
    weights = scratch(x, 32)
    values = scratch(x, 32)
    order = scratch(x, 32)
    ranked = scratch(x, 32)
    codes = scratch(x, 32)
    downs = scratch(x, 4)
    scales = scratch(x, 8)
    words = scratch(x, 8)
    common = 2.0 * sum_of_squares(x) / 256.0
    zero = like(common, 0.0)
    failed = zero > zero
    for s in range(8):
        group = x[32 * s : 32 * s + 32]
        set_weights(x, w, 32 * s, weights, common)
        sort_group(group, weights, values, order, ranked)
        scale, cut = cut_shifted_alike(values, ranked)
        scale, alive = set_codes(group, values, order, scale, cut, 1e-12, codes, downs)
        scale, lost = _settle(group, weights, codes, downs, scale, alive, places, neighbours)
        failed = failed | lost
        setrow(scales, s, scale)
        word = 32768.0 * row(downs, 0)
        for k in range(4):
            place = place_of(codes, k, THREE_LEVELS, places)
            setbyte(out, _S_QS + 4 * s + k, wrap(place, 8))
            word = word + upper(place, 8) * (1 << (3 * k))
        setrow(words, s, word)
    d, inverse = common_factor(scales, 15.0)
    sethalf(out, _S_D, d * 1.125)
    for s in range(8):
        word = row(words, s) + 4096.0 * scale_code(inverse, row(scales, s), 7.0)
        word = select(d == 0.0, wrap(row(words, s), 12), word)
        _set_word(out, _S_QH + 2 * s, word)
    return failed


def iq1_m(x: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Fit a scale to each 16 values and a shift to each 8, whose codes are a point of a grid.

    Values are weighted with their squares. Scales become codes of 3 bits, of odd multiples of a
    factor; the block's factor is then what is best for all these codes.
    """
    return _iq1_m(x, None, out, places, neighbours)


def weighted_iq1_m(x: Rows, w: Rows, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    """Do as `iq1_m`, with the importance of values."""
    return _iq1_m(x, w, out, places, neighbours)


def _iq1_m(x: Rows, w: Rows | None, out: Octets, places: Factors, neighbours: Factors) -> Mask:
    weights = scratch(x, 256)
    codes = scratch(x, 256)
    values = scratch(x, 16)
    order = scratch(x, 16)
    ranked = scratch(x, 16)
    downs = scratch(x, 32)
    scales = scratch(x, 16)
    zero = like(row(x, 0), 0.0)
    set_weights(x, w, 0, weights, zero if w is None else 2.0 * sum_of_squares(x) / 256.0)
    failed = zero > zero
    for s in range(16):
        group = x[16 * s : 16 * s + 16]
        some = weights[16 * s : 16 * s + 16]
        part = codes[16 * s : 16 * s + 16]
        shifts = downs[2 * s : 2 * s + 2]
        sort_group(group, some, values, order, ranked)
        scale, cut = cut_shifted_by_halves(values, order, ranked)
        scale, alive = set_codes(group, values, order, scale, cut, 1e-7, part, shifts)
        scale, lost = _settle(group, some, part, shifts, scale, alive, places, neighbours)
        failed = failed | lost
        setrow(scales, s, scale)
    d, inverse = common_factor(scales, 15.0)
    none = d == 0.0
    for s in range(16):
        high = zero
        for k in range(2):
            place = place_of(codes, 2 * s + k, THREE_LEVELS, places)
            setbyte(out, _M_QS + 2 * s + k, wrap(place, 8))
            down = select(none, zero, 8.0 * row(downs, 2 * s + k))
            high = high + (upper(place, 8) + down) * (1 << (4 * k))
        setbyte(out, _M_QH + s, high)
        setrow(scales, s, select(none, zero, scale_code(inverse, row(scales, s), 7.0)))
    d = select(none, zero, _best_factor(x, weights, codes, downs, scales, d))
    bits = half_bits(d * 1.1125)
    for i in range(4):
        word = 4096.0 * wrap(upper(bits, 4 * i), 4)
        for k in range(4):
            word = word + row(scales, 4 * i + k) * (1 << (3 * k))
        _set_word(out, _M_SCALES + 2 * i, word)
    wrong: Mask = failed | (d != d)
    return wrong


def _settle(
    x: Rows,
    weights: Rows,
    codes: Rows,
    downs: Rows,
    scale: Lanes,
    alive: Mask,
    places: Factors,
    neighbours: Factors,
) -> tuple[Lanes, Mask]:
    """Make codes points of the grid; return a scale for them, and where no point was found."""
    space = scratch(x, 3)
    zero = like(scale, 0.0)
    nowhere = like(scale, -1.0)
    changed = zero > zero
    lost = changed
    for k in range(len(downs)):
        number = zero
        for i in range(8):
            number = number + row(codes, 8 * k + i) * (1 << (2 * i))
        found = lookup(places, number)
        outside = alive & (found < 0.0)
        down = row(downs, k) > 0.0
        if anyl(outside):
            start = select(outside, -1.0 - found, nowhere)
            above = select(down, nowhere, start)
            below = select(down, start, nowhere)
            up = nearest_point(x, weights, 8 * k, UP, scale, above, neighbours, space)
            point = nearest_point(x, weights, 8 * k, DOWN, scale, below, neighbours, space)
            point = select(down, point, up)
            lost = lost | (outside & (point < 0.0))
            changed = changed | outside
            point = select(point < 0.0, zero, point)
            for i in range(8):
                code = wrap(upper(point, 2 * i), 2)
                setrow(codes, 8 * k + i, select(outside, code, row(codes, 8 * k + i)))
    sum_qx = zero
    sum_q2 = zero
    for i in range(len(x)):
        weighted = row(weights, i) * _level(codes, downs, i, len(x) // len(downs))
        sum_qx = sum_qx + weighted * row(x, i)
        sum_q2 = sum_q2 + weighted * _level(codes, downs, i, len(x) // len(downs))
    better = changed & (sum_qx > 0.0) & (sum_q2 > 0.0)
    scale = select(better, sum_qx / sum_q2, scale)
    return scale, lost | (scale != scale)


def _level(codes: Rows, downs: Rows, i: int, per: int) -> Lanes:
    """Return what the code of value `i` stands for."""
    return row(codes, i) - 0.875 - 0.25 * row(downs, i // per)


def _best_factor(x: Rows, weights: Rows, codes: Rows, downs: Rows, scales: Rows, d: Lanes) -> Lanes:
    """Return the best factor for codes, of values and of scales; `d` where all weights are 0."""
    sum_qx = like(d, 0.0)
    sum_q2 = sum_qx
    for i in range(256):
        level = _level(codes, downs, i, 8) * (2.0 * row(scales, i // 16) + 1.0)
        weighted = row(weights, i) * level
        sum_qx = sum_qx + weighted * row(x, i)
        sum_q2 = sum_q2 + weighted * level
    return select(sum_q2 > 0.0, sum_qx / sum_q2, d)


def _set_word(out: Octets, at: int, word: Lanes) -> None:
    setbyte(out, at, wrap(word, 8))
    setbyte(out, at + 1, upper(word, 8))


encode_weighted_iq1_s = weighted_encoder(IQ1_S, weighted_iq1_s, "iq1")
encode_iq1_m = encoder(IQ1_M, iq1_m, "iq1")
encode_weighted_iq1_m = weighted_encoder(IQ1_M, weighted_iq1_m, "iq1")
