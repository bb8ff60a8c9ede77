"""ggml's IQ types: groups of magnitudes from a grid, with signs and scales beside them.

How they are decoded. A block (see `iblocks`) has 256 values, but for IQ4_NL's 32. The grids are in
`grids` and are unpacked when a first block is decoded; how blocks are encoded is in
`iencoders` and `iq4encoders`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.kernels.codec import Blocks, Codec, Values
from weighbridge.kernels.ggml.bits import (
    Bytes,
    Singles,
    by_groups,
    look_up,
    planes,
    sequence,
    singles,
)
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
    LEVELS,
)
from weighbridge.kernels.ggml.iencoders import (
    encode_iq2_s,
    encode_iq3_s,
    encode_iq3_xxs,
    encode_weighted_iq2_s,
    encode_weighted_iq3_s,
    encode_weighted_iq3_xxs,
)
from weighbridge.kernels.ggml.iq1encoders import (
    encode_iq1_m,
    encode_weighted_iq1_m,
    encode_weighted_iq1_s,
)
from weighbridge.kernels.ggml.iq2encoders import encode_weighted_iq2_xs, encode_weighted_iq2_xxs
from weighbridge.kernels.ggml.iq4encoders import (
    encode_iq4_nl,
    encode_iq4_xs,
    encode_weighted_iq4_nl,
    encode_weighted_iq4_xs,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHIFT = np.float32(0.125)
"""How far the IQ1 types shift a group of values up or down (``IQ1S_DELTA``)."""


def iq1_s_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ1_S but for their scales."""
    words = blocks["qh"]
    index = blocks["qs"] | _fields(words, 3, 4).reshape(-1, 32) << 8
    values = _points("iq1", index).reshape(-1, 8, 32)
    values += np.where(words & 0x8000, -_SHIFT, _SHIFT)[:, :, None]
    return values.reshape(-1, 256)


def iq1_s_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ1_S."""
    scales = ((blocks["qh"] >> 12 & 7) * 2 + 1).astype(np.float32)
    return scales * singles(blocks["d"])


@np.errstate(all="ignore")
def decode_iq1_s(blocks: Blocks) -> Values:
    """Return ``d * (2 * scale + 1) * (grid + shift)``, the shift 1/8 or -1/8.

    Each of the 8 words ``qh`` serves 32 values: four times 3 upper bits of an index, 3 bits of
    scale, and the sign of the shift.

    Example:
        >>> block = np.zeros(1, IQ1_S.dtype)
        >>> block["d"], block["qh"][0, 0] = 1, 0x9000
        >>> decode_iq1_s(block)[0, [0, 32]].tolist()
        [-3.375, -0.875]
    """
    return by_groups(iq1_s_points(blocks), iq1_s_scales(blocks))


def iq1_m_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ1_M but for their scales."""
    halves = sequence(blocks["qh"], 4)
    index = blocks["qs"] | (halves & 7).astype(np.uint16) << 8
    values = _points("iq1", index)
    values += np.where(halves & 8, -_SHIFT, _SHIFT)[:, :, None]
    return values.reshape(-1, 256)


def iq1_m_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ1_M."""
    words = blocks["scales"]
    d = np.bitwise_or.reduce((words & 0xF000) >> np.array([12, 8, 4, 0], np.uint16), axis=1)
    scales = (_fields(words, 3, 4) * 2 + 1).astype(np.float32).reshape(-1, 16)
    return scales * singles(d.view(np.float16))


@np.errstate(all="ignore")
def decode_iq1_m(blocks: Blocks) -> Values:
    """Return ``d * (2 * scale + 1) * (grid + shift)``, with a scale for each 16 values.

    The upper four bits of the words ``scales`` are, joined, the float16 ``d``; the others are four
    scales each. Each half of a byte of ``qh`` has 3 upper bits of an index and the sign of a shift.

    Example:
        >>> block = np.zeros(1, IQ1_M.dtype)
        >>> block["scales"][0], block["qh"][0, 0] = [1, 0, 0xC000, 0x3000], 8
        >>> decode_iq1_m(block)[0, [0, 8, 16]].tolist()
        [-3.375, -2.625, -0.875]
    """
    return by_groups(iq1_m_points(blocks), iq1_m_scales(blocks))


def iq2_xxs_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ2_XXS but for their scales."""
    index = np.ascontiguousarray(blocks["qs"][..., 0]).view(np.uint8)
    values = _points("iq2_xxs", index)
    values *= look_up(_even_signs(), _fields(blocks["qs"][..., 1], 7, 4).reshape(-1, 32))
    return values.reshape(-1, 256)


