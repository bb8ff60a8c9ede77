"""ggml's blocks as small codes and their scales: what a format of codes and scales is made from.

Every number of a block is ``scale * (code - zero) - least``: a scale, and in some types a minimum,
for each group of values; codes from nothing to a largest one. That holds for the types with tables
as well, since the entries of these are whole numbers, or eighths. The modules of the decoders have
the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.kernels.codec import Blocks
from weighbridge.kernels.ggml import codes, iquants, microscaling
from weighbridge.kernels.ggml.bits import Bytes, Singles, sequence, singles
from weighbridge.kernels.ggml.iblocks import (
    IQ1_M,
    IQ1_S,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ3_S,
    IQ3_XXS,
    IQ4_NL,
    IQ4_XS,
)
from weighbridge.kernels.ggml.kblocks import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K
from weighbridge.kernels.ggml.lblocks import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from weighbridge.kernels.ggml.lowbit import Q1_0, Q2_0
from weighbridge.kernels.ggml.mblocks import MXFP4, NVFP4
from weighbridge.kernels.ggml.ternary import TQ1_0, TQ2_0, ternary_digits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Blocked


Maker = Callable[[Blocks], Singles]


@dataclass(frozen=True)
class Affine:
    """How the numbers of a type follow from codes.

    The functions take blocks of shape ``(n,)``.

    Attributes:
        encoding: the type.
        group: how many values share a scale.
        top: one more than the largest code.
        zero: the code of the number 0, but for the minimum.
        codes: returns the codes, of shape ``(n, grain)``.
        scales: returns the scales, of shape ``(n, grain / group)``.
        least: returns the minima, in the shape of the scales; None where there are none.

    Example:
        >>> block = np.array([(0.5, [0xF0] + [0x88] * 15)], Q4_0.dtype)
        >>> q4_0 = AFFINE["q4_0"]
        >>> q4_0.scales(block).tolist(), q4_0.codes(block)[0, [0, 16, 17]].tolist()
        ([[0.5]], [0, 15, 8])
    """

    encoding: Blocked
    group: int
    top: int
    zero: int
    codes: Callable[[Blocks], Bytes]
    scales: Callable[[Blocks], Singles]
    least: Callable[[Blocks], Singles] | None = None


def _codes(points: Maker, zero: float, times: float = 1) -> Callable[[Blocks], Bytes]:
    """Return what makes codes of numbers: multiplied, and `zero` added, they are whole."""

    def made(blocks: Blocks) -> Bytes:
        values = points(blocks)
        values *= np.float32(times)
        values += np.float32(zero)
        return values.astype(np.uint8)

    return made


def _times(factor: float, scales: Maker) -> Maker:
    """Return what makes scales of others."""
    return lambda blocks: scales(blocks) * np.float32(factor)


def _in_whole_steps(
    encoding: Blocked, group: int, low: int, high: int, points: Maker, scales: Maker
) -> Affine:
    """Return a type whose numbers are whole, from `low` to `high`, times their scale."""
    return Affine(encoding, group, high - low + 1, -low, _codes(points, -low), scales)


def _in_odd_steps(
    encoding: Blocked, group: int, most: int, unit: float, points: Maker, scales: Maker
) -> Affine:
    """Return a type whose numbers are odd times a unit, up to `most` times, times their scale.

    Of ``w`` times the unit the code is ``(w + most) / 2``: half as many codes as whole steps need.
    """
    codes = _codes(points, most / 2, 0.5 / unit)
    least = _times(most * unit, scales)
    return Affine(encoding, group, most + 1, 0, codes, _times(2 * unit, scales), least)


def _d(blocks: Blocks) -> Singles:
    return singles(blocks["d"])


def _d_twice(blocks: Blocks) -> Singles:
    """Return the scale of 256 values for each half of them."""
    return _d(blocks).repeat(2, axis=1)


def _minus_m(blocks: Blocks) -> Singles:
    return -singles(blocks["m"])


def _signs(blocks: Blocks) -> Bytes:
    """Return 0 for -d and 2 for d."""
    return sequence(blocks["qs"], 1) << np.uint8(1)


def _in_order(blocks: Blocks) -> Bytes:
    return sequence(blocks["qs"], 2)


AFFINE: Mapping[str, Affine] = {
    type.encoding.name: type
    for type in (
        Affine(Q1_0, 128, 3, 1, _signs, _d),
        Affine(Q2_0, 64, 4, 1, _in_order, _d),
        Affine(Q4_0, 32, 16, 8, codes.nibbles, _d),
        Affine(Q4_1, 32, 16, 0, codes.nibbles, _d, _minus_m),
        Affine(Q5_0, 32, 32, 16, codes.five_bits, _d),
        Affine(Q5_1, 32, 32, 0, codes.five_bits, _d, _minus_m),
        Affine(Q8_0, 32, 256, 128, codes.signed, _d),
        Affine(Q2_K, 16, 4, 0, codes.q2_k, codes.four_bit_scales, codes.four_bit_minima),
        Affine(Q3_K, 16, 8, 4, codes.q3_k, codes.q3_k_scales),
        Affine(Q4_K, 32, 16, 0, codes.q4_k, codes.six_bit_scales, codes.six_bit_minima),
        Affine(Q5_K, 32, 32, 0, codes.q5_k, codes.six_bit_scales, codes.six_bit_minima),
        Affine(Q6_K, 16, 64, 32, codes.q6_k, codes.q6_k_scales),
        Affine(TQ1_0, 128, 3, 1, ternary_digits, _d_twice),
        Affine(TQ2_0, 128, 4, 1, codes.q2_k, _d_twice),
        _in_odd_steps(IQ1_S, 32, 9, 1 / 8, iquants.iq1_s_points, iquants.iq1_s_scales),
        _in_odd_steps(IQ1_M, 16, 9, 1 / 8, iquants.iq1_m_points, iquants.iq1_m_scales),
        _in_whole_steps(IQ2_XXS, 32, -43, 43, iquants.iq2_xxs_points, iquants.iq2_xxs_scales),
        _in_whole_steps(IQ2_XS, 16, -43, 43, iquants.iq2_xs_points, iquants.iq2_xs_scales),
        _in_whole_steps(IQ2_S, 16, -43, 43, iquants.iq2_s_points, iquants.iq2_s_scales),
        _in_whole_steps(IQ3_XXS, 32, -62, 62, iquants.iq3_xxs_points, iquants.iq3_xxs_scales),
        _in_odd_steps(IQ3_S, 32, 15, 1, iquants.iq3_s_points, iquants.iq3_s_scales),
        _in_whole_steps(IQ4_NL, 32, -127, 113, iquants.iq4_nl_points, iquants.iq4_nl_scales),
        _in_whole_steps(IQ4_XS, 32, -127, 113, iquants.iq4_xs_points, iquants.iq4_xs_scales),
        _in_whole_steps(MXFP4, 32, -12, 12, microscaling.mxfp4_doubled, microscaling.mxfp4_halved),
        _in_whole_steps(NVFP4, 16, -12, 12, microscaling.nvfp4_doubled, microscaling.nvfp4_halved),
    )
}
"""The types by name."""
