"""How values are encoded as ggml's K-quants (``quantize_row_q2_K_ref`` and so on).

Each body takes the 256 values of a block as rows of lanes (see `weighbridge.kernels.lanes`) and
sets the bytes of the block. Source: ``ggml-quants.c``.
"""

from __future__ import annotations

from weighbridge.kernels.ggml.kblocks import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K
from weighbridge.kernels.ggml.search import (
    Factors,
    affine_code,
    affine_steps,
    fit_affine,
    fit_scale,
    refine_scales,
    signed_steps,
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
    setbyte,
    sethalf,
    setrow,
    sqrt,
    upper,
    wrap,
)
from weighbridge.kernels.target import encoder, offsets

_Q2_SCALES, _Q2_QS, _Q2_D, _Q2_DMIN = offsets(Q2_K)
_Q3_HMASK, _Q3_QS, _Q3_SCALES, _Q3_D = offsets(Q3_K)
_Q4_D, _Q4_DMIN, _Q4_SCALES, _Q4_QS = offsets(Q4_K)
_Q5_D, _Q5_DMIN, _Q5_SCALES, _Q5_QH, _Q5_QS = offsets(Q5_K)
_Q6_QL, _Q6_QH, _Q6_SCALES, _Q6_D = offsets(Q6_K)

_Q2_STEPS = affine_steps(3, -0.5, 0.1, 15)
_Q4_STEPS = affine_steps(15, -1, 0.1, 20)
_Q5_STEPS = affine_steps(31, -0.5, 0.1, 15)
_Q6_STEPS = signed_steps(32)


def q2_k(x: Rows, out: Octets) -> None:
    """Fit a scale and a minimum to each 16 values, with magnitudes as weights and errors.

    Both become codes of 4 bits, 15 for the largest of a block; the values' codes are then computed
    anew, from what the float16 factors and these codes give.
    """
    weights = scratch(x, 16)
    trial = scratch(x, 16)
    fits = scratch(x, 64)
    parts = scratch(x, 16)
    codes = scratch(x, 256)
    for s in range(16):
        for i in range(16):
            setrow(weights, i, fabs(row(x, 16 * s + i)))
        keep(fits, s, 16, fit_affine(x, 16 * s, weights, trial, 3, _Q2_STEPS, True, False))
    most_scale = maximum(fits, 0, 16)
    most_low = maximum(fits, 16, 16)
    zero = like(most_scale, 0.0)
    d = half(select(most_scale > 0.0, most_scale / 15.0, zero))
    dmin = half(select(most_low > 0.0, most_low / 15.0, zero))
    for s in range(16):
        scale = nearest(15.0 / most_scale * row(fits, s))
        low = nearest(15.0 / most_low * row(fits, 16 + s))
        scale = select(most_scale > 0.0, wrap(scale, 8), zero)
        low = select(most_low > 0.0, wrap(low, 4), zero)
        setrow(parts, s, either(scale, low * 16.0))
    set_q2(x, codes, fits, parts, d, dmin, False, out)


def set_q2(
    x: Rows,
    codes: Rows,
    fits: Rows,
    parts: Rows,
    d: Lanes,
    dmin: Lanes,
    bounded: bool,
    out: Octets,
) -> None:
    """Set a block of Q2_K, given its fits, factors and bytes of scales; codes are written over."""
    for s in range(16):
        both = row(parts, s)
        setbyte(out, _Q2_SCALES + s, both)
        set_affine(x, codes, fits, s, 16, 3, d * wrap(both, 4), dmin * upper(both, 4), bounded)
    sethalf(out, _Q2_D, d)
    sethalf(out, _Q2_DMIN, dmin)
    _pack_fours(codes, out, _Q2_QS)


def q3_k(x: Rows, out: Octets) -> None:
    """Fit a scale to each 16 values, refining their codes one by one.

    The scales become codes from -32 to 31, -32 for the one of largest magnitude; the values' codes
    are then computed anew.
    """
    scales = scratch(x, 16)
    levels = scratch(x, 16)
    codes = scratch(x, 256)
    refine_scales(x, codes, scales, 16, 4)
    extreme = _extreme(scales, 16)
    none = extreme == 0.0
    zero = like(extreme, 0.0)
    inverse = -32.0 / extreme
    d = half(select(none, zero, 1.0 / inverse))
    for s in range(16):
        level = wrap(nearest(inverse * row(scales, s)) + 128.0, 8) - 128.0
        setrow(levels, s, select(none, zero, clamp(level, -32.0, 31.0) + 32.0))
    set_q3(x, codes, levels, d, out)


