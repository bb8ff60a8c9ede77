"""ggml's types of one and two bits without sub-blocks.

Layouts: ``ggml-common.h``, ``block_q1_0`` and ``block_q2_0``. Codes are in order, the first of a
byte in its lowest bits.
"""

from __future__ import annotations

import numpy as np

from weighbridge.encoding import blocked
from weighbridge.kernels.codec import Blocks, Codec, Values, refuse_not_finite
from weighbridge.kernels.ggml.bits import fill, inverse, rounded, sequence, singles

Q1_0 = blocked("q1_0", 128, [("d", "<f2"), ("qs", "u1", (16,))], 18)
Q2_0 = blocked("q2_0", 64, [("d", "<f2"), ("qs", "u1", (16,))], 18)


@np.errstate(all="ignore")
def decode_q1_0(blocks: Blocks) -> Values:
    """Return ``d`` for a one, ``-d`` for a zero.

    Example:
        >>> decode_q1_0(np.array([(0.5, [1] + [0] * 15)], Q1_0.dtype))[0, :2].tolist()
        [0.5, -0.5]
    """
    values = sequence(blocks["qs"], 1).astype(np.float32)
    values *= 2
    values -= 1
    values *= singles(blocks["d"])
    return values


@np.errstate(all="ignore")
def decode_q2_0(blocks: Blocks) -> Values:
    """Return ``d * (q - 1)``: -d, 0, d and 2d.

    Example:
        >>> decode_q2_0(np.array([(0.5, [0b11_10_01_00] + [0] * 15)], Q2_0.dtype))[0, :4].tolist()
        [-0.5, 0.0, 0.5, 1.0]
    """
    values = sequence(blocks["qs"], 2).astype(np.float32)
    values -= 1
    values *= singles(blocks["d"])
    return values


@np.errstate(all="ignore")
def encode_q1_0(values: Values) -> Blocks:
    """Keep the signs (zero counts as positive) and the mean magnitude, summed in order.

    Example:
        >>> block = encode_q1_0(np.float32([[-1] + [0.5] * 127]))
        >>> block["d"].tolist(), block["qs"][0, :2].tolist()
        ([0.50390625], [254, 255])
    """
    refuse_not_finite(values, Q1_0)
    total = np.zeros(len(values), np.float32)
    for column in np.abs(values).T:
        total += column
    codes = np.packbits(values >= 0, axis=1, bitorder="little")
    return fill(Q1_0, d=total / np.float32(128), qs=codes)


@np.errstate(all="ignore")
def encode_q2_0(values: Values) -> Blocks:
    """Scale by the largest magnitude; the code for 2d is never used.

    A product that is not finite (see `to_codes`) becomes C's smallest integer, hence code 0.

    Example:
        >>> block = encode_q2_0(np.float32([[-0.5, 0, 0.5] + [0] * 61]))
        >>> decode_q2_0(block)[0, :3].tolist()
        [-0.5, 0.0, 0.5]
    """
    refuse_not_finite(values, Q2_0)
    d = np.abs(values).max(axis=1, keepdims=True)
    scaled = values * inverse(d)
    codes = np.where(np.isfinite(scaled), rounded(scaled) + np.int8(1), np.int8(0)).view(np.uint8)
    fours = codes.reshape(-1, 16, 4) << np.arange(0, 8, 2, dtype=np.uint8)
    return fill(Q2_0, d=d[:, 0], qs=np.bitwise_or.reduce(fours, axis=2))


CODECS = (Codec(Q1_0, decode_q1_0, encode_q1_0), Codec(Q2_0, decode_q2_0, encode_q2_0))
