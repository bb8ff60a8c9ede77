"""How blocks of points of a grid are decoded on a device; see `weighbridge.kernels.ggml.iquants`.

Each function returns the values number `j` of the points number `s` of blocks `b`, all 8 of a
point, or all 4 in the types of 3 bits; `grid` has the points one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.kernels.device.words import as_half, byte, half, look, select, single, u16, u32
from weighbridge.kernels.ggml.iblocks import (
    IQ1_M,
    IQ1_S,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ3_S,
    IQ3_XXS,
)
from weighbridge.kernels.target import offsets

if TYPE_CHECKING:
    from weighbridge.kernels.device.words import Blocks, Single, Table, Whole

_1S_D, _1S_QS, _1S_QH = offsets(IQ1_S)
_1M_QS, _1M_QH, _1M_SCALES = offsets(IQ1_M)
_2XXS_D, _2XXS_QS = offsets(IQ2_XXS)
_2XS_D, _2XS_QS, _2XS_SCALES = offsets(IQ2_XS)
_2S_D, _2S_QS, _2S_SIGNS, _2S_QH, _2S_SCALES = offsets(IQ2_S)
_3XXS_D, _3XXS_QS, _3XXS_SIGNS = offsets(IQ3_XXS)
_3S_D, _3S_QS, _3S_QH, _3S_SIGNS, _3S_SCALES = offsets(IQ3_S)


def iq1_s(b: Blocks, grid: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (2 * scale + 1) * (grid + shift)``."""
    word = u16(b, _1S_QH + 2 * (s >> 2))
    index = byte(b, _1S_QS + s) | (((word >> 3 * (s & 3)) & 7) << 8)
    scale = single(((word >> 12) & 7) * 2 + 1) * half(b, _1S_D)
    return (look(grid, 8 * index + j) + select(word >= 32768, -0.125, 0.125)) * scale


def iq1_m(b: Blocks, grid: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (2 * scale + 1) * (grid + shift)``; ``d`` is in the words of the scales."""
    upper = byte(b, _1M_QH + (s >> 1)) >> 4 * (s & 1)
    index = byte(b, _1M_QS + s) | ((upper & 7) << 8)
    low = (u16(b, _1M_SCALES) >> 12) | ((u16(b, _1M_SCALES + 2) >> 8) & 0xF0)
    high = ((u16(b, _1M_SCALES + 4) >> 4) & 0xF00) | (u16(b, _1M_SCALES + 6) & 0xF000)
    code = (u16(b, _1M_SCALES + 2 * (s >> 3)) >> 3 * ((s >> 1) & 3)) & 7
    scale = single(code * 2 + 1) * as_half(low | high)
    return (look(grid, 8 * index + j) + select((upper & 8) > 0, -0.125, 0.125)) * scale


def iq2_xxs(b: Blocks, grid: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (scale + 1/2) / 4 * grid * sign``."""
    at = _2XXS_QS + 8 * (s >> 2)
    word = u32(b, at + 4)
    magnitude = look(grid, 8 * byte(b, at + (s & 3)) + j)
    scale = half(b, _2XXS_D) * (single((word >> 28) & 15) + 0.5) * 0.25
    return _with_sign(magnitude, _even((word >> 7 * (s & 3)) & 127), j) * scale


def iq2_xs(b: Blocks, grid: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (scale + 1/2) / 4 * grid * sign``."""
    word = u16(b, _2XS_QS + 2 * s)
    magnitude = look(grid, 8 * (word & 511) + j)
    code = (byte(b, _2XS_SCALES + (s >> 2)) >> 4 * ((s >> 1) & 1)) & 15
    scale = half(b, _2XS_D) * (single(code) + 0.5) * 0.25
    return _with_sign(magnitude, _even(word >> 9), j) * scale


def iq2_s(b: Blocks, grid: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (scale + 1/2) / 4 * grid * sign``."""
    upper = (byte(b, _2S_QH + (s >> 2)) >> 2 * (s & 3)) & 3
    magnitude = look(grid, 8 * (byte(b, _2S_QS + s) | (upper << 8)) + j)
    code = (byte(b, _2S_SCALES + (s >> 2)) >> 4 * ((s >> 1) & 1)) & 15
    scale = half(b, _2S_D) * (single(code) + 0.5) * 0.25
    return _with_sign(magnitude, byte(b, _2S_SIGNS + s), j) * scale


def iq3_xxs(b: Blocks, grid: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (scale + 1/2) / 2 * grid * sign``."""
    word = u32(b, _3XXS_SIGNS + 4 * (s >> 3))
    magnitude = look(grid, 4 * byte(b, _3XXS_QS + s) + j)
    scale = half(b, _3XXS_D) * (single((word >> 28) & 15) + 0.5) * 0.5
    signs = _even((word >> 7 * ((s >> 1) & 3)) & 127)
    return _with_sign(magnitude, signs, 4 * (s & 1) + j) * scale


def iq3_s(b: Blocks, grid: Table, s: Whole, j: Whole) -> Single:
    """Return ``d * (2 * scale + 1) * grid * sign``."""
    upper = (byte(b, _3S_QH + (s >> 3)) >> (s & 7)) & 1
    magnitude = look(grid, 4 * (byte(b, _3S_QS + s) | (upper << 8)) + j)
    code = (byte(b, _3S_SCALES + (s >> 4)) >> 4 * ((s >> 3) & 1)) & 15
    scale = half(b, _3S_D) * single(code * 2 + 1)
    return _with_sign(magnitude, byte(b, _3S_SIGNS + (s >> 1)), 4 * (s & 1) + j) * scale


def _even(signs: Whole) -> Whole:
    """Return 7 bits and an eighth that makes the number of minus signs even."""
    odd = signs ^ (signs >> 4)
    odd = odd ^ (odd >> 2)
    odd = odd ^ (odd >> 1)
    return signs | ((odd & 1) << 7)


def _with_sign(magnitude: Single, signs: Whole, at: Whole) -> Single:
    return select(((signs >> at) & 1) > 0, -magnitude, magnitude)
