"""How the blocks of ggml's types are decoded in compiled code: 16 values at a time.

Each function sets the values of one block: `b` has its bytes from `at` on, `y` receives its values
from `to` on. The operations are those of the NumPy decoders, which say what the bytes mean, and
give the same bits.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.kernels.ggml import iblocks, mblocks, microscaling
from weighbridge.kernels.ggml.grids import grid
from weighbridge.kernels.simd_codes import (
    fields,
    flip,
    four_points,
    half,
    half_of,
    halves,
    nibbles,
    octets,
    pick,
    put,
    put_bfloat,
    put_half,
    signed,
    single,
    singles,
    store,
    store_bfloat,
    store_half,
    two_points,
    u16,
    u32,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LEVELS = iblocks.LEVELS.astype(np.int8)
_DOUBLED = mblocks.DOUBLED.astype(np.int8)
_POWERS = microscaling.halved_powers()
_UE4M3 = microscaling.halved_ue4m3()
_IQ1, _IQ2_XXS, _IQ2_XS, _IQ2_S, _IQ3_XXS, _IQ3_S = (
    grid(name).astype(np.int8).reshape(-1)
    for name in ("iq1", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s")
)
_SHIFT: Any = np.float32(0.125)
_HALF = np.float32(0.5)
_QUARTER = np.float32(0.25)


def q4_0(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `lblocks.Q4_0`."""
    d = half(b, at)
    packed = octets(b, at + 2)
    store(y, to, (singles(packed & 15) - 8.0) * d)
    store(y, to + 16, (singles(packed >> 4) - 8.0) * d)


