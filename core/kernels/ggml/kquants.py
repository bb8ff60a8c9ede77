"""ggml's K-quants: 256 values a block, in sub-blocks of 16 or 32 with small scales of their own.

How they are decoded. The blocks are in `kblocks`, how they are encoded is in `kencoders`.
"""

from __future__ import annotations

import numpy as np

from weighbridge.kernels.codec import Blocks, Codec, Values
from weighbridge.kernels.ggml.bits import plane_singles, singles
from weighbridge.kernels.ggml.codes import (
    four_bit_minima,
    four_bit_scales,
    q3_k,
    q3_k_scales,
    q5_k,
    q6_k,
    q6_k_scales,
    six_bit_minima,
    six_bit_scales,
)
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
    values = plane_singles(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    return _affine(values, four_bit_scales(blocks), four_bit_minima(blocks))


@np.errstate(all="ignore")
def decode_q3_k(blocks: Blocks) -> Values:
    """Return ``d * (scale - 32) * (q - 4)``, for each 16 values a scale of 6 bits.

    `codes` has where these bits are.

    Example:
        >>> block = np.zeros(1, Q3_K.dtype)
        >>> block["d"], block["hmask"][0, 0], block["qs"][0, :2] = 0.5, 1, 3
        >>> decode_q3_k(block)[0, :3].tolist()
        [-48.0, 16.0, 64.0]
    """
    values = q3_k(blocks).reshape(-1, 16, 16).astype(np.float32)
    values -= 4
    values *= q3_k_scales(blocks)[:, :, None]
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
    values = plane_singles(blocks["qs"].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    return _affine(values, six_bit_scales(blocks), six_bit_minima(blocks))


@np.errstate(all="ignore")
def decode_q5_k(blocks: Blocks) -> Values:
    """Return ``d * scale * q - dmin * minimum`` as `decode_q4_k`; ``qh`` has the fifth bits.

    Example:
        >>> block = np.zeros(1, Q5_K.dtype)
        >>> block["d"], block["scales"][0, 0], block["qs"][0, 0], block["qh"][0, 0] = 0.5, 2, 15, 1
        >>> decode_q5_k(block)[0, :2].tolist()
        [31.0, 0.0]
    """
    values = q5_k(blocks).reshape(-1, 8, 32).astype(np.float32)
    return _affine(values, six_bit_scales(blocks), six_bit_minima(blocks))


@np.errstate(all="ignore")
def decode_q6_k(blocks: Blocks) -> Values:
    """Return ``d * scale * (q - 32)``, for each 16 values a scale of 8 bits.

    Example:
        >>> block = np.zeros(1, Q6_K.dtype)
        >>> block["d"], block["scales"][0, 0], block["ql"][0, 0], block["qh"][0, 0] = 0.5, -2, 15, 2
        >>> decode_q6_k(block)[0, :2].tolist()
        [-15.0, 32.0]
    """
    values = q6_k(blocks).reshape(-1, 16, 16).astype(np.float32)
    values -= 32
    values *= q6_k_scales(blocks)[:, :, None]
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


def _affine(values: Values, scales: Values, minima: Values) -> Values:
    values *= scales[:, :, None]
    values -= minima[:, :, None]
    return values.reshape(-1, 256)


CODECS = (
    Codec(Q2_K, decode_q2_k, encode_q2_k, encode_weighted_q2_k),
    Codec(Q3_K, decode_q3_k, encode_q3_k, encode_weighted_q3_k),
    Codec(Q4_K, decode_q4_k, encode_q4_k, encode_weighted_q4_k),
    Codec(Q5_K, decode_q5_k, encode_q5_k, encode_weighted_q5_k),
    Codec(Q6_K, decode_q6_k, encode_q6_k, encode_weighted_q6_k),
    Codec(Q8_K, decode_q8_k),
)
