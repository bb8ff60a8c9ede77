"""How blocks with plain codes are decoded on a device; `weighbridge.kernels.ggml` has the formulas.

Each function returns the values number `j` of the runs number `s` of blocks `b`; how long the runs
are of which it is told is in `weighbridge.kernels.device.decoders`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.kernels.device.words import (
    as_single,
    byte,
    half,
    look,
    select,
    signed,
    single,
    u16,
    u32,
)
from weighbridge.kernels.ggml.iblocks import IQ4_NL, IQ4_XS
from weighbridge.kernels.ggml.kblocks import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K
from weighbridge.kernels.ggml.lblocks import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1
from weighbridge.kernels.ggml.lowbit import Q1_0, Q2_0
from weighbridge.kernels.ggml.mblocks import MXFP4, NVFP4
from weighbridge.kernels.ggml.ternary import TQ1_0, TQ2_0
from weighbridge.kernels.target import offsets

if TYPE_CHECKING:
    from weighbridge.kernels.device.words import Blocks, Single, Table, Whole

_4_0_D, _4_0_QS = offsets(Q4_0)
_4_1_D, _4_1_M, _4_1_QS = offsets(Q4_1)
_5_0_D, _5_0_QH, _5_0_QS = offsets(Q5_0)
_5_1_D, _5_1_M, _5_1_QH, _5_1_QS = offsets(Q5_1)
_8_0_D, _8_0_QS = offsets(Q8_0)
_8_1_D, _, _8_1_QS = offsets(Q8_1)
_1_0_D, _1_0_QS = offsets(Q1_0)
_2_0_D, _2_0_QS = offsets(Q2_0)
_2K_SCALES, _2K_QS, _2K_D, _2K_DMIN = offsets(Q2_K)
_3K_HMASK, _3K_QS, _3K_SCALES, _3K_D = offsets(Q3_K)
_4K_D, _4K_DMIN, _4K_SCALES, _4K_QS = offsets(Q4_K)
_5K_D, _5K_DMIN, _5K_SCALES, _5K_QH, _5K_QS = offsets(Q5_K)
_6K_QL, _6K_QH, _6K_SCALES, _6K_D = offsets(Q6_K)
_8K_D, _8K_QS, _ = offsets(Q8_K)
_T1_QS, _T1_QH, _T1_D = offsets(TQ1_0)
_T2_QS, _T2_D = offsets(TQ2_0)
_MX_E, _MX_QS = offsets(MXFP4)
_NV_D, _NV_QS = offsets(NVFP4)
_NL_D, _NL_QS = offsets(IQ4_NL)
_XS_D, _XS_HIGH, _XS_LOW, _XS_QS = offsets(IQ4_XS)


def q4_0(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (q - 8)``."""
    return (single((byte(b, _4_0_QS + j) >> 4 * s) & 15) - 8.0) * half(b, _4_0_D)