def set_q3(x: Rows, codes: Rows, levels: Rows, d: Lanes, out: Octets) -> None:
    """Set a block of Q3_K, given its factor and codes of scales from 0 to 63.

    The values' codes are those given where the scale comes out as 0; they are written over.
    """
    zero = like(d, 0.0)
    for s in range(16):
        factor = d * (row(levels, s) - 32.0)
        for i in range(16):
            code = clamp(nearest(row(x, 16 * s + i) / factor), -4.0, 3.0) + 4.0
            setrow(codes, 16 * s + i, select(factor == 0.0, row(codes, 16 * s + i), code))
    for s in range(8):
        setbyte(out, _Q3_SCALES + s, wrap(row(levels, s), 4) + 16.0 * wrap(row(levels, s + 8), 4))
    for s in range(4):
        high = upper(row(levels, s), 4) + 4.0 * upper(row(levels, s + 4), 4)
        high = high + 16.0 * upper(row(levels, s + 8), 4) + 64.0 * upper(row(levels, s + 12), 4)
        setbyte(out, _Q3_SCALES + 8 + s, high)
    sethalf(out, _Q3_D, d)
    for i in range(32):
        mask = zero
        for j in range(8):
            code = row(codes, 32 * j + i)
            third = select(code > 3.0, zero + 1.0, zero)
            setrow(codes, 32 * j + i, code - 4.0 * third)
            mask = mask + third * (1 << j)
        setbyte(out, _Q3_HMASK + i, mask)
    _pack_fours(codes, out, _Q3_QS)


def q4_k(x: Rows, out: Octets) -> None:
    """Fit a scale and a minimum to each 32 values, weighting with magnitude plus root mean square.

    Both become codes of 6 bits, 63 for the largest of a block; the values' codes are then computed
    anew, from what the float16 factors and these codes give.
    """
    codes = scratch(x, 256)
    fits = scratch(x, 32)
    parts = scratch(x, 16)
    d, dmin = _six_bit_fits(x, fits, parts, 15, _Q4_STEPS)
    set_q4(x, codes, fits, parts, d, dmin, False, out)


def set_q4(
    x: Rows,
    codes: Rows,
    fits: Rows,
    parts: Rows,
    d: Lanes,
    dmin: Lanes,
    bounded: bool,
    out: Octets,
) -> None:
    """Set a block of Q4_K, given its fits, factors and codes of scales and minima."""
    _set_six_bits(parts, out, _Q4_SCALES)
    sethalf(out, _Q4_D, d)
    sethalf(out, _Q4_DMIN, dmin)
    _set_affines(x, codes, fits, parts, 15, d, dmin, bounded)
    for p in range(4):
        for i in range(32):
            low, high = row(codes, 64 * p + i), row(codes, 64 * p + 32 + i)
            setbyte(out, _Q4_QS + 32 * p + i, low + 16.0 * high)


def q5_k(x: Rows, out: Octets) -> None:
    """Fit a scale and a minimum to each 32 values as `q4_k` does; codes have a bit more."""
    codes = scratch(x, 256)
    fits = scratch(x, 32)
    parts = scratch(x, 16)
    d, dmin = _six_bit_fits(x, fits, parts, 31, _Q5_STEPS)
    set_q5(x, codes, fits, parts, d, dmin, False, out)


def set_q5(
    x: Rows,
    codes: Rows,
    fits: Rows,
    parts: Rows,
    d: Lanes,
    dmin: Lanes,
    bounded: bool,
    out: Octets,
) -> None:
    """Set a block of Q5_K, given its fits, factors and codes of scales and minima."""
    _set_six_bits(parts, out, _Q5_SCALES)
    sethalf(out, _Q5_D, d)
    sethalf(out, _Q5_DMIN, dmin)
    _set_affines(x, codes, fits, parts, 31, d, dmin, bounded)
    for i in range(32):
        fifth = like(row(codes, 0), 0.0)
        for p in range(4):
            low, high = row(codes, 64 * p + i), row(codes, 64 * p + 32 + i)
            setbyte(out, _Q5_QS + 32 * p + i, wrap(low, 4) + 16.0 * wrap(high, 4))
            fifth = fifth + (upper(low, 4) + 2.0 * upper(high, 4)) * (1 << (2 * p))
        setbyte(out, _Q5_QH + i, fifth)