def iq2_xxs_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ2_XXS."""
    return _quarters(blocks["qs"][..., 1] >> 28, blocks["d"])


@np.errstate(all="ignore")
def decode_iq2_xxs(blocks: Blocks) -> Values:
    """Return ``d * (scale + 1/2) / 4 * grid * sign``.

    For each 32 values: four indices of 8 bits; four times 7 bits of signs and 4 bits of scale.

    Example:
        >>> block = np.zeros(1, IQ2_XXS.dtype)
        >>> block["d"], block["qs"][0, 0] = 1, (1, 0x10000001)
        >>> decode_iq2_xxs(block)[0, [0, 1, 7, 32]].tolist()
        [-16.125, 3.0, -3.0, 1.0]
    """
    return by_groups(iq2_xxs_points(blocks), iq2_xxs_scales(blocks))


def iq2_xs_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ2_XS but for their scales."""
    words = blocks["qs"]
    values = _points("iq2_xs", words & 511)
    values *= look_up(_even_signs(), words >> 9)
    return values.reshape(-1, 256)


def iq2_xs_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ2_XS."""
    return _quarters(sequence(blocks["scales"], 4), blocks["d"])


@np.errstate(all="ignore")
def decode_iq2_xs(blocks: Blocks) -> Values:
    """Return ``d * (scale + 1/2) / 4 * grid * sign``, with a scale for each 16 values.

    A word for each 8 values: an index of 9 bits and 7 bits of signs.

    Example:
        >>> block = np.zeros(1, IQ2_XS.dtype)
        >>> block["d"], block["qs"][0, 0], block["scales"][0, 0] = 1, 0x0201, 1
        >>> decode_iq2_xs(block)[0, [0, 1, 7, 16]].tolist()
        [-16.125, 3.0, -3.0, 1.0]
    """
    return by_groups(iq2_xs_points(blocks), iq2_xs_scales(blocks))


def iq2_s_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ2_S but for their scales."""
    index = blocks["qs"] | sequence(blocks["qh"], 2).astype(np.uint16) << 8
    values = _points("iq2_s", index)
    values *= look_up(_signs(), blocks["signs"])
    return values.reshape(-1, 256)


def iq2_s_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ2_S."""
    return _quarters(sequence(blocks["scales"], 4), blocks["d"])


@np.errstate(all="ignore")
def decode_iq2_s(blocks: Blocks) -> Values:
    """Return ``d * (scale + 1/2) / 4 * grid * sign``, with a scale for each 16 values.

    An index has 8 bits in ``qs`` and 2 in ``qh``; every value has a sign bit of its own.

    Example:
        >>> block = np.zeros(1, IQ2_S.dtype)
        >>> block["d"], block["qs"][0, 0], block["signs"][0, 0], block["scales"][0, 0] = 1, 1, 1, 1
        >>> decode_iq2_s(block)[0, [0, 1, 16]].tolist()
        [-16.125, 3.0, 1.0]
    """
    return by_groups(iq2_s_points(blocks), iq2_s_scales(blocks))


def iq3_xxs_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ3_XXS but for their scales."""
    values = _points("iq3_xxs", blocks["qs"]).reshape(-1, 32, 8)
    values *= look_up(_even_signs(), _fields(blocks["signs"], 7, 4).reshape(-1, 32))
    return values.reshape(-1, 256)


def iq3_xxs_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ3_XXS."""
    scales = (blocks["signs"] >> 28).astype(np.float32) + np.float32(0.5)
    return singles(blocks["d"]) * scales * np.float32(0.5)


@np.errstate(all="ignore")
def decode_iq3_xxs(blocks: Blocks) -> Values:
    """Return ``d * (scale + 1/2) / 2 * grid * sign``: 4 values a point.

    For each 32 values a word has four times 7 bits of signs and 4 bits of scale.

    Example:
        >>> block = np.zeros(1, IQ3_XXS.dtype)
        >>> block["d"], block["qs"][0, 0], block["signs"][0, 0] = 1, 1, 0x10000001
        >>> decode_iq3_xxs(block)[0, [0, 1, 7, 32]].tolist()
        [-15.0, 3.0, -3.0, 1.0]
    """
    return by_groups(iq3_xxs_points(blocks), iq3_xxs_scales(blocks))


def iq3_s_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ3_S but for their scales."""
    index = blocks["qs"] | sequence(blocks["qh"], 1).astype(np.uint16) << 8
    values = _points("iq3_s", index).reshape(-1, 32, 8)
    values *= look_up(_signs(), blocks["signs"])
    return values.reshape(-1, 256)