def q4_1(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * q + m``."""
    return single((byte(b, _4_1_QS + j) >> 4 * s) & 15) * half(b, _4_1_D) + half(b, _4_1_M)


def q5_0(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (q - 16)``."""
    return (_five_bits(b, _5_0_QS, _5_0_QH, s, j) - 16.0) * half(b, _5_0_D)


def q5_1(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * q + m``."""
    return _five_bits(b, _5_1_QS, _5_1_QH, s, j) * half(b, _5_1_D) + half(b, _5_1_M)


def _five_bits(b: Blocks, qs: int, qh: int, s: Whole, j: Whole) -> Single:
    fifth = (byte(b, qh + 2 * s + (j >> 3)) >> (j & 7)) & 1
    return single(((byte(b, qs + j) >> 4 * s) & 15) | (fifth << 4))


def q8_0(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * q``."""
    return single(signed(b, _8_0_QS + 16 * s + j)) * half(b, _8_0_D)


def q8_1(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * q``."""
    return single(signed(b, _8_1_QS + 16 * s + j)) * half(b, _8_1_D)


def q1_0(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d`` for a one, ``-d`` for a zero."""
    return (single((byte(b, _1_0_QS + s) >> j) & 1) * 2.0 - 1.0) * half(b, _1_0_D)


def q2_0(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (q - 1)``."""
    return (single((byte(b, _2_0_QS + s) >> 2 * j) & 3) - 1.0) * half(b, _2_0_D)


def q2_k(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * scale * q - dmin * minimum``."""
    scales = byte(b, _2K_SCALES + s)
    code = (byte(b, _2K_QS + 32 * (s >> 3) + 16 * (s & 1) + j) >> 2 * ((s >> 1) & 3)) & 3
    scale = single(scales & 15) * half(b, _2K_D)
    return single(code) * scale - single(scales >> 4) * half(b, _2K_DMIN)


def q3_k(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (scale - 32) * (q - 4)``."""
    low = (byte(b, _3K_SCALES + (s & 7)) >> 4 * (s >> 3)) & 15
    high = (byte(b, _3K_SCALES + 8 + (s & 3)) >> 2 * (s >> 2)) & 3
    scale = (single(low | (high << 4)) - 32.0) * half(b, _3K_D)
    code = (byte(b, _3K_QS + 32 * (s >> 3) + 16 * (s & 1) + j) >> 2 * ((s >> 1) & 3)) & 3
    third = (byte(b, _3K_HMASK + 16 * (s & 1) + j) >> (s >> 1)) & 1
    return (single(code | (third << 2)) - 4.0) * scale


def q4_k(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * scale * q - dmin * minimum``."""
    scale = single(_six_bit_scale(b, _4K_SCALES, s)) * half(b, _4K_D)
    low = single(_six_bit_minimum(b, _4K_SCALES, s)) * half(b, _4K_DMIN)
    code = (byte(b, _4K_QS + 32 * (s >> 1) + j) >> 4 * (s & 1)) & 15
    return single(code) * scale - low


def q5_k(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * scale * q - dmin * minimum``."""
    scale = single(_six_bit_scale(b, _5K_SCALES, s)) * half(b, _5K_D)
    low = single(_six_bit_minimum(b, _5K_SCALES, s)) * half(b, _5K_DMIN)
    code = (byte(b, _5K_QS + 32 * (s >> 1) + j) >> 4 * (s & 1)) & 15
    fifth = (byte(b, _5K_QH + j) >> s) & 1
    return single(code | (fifth << 4)) * scale - low


def _six_bit_scale(b: Blocks, at: int, s: Whole) -> Whole:
    first = byte(b, at + (s & 3))
    return select(s < 4, first & 63, (byte(b, at + 8 + (s & 3)) & 15) | ((first >> 6) << 4))


def _six_bit_minimum(b: Blocks, at: int, s: Whole) -> Whole:
    second = byte(b, at + 4 + (s & 3))
    return select(s < 4, second & 63, (byte(b, at + 8 + (s & 3)) >> 4) | ((second >> 6) << 4))


def q6_k(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * scale * (q - 32)``."""
    scale = single(signed(b, _6K_SCALES + s)) * half(b, _6K_D)
    low = (byte(b, _6K_QL + 64 * (s >> 3) + 16 * (s & 3) + j) >> 4 * ((s >> 2) & 1)) & 15
    high = (byte(b, _6K_QH + 32 * (s >> 3) + 16 * (s & 1) + j) >> 2 * ((s >> 1) & 3)) & 3
    return (single(low | (high << 4)) - 32.0) * scale


def q8_k(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * q``."""
    return single(signed(b, _8K_QS + 32 * s + j)) * as_single(u32(b, _8K_D))


def tq1_0(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (digit - 1)``: each byte times a power of 3, then what overflows it times 3."""
    i = 32 * s + j
    fifths = select(i < 160, i >> 5, (i - 160) >> 4)
    digit = select(i < 240, fifths, (i - 240) >> 2)
    at = select(i < 160, _T1_QS + (i & 31), _T1_QS + 32 + (i & 15))
    packed = byte(b, select(i < 240, at, _T1_QH + (i & 3)))
    power = select(digit == 0, 1, select(digit == 1, 3, select(digit == 2, 9, 27)))
    power = select(digit == 4, 81, power)
    return (single((((packed * power) & 255) * 3) >> 8) - 1.0) * half(b, _T1_D)


def tq2_0(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (q - 1)``."""
    code = (byte(b, _T2_QS + 32 * (s >> 2) + j) >> 2 * (s & 3)) & 3
    return (single(code) - 1.0) * half(b, _T2_D)


def mxfp4(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``2**(e - 127)`` times the code's value; half of the power may be a denormal."""
    e = byte(b, _MX_E)
    halved = as_single(select(e < 2, 0x00200000 << (e & 1), (e - 1) << 23))
    return look(table, (byte(b, _MX_QS + j) >> 4 * s) & 15) * halved


def nvfp4(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return a scale for each 16 values, E4M3 without sign, times the code's value."""
    scale = byte(b, _NV_D + (s >> 1))
    exponent = (scale >> 3) & 15
    normal = as_single(((exponent + 119) << 23) | ((scale & 7) << 20))
    halved = select(exponent == 0, single(scale & 7) * 0.0009765625, normal)
    halved = select(scale == 127, 0.0, halved)
    return look(table, (byte(b, _NV_QS + 8 * (s >> 1) + j) >> 4 * (s & 1)) & 15) * halved


def iq4_nl(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d`` times a level."""
    return look(table, (byte(b, _NL_QS + j) >> 4 * s) & 15) * half(b, _NL_D)


def iq4_xs(b: Blocks, table: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (scale - 32)`` times a level."""
    low = (byte(b, _XS_LOW + (s >> 2)) >> 4 * ((s >> 1) & 1)) & 15
    high = (u16(b, _XS_HIGH) >> 2 * (s >> 1)) & 3
    scale = half(b, _XS_D) * (single(low | (high << 4)) - 32.0)
    return look(table, (byte(b, _XS_QS + 16 * (s >> 1) + j) >> 4 * (s & 1)) & 15) * scale