def q6_k(x: Rows, out: Octets) -> None:
    """Fit a scale to each 16 values.

    The scales become codes of 8 bits, -128 for the one of largest magnitude; the values' codes are
    then computed anew. A block whose scales are all tiny is zero altogether.
    """
    scale_codes(x, None, out)


def scale_codes(x: Rows, w: Rows | None, out: Octets) -> None:
    """Set a block of Q6_K, given the weights of its values; None for their squares."""
    scales = scratch(x, 16)
    inverses = scratch(x, 16)
    codes = scratch(x, 256)
    for s in range(16):
        weights = None if w is None else w[16 * s : 16 * s + 16]
        scale, inverse = fit_scale(x, 16 * s, 16, weights, 32, _Q6_STEPS)
        setrow(scales, s, scale)
        setrow(inverses, s, inverse)
    extreme = _extreme(scales, 16)
    none = fabs(extreme) < 1e-15
    zero = like(extreme, 0.0)
    inverse = -128.0 / extreme
    d = half(select(none, zero, 1.0 / inverse))
    sethalf(out, _Q6_D, d)
    for s in range(16):
        level = clamp(nearest(inverse * row(scales, s)), -4194304.0, 127.0)
        level = select(none, zero, wrap(level + 128.0, 8) - 128.0)
        setbyte(out, _Q6_SCALES + s, wrap(level, 8))
        factor = d * level
        lost = factor == 0.0
        for i in range(16):
            code = clamp(nearest(row(x, 16 * s + i) / factor), -32.0, 31.0)
            setrow(codes, 16 * s + i, code + 32.0)
        if anyl(lost):
            for i in range(16):
                code = clamp(nearest(row(inverses, s) * row(x, 16 * s + i)), -32.0, 31.0) + 32.0
                code = select(none | (row(inverses, s) == 0.0), zero, code)
                setrow(codes, 16 * s + i, select(lost, code, row(codes, 16 * s + i)))
    for h in range(2):
        for i in range(32):
            first, second = row(codes, 128 * h + i), row(codes, 128 * h + i + 32)
            third, fourth = row(codes, 128 * h + i + 64), row(codes, 128 * h + i + 96)
            setbyte(out, _Q6_QL + 64 * h + i, wrap(first, 4) + 16.0 * wrap(third, 4))
            setbyte(out, _Q6_QL + 64 * h + i + 32, wrap(second, 4) + 16.0 * wrap(fourth, 4))
            high = upper(first, 4) + 4.0 * upper(second, 4)
            high = high + 16.0 * upper(third, 4) + 64.0 * upper(fourth, 4)
            setbyte(out, _Q6_QH + 32 * h + i, high)


def _six_bit_fits(
    x: Rows, fits: Rows, parts: Rows, top: int, steps: Factors
) -> tuple[Lanes, Lanes]:
    """Set the fits of 8 groups, and codes of their scales and minima; return the factors."""
    weights = scratch(x, 32)
    trial = scratch(x, 32)
    for s in range(8):
        _root_weights(x, 32 * s, weights)
        keep(fits, s, 8, fit_affine(x, 32 * s, weights, trial, top, steps, False, False))
    most_scale = maximum(fits, 0, 8)
    most_low = maximum(fits, 8, 8)
    zero = like(most_scale, 0.0)
    inverse_scale = select(most_scale > 0.0, 63.0 / most_scale, zero)
    inverse_low = select(most_low > 0.0, 63.0 / most_low, zero)
    for s in range(8):
        scale = wrap(nearest(inverse_scale * row(fits, s)), 8)
        low = wrap(nearest(inverse_low * row(fits, 8 + s)), 8)
        setrow(parts, s, clamp(scale, 0.0, 63.0))
        setrow(parts, 8 + s, clamp(low, 0.0, 63.0))
    return half(most_scale / 63.0), half(most_low / 63.0)


