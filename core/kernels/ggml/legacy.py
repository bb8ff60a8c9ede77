"""ggml's first types: 32 values a block, one scale, perhaps a minimum; see `lblocks`."""

from __future__ import annotations

import numpy as np

from weighbridge.kernels.codec import Blocks, Codec, Values, refuse_not_finite
from weighbridge.kernels.ggml.bits import (
    Bytes,
    fill,
    inverse,
    pack_planes,
    plane_singles,
    rounded,
    singles,
    to_codes,
)
from weighbridge.kernels.ggml.codes import five_bits
from weighbridge.kernels.ggml.lblocks import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1
from weighbridge.kernels.ggml.lweighted import (
    encode_weighted_q4_0,
    encode_weighted_q4_1,
    encode_weighted_q5_0,
    encode_weighted_q5_1,
)


@np.errstate(all="ignore")
def decode_q4_0(blocks: Blocks) -> Values:
    """Return ``d * (q - 8)``.

    Example:
        >>> block = np.array([(0.5, [0xF0] + [0x88] * 15)], Q4_0.dtype)
        >>> decode_q4_0(block)[0, [0, 16, 17]].tolist()
        [-4.0, 3.5, 0.0]
    """
    values = _nibbles(blocks)
    values -= 8
    values *= singles(blocks["d"])
    return values


@np.errstate(all="ignore")
def decode_q4_1(blocks: Blocks) -> Values:
    """Return ``d * q + m``.

    Example:
        >>> block = np.array([(0.5, -1, [0xF0] + [0x22] * 15)], Q4_1.dtype)
        >>> decode_q4_1(block)[0, [0, 16, 17]].tolist()
        [-1.0, 6.5, 0.0]
    """
    values = _nibbles(blocks)
    values *= singles(blocks["d"])
    values += singles(blocks["m"])
    return values


@np.errstate(all="ignore")
def decode_q5_0(blocks: Blocks) -> Values:
    """Return ``d * (q - 16)``.

    Example:
        >>> block = np.array([(0.5, [1, 0, 0, 0], [0xF0] + [0] * 15)], Q5_0.dtype)
        >>> decode_q5_0(block)[0, [0, 1, 16]].tolist()
        [0.0, -8.0, -0.5]
    """
    values = five_bits(blocks).astype(np.float32)
    values -= 16
    values *= singles(blocks["d"])
    return values


@np.errstate(all="ignore")
def decode_q5_1(blocks: Blocks) -> Values:
    """Return ``d * q + m``.

    Example:
        >>> block = np.array([(0.5, -1, [1, 0, 0, 0], [0xF0] + [0] * 15)], Q5_1.dtype)
        >>> decode_q5_1(block)[0, [0, 1, 16]].tolist()
        [7.0, -1.0, 6.5]
    """
    values = five_bits(blocks).astype(np.float32)
    values *= singles(blocks["d"])
    values += singles(blocks["m"])
    return values


@np.errstate(all="ignore")
def decode_q8(blocks: Blocks) -> Values:
    """Return ``d * q``: Q8_0, Q8_1 (whose ``s``, ``d`` times the sum of the codes, is not needed).

    Example:
        >>> decode_q8(np.array([(0.5, [-128] + [1] * 31)], Q8_0.dtype))[0, :2].tolist()
        [-64.0, 0.5]
    """
    values: Values = blocks["qs"].astype(np.float32)
    values *= singles(blocks["d"])
    return values


@np.errstate(all="ignore")
def encode_q4_0(values: Values) -> Blocks:
    """Scale by -1/8 of the value of largest magnitude, the first of equals.

    A block of zeros has the scale -0, also where the zeros are negative: ggml's C code starts from
    a maximum of +0 that no zero exceeds (the ``gguf`` package takes the block's first value).

    Example:
        >>> encode_q4_0(np.float32([[-4, 1] + [0] * 30]))["d"].tolist()
        [0.5]
    """
    refuse_not_finite(values, Q4_0)
    d = _extreme(values) / np.float32(-8)
    codes = _offset_codes(values, d, 8)
    return fill(Q4_0, d=d[:, 0], qs=pack_planes(codes.reshape(-1, 2, 16), 4))


