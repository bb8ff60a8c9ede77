"""ggml's K-quants: 256 values a block, in sub-blocks of 16 or 32 with small scales of their own.

How they are decoded. The blocks are in `kblocks`, how they are encoded is in `kencoders`.
"""

from __future__ import annotations

import numpy as np

from weighbridge.kernels.codec import Blocks, Codec, Values
from weighbridge.kernels.ggml.bits import Bytes, plane_singles, planes, singles
from weighbridge.kernels.ggml.kblocks import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K
from weighbridge.kernels.ggml.kencoders import (
    encode_q2_k,
    encode_q3_k,
    encode_q4_k,
    encode_q5_k,
    encode_q6_k,
)
from weighbridge.kernels.ggml.kweighted import (
    encode_weighted_q2_k,
    encode_weighted_q3_k,
    encode_weighted_q4_k,
    encode_weighted_q5_k,
    encode_weighted_q6_k,
)


@np.errstate(all="ignore")
def decode_q2_k(blocks: Blocks) -> Values:
    """Return ``d * scale * q - dmin * minimum``, with 4 bits of each for every 16 values.

    Example:
        >>> block = np.zeros(1, Q2_K.dtype)
        >>> block["d"], block["dmin"], block["scales"][0, 0], block["qs"][0, 0] = 0.5, 1, 0x32, 3
        >>> decode_q2_k(block)[0, :3].tolist()
        [0.0, -3.0, -3.0]
    """
    scales = plane_singles(blocks["scales"], 4)
    values = plane_singles(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    return _affine(values, scales[:, 0], scales[:, 1], blocks)


@np.errstate(all="ignore")
def decode_q3_k(blocks: Blocks) -> Values:
    """Return ``d * (scale - 32) * (q - 4)``, for each 16 values a scale of 6 bits.

    The third bit of each value is in ``hmask``. The low halves of the scales are in their first 8
    bytes, the upper two bits in the other 4.

    Example:
        >>> block = np.zeros(1, Q3_K.dtype)
        >>> block["d"], block["hmask"][0, 0], block["qs"][0, :2] = 0.5, 1, 3
        >>> decode_q3_k(block)[0, :3].tolist()
        [-48.0, 16.0, 64.0]
    """
    low = planes(blocks["scales"][:, :8], 4).reshape(-1, 16)
    high = planes(blocks["scales"][:, 8:], 2).reshape(-1, 16)
    scales = (low | high << 4).astype(np.float32)
    scales -= 32
    scales *= singles(blocks["d"])
    codes = planes(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, 256)
    codes |= planes(blocks["hmask"], 1).reshape(-1, 256) << 2
    values = codes.reshape(-1, 16, 16).astype(np.float32)
    values -= 4
    values *= scales[:, :, None]
    return values.reshape(-1, 256)


@np.errstate(all="ignore")
def decode_q4_k(blocks: Blocks) -> Values:
    """Return ``d * scale * q - dmin * minimum``, with 6 bits of each for every 32 values.

    Example:
        >>> block = np.zeros(1, Q4_K.dtype)
        >>> block["d"], block["dmin"] = 0.5, 1
        >>> block["scales"][0, [0, 4]], block["qs"][0, 0] = 3, 0x0F
        >>> decode_q4_k(block)[0, [0, 1, 32]].tolist()
        [19.5, -3.0, 0.0]
    """
    scales, minima = _six_bits(blocks["scales"])
    values = plane_singles(blocks["qs"].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    return _affine(values, scales, minima, blocks)


@np.errstate(all="ignore")
def decode_q5_k(blocks: Blocks) -> Values:
    """Return ``d * scale * q - dmin * minimum`` as `decode_q4_k`; ``qh`` has the fifth bits.

    Example:
        >>> block = np.zeros(1, Q5_K.dtype)
        >>> block["d"], block["scales"][0, 0], block["qs"][0, 0], block["qh"][0, 0] = 0.5, 2, 15, 1
        >>> decode_q5_k(block)[0, :2].tolist()
        [31.0, 0.0]
    """
    scales, minima = _six_bits(blocks["scales"])
    codes = planes(blocks["qs"].reshape(-1, 4, 32), 4).reshape(-1, 256)
    codes |= planes(blocks["qh"], 1).reshape(-1, 256) << 4
    return _affine(codes.reshape(-1, 8, 32).astype(np.float32), scales, minima, blocks)


@np.errstate(all="ignore")
def decode_q6_k(blocks: Blocks) -> Values:
    """Return ``d * scale * (q - 32)``, for each 16 values a scale of 8 bits.

    Example:
        >>> block = np.zeros(1, Q6_K.dtype)
        >>> block["d"], block["scales"][0, 0], block["ql"][0, 0], block["qh"][0, 0] = 0.5, -2, 15, 2
        >>> decode_q6_k(block)[0, :2].tolist()
        [-15.0, 32.0]
    """
    codes = planes(blocks["ql"].reshape(-1, 2, 64), 4).reshape(-1, 256)
    codes |= planes(blocks["qh"].reshape(-1, 2, 32), 2).reshape(-1, 256) << 4
    scales = blocks["scales"].astype(np.float32)
    scales *= singles(blocks["d"])
    values = codes.reshape(-1, 16, 16).astype(np.float32)
    values -= 32
    values *= scales[:, :, None]
    return values.reshape(-1, 256)


@np.errstate(all="ignore")
def decode_q8_k(blocks: Blocks) -> Values:
    """Return ``d * q``; ``bsums``, the sums of 16 codes each, are for dot products.

    Example:
        >>> block = np.zeros(1, Q8_K.dtype)
        >>> block["d"], block["qs"][0, 0] = 0.5, -128
        >>> decode_q8_k(block)[0, :2].tolist()
        [-64.0, 0.0]
    """
    values: Values = blocks["qs"].astype(np.float32)
    values *= singles(blocks["d"])
    return values


def _affine(values: Values, scales: Values, minima: Values, blocks: Blocks) -> Values:
    values *= (scales * singles(blocks["d"]))[:, :, None]
    values -= (minima * singles(blocks["dmin"]))[:, :, None]
    return values.reshape(-1, 256)


def _six_bits(packed: Bytes) -> tuple[Values, Values]:
    """Return the 8 scales and the 8 minima in 12 bytes.

    Bytes 0 to 3 hold scales 0 to 3, bytes 4 to 7 minima 0 to 3, each in the low six bits. Bytes 8
    to 11 hold the low halves of scales and minima 4 to 7, and the upper two bits of bytes 0 to 7
    are the rest of these.
    """
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.empty((len(packed), 8), np.float32)
    minima = np.empty_like(scales)
    scales[:, :4] = first & 63
    minima[:, :4] = second & 63
    scales[:, 4:] = (third & 15) | (first >> 6) << 4
    minima[:, 4:] = (third >> 4) | (second >> 6) << 4
    return scales, minima


CODECS = (
    Codec(Q2_K, decode_q2_k, encode_q2_k, encode_weighted_q2_k),
    Codec(Q3_K, decode_q3_k, encode_q3_k, encode_weighted_q3_k),
    Codec(Q4_K, decode_q4_k, encode_q4_k, encode_weighted_q4_k),
    Codec(Q5_K, decode_q5_k, encode_q5_k, encode_weighted_q5_k),
    Codec(Q6_K, decode_q6_k, encode_q6_k, encode_weighted_q6_k),
    Codec(Q8_K, decode_q8_k),
)