def iq3_s_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ3_S."""
    scales = (sequence(blocks["scales"], 4) * 2 + 1).astype(np.float32)
    return singles(blocks["d"]) * scales


@np.errstate(all="ignore")
def decode_iq3_s(blocks: Blocks) -> Values:
    """Return ``d * (2 * scale + 1) * grid * sign``: 4 values a point, a scale for each 32 values.

    An index has 8 bits in ``qs`` and 1 in ``qh``; every value has a sign bit of its own.

    Example:
        >>> block = np.zeros(1, IQ3_S.dtype)
        >>> block["d"], block["qs"][0, 0], block["signs"][0, 0], block["scales"][0, 0] = 1, 1, 1, 1
        >>> decode_iq3_s(block)[0, [0, 1, 32]].tolist()
        [-9.0, 3.0, 1.0]
    """
    return by_groups(iq3_s_points(blocks), iq3_s_scales(blocks))


def iq4_nl_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ4_NL but for their scales."""
    return look_up(LEVELS, planes(blocks["qs"], 4)).reshape(-1, 32)


def iq4_nl_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ4_NL."""
    return singles(blocks["d"])


@np.errstate(all="ignore")
def decode_iq4_nl(blocks: Blocks) -> Values:
    """Return ``d * LEVELS[q]``.

    Example:
        >>> block = np.array([(0.5, [0xF0] + [0x88] * 15)], IQ4_NL.dtype)
        >>> decode_iq4_nl(block)[0, [0, 16, 1]].tolist()
        [-63.5, 56.5, 0.5]
    """
    return by_groups(iq4_nl_points(blocks), iq4_nl_scales(blocks))


def iq4_xs_points(blocks: Blocks) -> Values:
    """Return the numbers of IQ4_XS but for their scales."""
    codes = planes(blocks["qs"].reshape(-1, 8, 16), 4)
    return look_up(LEVELS, codes).reshape(-1, 256)


def iq4_xs_scales(blocks: Blocks) -> Singles:
    """Return the scales of IQ4_XS."""
    joined = sequence(blocks["scales_l"], 4) | _fields(blocks["scales_h"], 2, 8) << 4
    return singles(blocks["d"]) * (joined.astype(np.float32) - np.float32(32))


@np.errstate(all="ignore")
def decode_iq4_xs(blocks: Blocks) -> Values:
    """Return ``d * (scale - 32) * LEVELS[q]``, for each 32 values a scale of 4 + 2 bits.

    Example:
        >>> block = np.zeros(1, IQ4_XS.dtype)
        >>> block["d"], block["scales_l"][0, 0], block["scales_h"] = 1, 1, 2
        >>> decode_iq4_xs(block)[0, [0, 32]].tolist()
        [-127.0, 4064.0]
    """
    return by_groups(iq4_xs_points(blocks), iq4_xs_scales(blocks))


def _points(name: str, index: NDArray[Any]) -> Values:
    # Only who decodes such a block needs the grids.
    from weighbridge.kernels.ggml.grids import grid

    points: Values = look_up(grid(name), index)
    return points


def _fields(words: NDArray[Any], bits: int, count: int) -> NDArray[Any]:
    """Return the lowest `count` fields of `bits` bits of each word, on an axis of their own."""
    shifts = np.arange(0, bits * count, bits, dtype=words.dtype)
    return (words[..., None] >> shifts) & ((1 << bits) - 1)


def _quarters(scales: NDArray[Any], d: NDArray[Any]) -> Singles:
    """Return ``d * (scale + 1/2) / 4``."""
    return singles(d) * (scales.astype(np.float32) + np.float32(0.5)) * np.float32(0.25)


@functools.cache
def _signs() -> Singles:
    """Return the eight factors that each byte of sign bits means, the lowest bit first."""
    bits: Bytes = sequence(np.arange(256, dtype=np.uint8)[:, None], 1)
    return np.float32(1) - np.float32(2) * bits


@functools.cache
def _even_signs() -> Singles:
    """Return the factors that 7 bits mean: the eighth makes the number of minus signs even."""
    codes = np.arange(128)
    odd = np.bitwise_count(codes) & 1
    factors: Singles = _signs()[codes | odd << 7]
    return factors


CODECS = (
    Codec(IQ2_XXS, decode_iq2_xxs, weighted=encode_weighted_iq2_xxs),
    Codec(IQ2_XS, decode_iq2_xs, weighted=encode_weighted_iq2_xs),
    Codec(IQ3_XXS, decode_iq3_xxs, encode_iq3_xxs, encode_weighted_iq3_xxs),
    Codec(IQ1_S, decode_iq1_s, weighted=encode_weighted_iq1_s),
    Codec(IQ4_NL, decode_iq4_nl, encode_iq4_nl, encode_weighted_iq4_nl),
    Codec(IQ3_S, decode_iq3_s, encode_iq3_s, encode_weighted_iq3_s),
    Codec(IQ2_S, decode_iq2_s, encode_iq2_s, encode_weighted_iq2_s),
    Codec(IQ4_XS, decode_iq4_xs, encode_iq4_xs, encode_weighted_iq4_xs),
    Codec(IQ1_M, decode_iq1_m, encode_iq1_m, encode_weighted_iq1_m),
)