def _set_six_bits(parts: Rows, out: Octets, at: int) -> None:
    """Set the 12 bytes of 8 scales and 8 minima, and these to what a decoder makes of them.

    That is something else for those with more than six bits: ggml does not mask them.
    """
    for k in range(0, 16, 8):
        for s in range(4):
            first, second = row(parts, k + s), row(parts, k + s + 4)
            byte = either(first, wrap(64.0 * upper(second, 4), 8))
            setbyte(out, at + k // 2 + s, byte)
            setrow(parts, k + s, wrap(byte, 6))
            setrow(parts, k + s + 4, wrap(second, 4) + 16.0 * upper(byte, 6))
    for s in range(4):
        low, high = wrap(row(parts, s + 4), 4), wrap(row(parts, s + 12), 4)
        setbyte(out, at + 8 + s, low + 16.0 * high)


def _set_affines(
    x: Rows,
    codes: Rows,
    fits: Rows,
    parts: Rows,
    top: int,
    d: Lanes,
    dmin: Lanes,
    bounded: bool,
) -> None:
    for s in range(8):
        factor, low = d * row(parts, s), dmin * row(parts, 8 + s)
        set_affine(x, codes, fits, s, 8, top, factor, low, bounded)


def _root_weights(x: Rows, at: int, weights: Rows) -> None:
    total = like(row(x, at), 0.0)
    for i in range(32):
        value = row(x, at + i)
        total = total + value * value
    root = sqrt(total / 32.0)
    for i in range(32):
        setrow(weights, i, root + fabs(row(x, at + i)))


def keep(fits: Rows, s: int, count: int, fit: tuple[Lanes, Lanes, Lanes, Lanes]) -> None:
    """Keep what `fit_affine` found for group `s` of `count`."""
    scale, low, inverse, start = fit
    setrow(fits, s, scale)
    setrow(fits, count + s, low)
    setrow(fits, 2 * count + s, inverse)
    setrow(fits, 3 * count + s, start)


def maximum(rows: Rows, at: int, count: int) -> Lanes:
    """Return the largest number of some rows, or 0."""
    most = like(row(rows, at), 0.0)
    for i in range(count):
        most = select(row(rows, at + i) > most, row(rows, at + i), most)
    return most


def _extreme(rows: Rows, count: int) -> Lanes:
    """Return the number of largest magnitude, the first of equals, or 0."""
    extreme = like(row(rows, 0), 0.0)
    for i in range(count):
        value = row(rows, i)
        extreme = select(fabs(value) > fabs(extreme), value, extreme)
    return extreme


def set_affine(
    x: Rows,
    codes: Rows,
    fits: Rows,
    s: int,
    count: int,
    top: int,
    factor: Lanes,
    low: Lanes,
    bounded: bool,
) -> None:
    """Set the codes of group `s`; those that its search found where the factor came out as 0."""
    size = 256 // count
    for i in range(size):
        code = clamp(nearest((row(x, size * s + i) + low) / factor), 0.0, top)
        setrow(codes, size * s + i, code)
    lost = factor == 0.0
    if anyl(lost):
        inverse, start = row(fits, 2 * count + s), row(fits, 3 * count + s)
        zero = like(inverse, 0.0)
        for i in range(size):
            code = affine_code(inverse * (row(x, size * s + i) - start), top, bounded)
            code = select(inverse == 0.0, zero, code)
            setrow(codes, size * s + i, select(lost, code, row(codes, size * s + i)))


def _pack_fours(codes: Rows, out: Octets, at: int) -> None:
    for h in range(2):
        for i in range(32):
            byte = row(codes, 128 * h + i) + 4.0 * row(codes, 128 * h + i + 32)
            byte = byte + 16.0 * row(codes, 128 * h + i + 64)
            setbyte(out, at + 32 * h + i, byte + 64.0 * row(codes, 128 * h + i + 96))


encode_q2_k = encoder(Q2_K, q2_k)
encode_q3_k = encoder(Q3_K, q3_k)
encode_q4_k = encoder(Q4_K, q4_k)
encode_q5_k = encoder(Q5_K, q5_k)
encode_q6_k = encoder(Q6_K, q6_k)