def q4_1(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `lblocks.Q4_1`."""
    d, low = half(b, at), half(b, at + 2)
    packed = octets(b, at + 4)
    store(y, to, singles(packed & 15) * d + low)
    store(y, to + 16, singles(packed >> 4) * d + low)


def q5_0(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `lblocks.Q5_0`."""
    d, high = half(b, at), u32(b, at + 2)
    packed = octets(b, at + 6)
    store(y, to, (singles(packed & 15 | fields(high, 1) << 4) - 16.0) * d)
    store(y, to + 16, (singles(packed >> 4 | fields(high >> 16, 1) << 4) - 16.0) * d)


def q5_1(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `lblocks.Q5_1`."""
    d, low, high = half(b, at), half(b, at + 2), u32(b, at + 4)
    packed = octets(b, at + 8)
    store(y, to, singles(packed & 15 | fields(high, 1) << 4) * d + low)
    store(y, to + 16, singles(packed >> 4 | fields(high >> 16, 1) << 4) * d + low)


def q8_0(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `lblocks.Q8_0`."""
    d = half(b, at)
    store(y, to, singles(signed(b, at + 2)) * d)
    store(y, to + 16, singles(signed(b, at + 18)) * d)


def q8_1(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `lblocks.Q8_1`."""
    d = half(b, at)
    store(y, to, singles(signed(b, at + 4)) * d)
    store(y, to + 16, singles(signed(b, at + 20)) * d)


def q2_k(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `kblocks.Q2_K`."""
    d, low = half(b, at + 80), half(b, at + 82)
    for i in range(16):
        packed = int(b[at + i])
        scale, minimum = np.float32(packed & 15) * d, np.float32(packed >> 4) * low
        codes = octets(b, at + 16 + 32 * (i >> 3) + 16 * (i & 1)) >> (2 * (i >> 1 & 3)) & 3
        store(y, to + 16 * i, singles(codes) * scale - minimum)


def q3_k(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `kblocks.Q3_K`."""
    d = half(b, at + 108)
    for i in range(16):
        scale = int(b[at + 96 + (i & 7)]) >> (4 * (i >> 3)) & 15
        scale |= (int(b[at + 104 + (i & 3)]) >> (2 * (i >> 2)) & 3) << 4
        factor = np.float32(scale - 32) * d
        codes = octets(b, at + 32 + 32 * (i >> 3) + 16 * (i & 1)) >> (2 * (i >> 1 & 3)) & 3
        codes = codes | (octets(b, at + 16 * (i & 1)) >> (i >> 1) & 1) << 2
        store(y, to + 16 * i, (singles(codes) - 4.0) * factor)


def q4_k(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `kblocks.Q4_K`."""
    d, low = half(b, at), half(b, at + 2)
    for s in range(8):
        scale, minimum = _six_bits(b, at + 4, s)
        scale, minimum = scale * d, minimum * low
        for j in range(2):
            codes = octets(b, at + 16 + 32 * (s >> 1) + 16 * j) >> (4 * (s & 1)) & 15
            store(y, to + 32 * s + 16 * j, singles(codes) * scale - minimum)


def q5_k(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `kblocks.Q5_K`."""
    d, low = half(b, at), half(b, at + 2)
    for s in range(8):
        scale, minimum = _six_bits(b, at + 4, s)
        scale, minimum = scale * d, minimum * low
        for j in range(2):
            codes = octets(b, at + 48 + 32 * (s >> 1) + 16 * j) >> (4 * (s & 1)) & 15
            codes = codes | (octets(b, at + 16 + 16 * j) >> s & 1) << 4
            store(y, to + 32 * s + 16 * j, singles(codes) * scale - minimum)


def _six_bits(b: Any, at: int, s: int) -> Any:
    """Return scale and minimum number `s` of the eight in 12 bytes."""
    if s < 4:
        return np.float32(b[at + s] & 63), np.float32(b[at + 4 + s] & 63)
    rest = int(b[at + 4 + s])
    scale = rest & 15 | int(b[at + s - 4]) >> 6 << 4
    minimum = rest >> 4 | int(b[at + s]) >> 6 << 4
    return np.float32(scale), np.float32(minimum)


def q6_k(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `kblocks.Q6_K`."""
    d = half(b, at + 208)
    for i in range(16):
        scale = np.float32(np.int8(b[at + 192 + i])) * d
        part, plane, side = i >> 3, i >> 1 & 3, i & 1
        codes = octets(b, at + 64 * part + 32 * (plane & 1) + 16 * side) >> (4 * (plane >> 1)) & 15
        codes = codes | (octets(b, at + 128 + 32 * part + 16 * side) >> (2 * plane) & 3) << 4
        store(y, to + 16 * i, (singles(codes) - 32.0) * scale)


def q8_k(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `kblocks.Q8_K`."""
    d = single(b, at)
    for i in range(16):
        store(y, to + 16 * i, singles(signed(b, at + 4 + 16 * i)) * d)


def iq1_s(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ1_S`."""
    d = half(b, at)
    for s in range(8):
        bits = u16(b, at + 34 + 2 * s)
        shift = -_SHIFT if bits & 0x8000 else _SHIFT
        scale = np.float32((bits >> 12 & 7) * 2 + 1) * d
        for j in range(2):
            i = at + 2 + 4 * s + 2 * j
            first = int(b[i]) | (bits >> (6 * j) & 7) << 8
            second = int(b[i + 1]) | (bits >> (6 * j + 3) & 7) << 8
            points = singles(two_points(_IQ1, first, second))
            store(y, to + 32 * s + 16 * j, (points + shift) * scale)


def iq1_m(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ1_M`."""
    d_bits = 0
    for i in range(4):
        d_bits |= (u16(b, at + 48 + 2 * i) >> 12) << (4 * i)
    d = half_of(d_bits)
    for i in range(16):
        scale = np.float32((u16(b, at + 48 + 2 * (i >> 2)) >> (3 * (i & 3)) & 7) * 2 + 1) * d
        high = int(b[at + 32 + i])
        first = int(b[at + 2 * i]) | (high & 7) << 8
        second = int(b[at + 2 * i + 1]) | (high >> 4 & 7) << 8
        shift = halves(-_SHIFT if high & 8 else _SHIFT, -_SHIFT if high & 128 else _SHIFT)
        store(y, to + 16 * i, (singles(two_points(_IQ1, first, second)) + shift) * scale)


def iq2_xxs(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ2_XXS`."""
    d = half(b, at)
    for s in range(8):
        i = at + 2 + 8 * s
        bits = u32(b, i + 4)
        scale = d * (np.float32(bits >> 28) + _HALF) * _QUARTER
        for j in range(2):
            points = singles(two_points(_IQ2_XXS, int(b[i + 2 * j]), int(b[i + 2 * j + 1])))
            signs = _even(bits >> (14 * j)) | _even(bits >> (14 * j + 7)) << 8
            store(y, to + 32 * s + 16 * j, flip(points, signs) * scale)


def _even(bits: int) -> int:
    """Return the lowest 7 bits and an eighth that makes the number of ones even."""
    bits &= 127
    odd = bits ^ bits >> 4
    odd ^= odd >> 2
    return bits | ((odd ^ odd >> 1) & 1) << 7


def iq2_xs(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ2_XS`."""
    d = half(b, at)
    for i in range(16):
        scale = int(b[at + 66 + (i >> 1)]) >> (4 * (i & 1)) & 15
        first, second = u16(b, at + 2 + 4 * i), u16(b, at + 4 + 4 * i)
        points = singles(two_points(_IQ2_XS, first & 511, second & 511))
        signs = _even(first >> 9) | _even(second >> 9) << 8
        store(y, to + 16 * i, flip(points, signs) * (d * (np.float32(scale) + _HALF) * _QUARTER))


def iq2_s(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ2_S`."""
    d = half(b, at)
    for i in range(16):
        scale = int(b[at + 74 + (i >> 1)]) >> (4 * (i & 1)) & 15
        high = int(b[at + 66 + (i >> 1)]) >> (4 * (i & 1))
        first = int(b[at + 2 + 2 * i]) | (high & 3) << 8
        second = int(b[at + 3 + 2 * i]) | (high >> 2 & 3) << 8
        points = flip(singles(two_points(_IQ2_S, first, second)), u16(b, at + 34 + 2 * i))
        store(y, to + 16 * i, points * (d * (np.float32(scale) + _HALF) * _QUARTER))


def iq3_xxs(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ3_XXS`."""
    d = half(b, at)
    for s in range(8):
        bits = u32(b, at + 66 + 4 * s)
        scale = d * (np.float32(bits >> 28) + _HALF) * _HALF
        for j in range(2):
            i = at + 2 + 8 * s + 4 * j
            points = four_points(_IQ3_XXS, int(b[i]), int(b[i + 1]), int(b[i + 2]), int(b[i + 3]))
            signs = _even(bits >> (14 * j)) | _even(bits >> (14 * j + 7)) << 8
            store(y, to + 32 * s + 16 * j, flip(singles(points), signs) * scale)


def iq3_s(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ3_S`."""
    d = half(b, at)
    for i in range(16):
        scale = int(b[at + 106 + (i >> 2)]) >> (2 * (i & 2)) & 15
        high = int(b[at + 66 + (i >> 1)]) >> (4 * (i & 1))
        q = at + 2 + 4 * i
        points = four_points(
            _IQ3_S,
            int(b[q]) | (high & 1) << 8,
            int(b[q + 1]) | (high >> 1 & 1) << 8,
            int(b[q + 2]) | (high >> 2 & 1) << 8,
            int(b[q + 3]) | (high >> 3 & 1) << 8,
        )
        values = flip(singles(points), u16(b, at + 74 + 2 * i))
        store(y, to + 16 * i, values * (d * np.float32(scale * 2 + 1)))


def iq4_nl(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ4_NL`."""
    d = half(b, at)
    packed = octets(b, at + 2)
    store(y, to, singles(pick(_LEVELS, packed & 15)) * d)
    store(y, to + 16, singles(pick(_LEVELS, packed >> 4)) * d)


def iq4_xs(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `iblocks.IQ4_XS`."""
    d, high = half(b, at), u16(b, at + 2)
    for s in range(8):
        scale = int(b[at + 4 + (s >> 1)]) >> (4 * (s & 1)) & 15 | (high >> (2 * s) & 3) << 4
        factor = d * np.float32(scale - 32)
        packed = octets(b, at + 8 + 16 * s)
        store(y, to + 32 * s, singles(pick(_LEVELS, packed & 15)) * factor)
        store(y, to + 32 * s + 16, singles(pick(_LEVELS, packed >> 4)) * factor)


def mxfp4(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `mblocks.MXFP4`."""
    scale = _POWERS[b[at]]
    packed = octets(b, at + 1)
    store(y, to, singles(pick(_DOUBLED, packed & 15)) * scale)
    store(y, to + 16, singles(pick(_DOUBLED, packed >> 4)) * scale)


def nvfp4(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `mblocks.NVFP4`."""
    for s in range(4):
        codes = nibbles(b, at + 4 + 8 * s)
        store(y, to + 16 * s, singles(pick(_DOUBLED, codes)) * _UE4M3[b[at + s]])


def tq1_0(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `ternary.TQ1_0`."""
    d = half(b, at + 52)
    power = 1
    for digit in range(5):
        for run in range(3):
            fraction = octets(b, at + 16 * run) * power & 255
            place = 160 + 16 * digit if run == 2 else 32 * digit + 16 * run
            store(y, to + place, (singles(fraction * 3 >> 8) - 1.0) * d)
        if digit < 4:
            for j in range(4):
                fraction = int(b[at + 48 + j]) * power & 255
                put(
                    y, to + 240 + 4 * digit + j, (np.float32(fraction * 3 >> 8) - np.float32(1)) * d
                )
        power *= 3


def tq2_0(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `ternary.TQ2_0`."""
    d = half(b, at + 64)
    for i in range(16):
        codes = octets(b, at + 32 * (i >> 3) + 16 * (i & 1)) >> (2 * (i >> 1 & 3)) & 3
        store(y, to + 16 * i, (singles(codes) - 1.0) * d)


def q1_0(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `lowbit.Q1_0`."""
    d = half(b, at)
    for i in range(8):
        codes = singles(fields(u16(b, at + 2 + 2 * i), 1))
        store(y, to + 16 * i, (codes * 2.0 - 1.0) * d)


def q2_0(b: Any, at: int, y: Any, to: int) -> None:
    """Decode a block of `lowbit.Q2_0`."""
    d = half(b, at)
    for i in range(4):
        store(y, to + 16 * i, (singles(fields(u32(b, at + 2 + 4 * i), 2)) - 1.0) * d)


BODIES: Mapping[str, Callable[[Any, int, Any, int], None]] = {
    body.__name__: body
    for body in (
        q4_0,
        q4_1,
        q5_0,
        q5_1,
        q8_0,
        q8_1,
        q2_k,
        q3_k,
        q4_k,
        q5_k,
        q6_k,
        q8_k,
        iq1_s,
        iq1_m,
        iq2_xxs,
        iq2_xs,
        iq2_s,
        iq3_xxs,
        iq3_s,
        iq4_nl,
        iq4_xs,
        mxfp4,
        nvfp4,
        tq1_0,
        tq2_0,
        q1_0,
        q2_0,
    )
}
"""The decoders by the names of their encodings."""

_SETTING: Mapping[str, Mapping[str, Any]] = {
    "f32": {},
    "f16": {store.__name__: store_half, put.__name__: put_half},
    "bf16": {store.__name__: store_bfloat, put.__name__: put_bfloat},
}


def rounding(name: str, to: str) -> Any:
    """Return the body of an encoding's decoder that sets values of another type than float32.

    It is the same function, in which the words that set values mean others: what is rounded is in
    a register still.

    Args:
        name: of the encoding.
        to: ``f32``, ``f16`` or ``bf16``; of the last two `y` has the bits, as uint16.
    """
    body: Any = BODIES[name]
    return FunctionType(body.__code__, {**body.__globals__, **_SETTING[to]}, f"{name}_{to}")