@np.errstate(all="ignore")
def encode_q4_1(values: Values) -> Blocks:
    """Scale by 1/15 of the span from the smallest value, the first of equals, to the largest.

    Example:
        >>> encode_q4_1(np.float32([[-4, 3.5] + [0] * 30]))[["d", "m"]].tolist()
        [(0.5, -4.0)]
    """
    refuse_not_finite(values, Q4_1)
    low, d = _low_and_scale(values, 15)
    codes = _codes_above(values, low, d, 15)
    return fill(Q4_1, d=d[:, 0], m=low[:, 0], qs=pack_planes(codes.reshape(-1, 2, 16), 4))


@np.errstate(all="ignore")
def encode_q5_0(values: Values) -> Blocks:
    """Scale by -1/16 of the value of largest magnitude, as `encode_q4_0` does by -1/8.

    Example:
        >>> encode_q5_0(np.float32([[-4, 1] + [0] * 30]))["d"].tolist()
        [0.25]
    """
    refuse_not_finite(values, Q5_0)
    d = _extreme(values) / np.float32(-16)
    qh, qs = _without_fifth_bit(_offset_codes(values, d, 16))
    return fill(Q5_0, d=d[:, 0], qh=qh, qs=qs)


@np.errstate(all="ignore")
def encode_q5_1(values: Values) -> Blocks:
    """Scale by 1/31 of the span, as `encode_q4_1` does by 1/15.

    Example:
        >>> encode_q5_1(np.float32([[-4, 11.5] + [0] * 30]))[["d", "m"]].tolist()
        [(0.5, -4.0)]
    """
    refuse_not_finite(values, Q5_1)
    low, d = _low_and_scale(values, 31)
    qh, qs = _without_fifth_bit(_codes_above(values, low, d, 31))
    return fill(Q5_1, d=d[:, 0], m=low[:, 0], qh=qh, qs=qs)


@np.errstate(all="ignore")
def encode_q8_0(values: Values) -> Blocks:
    """Scale by 1/127 of the largest magnitude; round ties away from zero.

    Example:
        >>> block = encode_q8_0(np.float32([[-127, 2.5] + [0] * 30]))
        >>> block["d"].tolist(), block["qs"][0, :2].tolist()
        ([1.0], [-127, 3])
    """
    refuse_not_finite(values, Q8_0)
    d = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    return fill(Q8_0, d=d[:, 0], qs=rounded(values * inverse(d)))


def _nibbles(blocks: Blocks) -> Values:
    return plane_singles(blocks["qs"], 4).reshape(-1, 32)


def _without_fifth_bit(codes: Bytes) -> tuple[Bytes, Bytes]:
    qh = np.packbits(codes >> 4, axis=1, bitorder="little")
    return qh, pack_planes((codes & np.uint8(15)).reshape(-1, 2, 16), 4)


def _extreme(values: Values) -> Values:
    """Return each row's first value of largest magnitude; +0 for a row of zeros."""
    first = np.abs(values).argmax(axis=1, keepdims=True)
    return np.take_along_axis(values, first, axis=1) + np.float32(0)


def _offset_codes(values: Values, d: Values, offset: int) -> Bytes:
    scaled = values * inverse(d)
    scaled += np.float32(offset + 0.5)
    return np.minimum(to_codes(scaled), 2 * offset - 1).view(np.uint8)


def _low_and_scale(values: Values, steps: int) -> tuple[Values, Values]:
    """Return each row's smallest value and a `steps`-th of its span; of equals the first counts."""
    low, high = (
        np.take_along_axis(values, first(values, axis=1, keepdims=True), axis=1)
        for first in (np.argmin, np.argmax)
    )
    return low, (high - low) / np.float32(steps)


def _codes_above(values: Values, low: Values, d: Values, steps: int) -> Bytes:
    scaled = values - low
    scaled *= inverse(d)
    scaled += np.float32(0.5)
    return np.minimum(to_codes(scaled), steps).view(np.uint8)


CODECS = (
    Codec(Q4_0, decode_q4_0, encode_q4_0, encode_weighted_q4_0),
    Codec(Q4_1, decode_q4_1, encode_q4_1, encode_weighted_q4_1),
    Codec(Q5_0, decode_q5_0, encode_q5_0, encode_weighted_q5_0),
    Codec(Q5_1, decode_q5_1, encode_q5_1, encode_weighted_q5_1),
    Codec(Q8_0, decode_q8, encode_q8_0),
    Codec(Q8_1, decode_q8),
)
