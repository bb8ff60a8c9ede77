"""The codes and the scales in ggml's first types and its K-quants, which decoders multiply.

The blocks are in `lblocks` and `kblocks`. The functions take blocks of shape ``(n,)`` and return
codes of shape ``(n, grain)``, scales and minima of shape ``(n, groups)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weighbridge.kernels.ggml.bits import Bytes, Singles, planes, sequence, singles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.kernels.codec import Blocks


def nibbles(blocks: Blocks) -> Bytes:
    """Return the codes of Q4_0 and Q4_1."""
    return planes(blocks["qs"], 4).reshape(-1, 32)


def five_bits(blocks: Blocks) -> Bytes:
    """Return the codes of Q5_0 and Q5_1."""
    codes = nibbles(blocks)
    codes |= sequence(blocks["qh"], 1) << 4
    return codes


def q2_k(blocks: Blocks) -> Bytes:
    """Return the codes of Q2_K."""
    return planes(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, 256)


def q3_k(blocks: Blocks) -> Bytes:
    """Return the codes of Q3_K; the third bit of each is in ``hmask``."""
    codes = q2_k(blocks)
    codes |= planes(blocks["hmask"], 1).reshape(-1, 256) << 2
    return codes


def q4_k(blocks: Blocks) -> Bytes:
    """Return the codes of Q4_K."""
    return planes(blocks["qs"].reshape(-1, 4, 32), 4).reshape(-1, 256)


def q5_k(blocks: Blocks) -> Bytes:
    """Return the codes of Q5_K; the fifth bit of each is in ``qh``."""
    codes = q4_k(blocks)
    codes |= planes(blocks["qh"], 1).reshape(-1, 256) << 4
    return codes


def q6_k(blocks: Blocks) -> Bytes:
    """Return the codes of Q6_K; the upper two bits of each are in ``qh``."""
    codes = planes(blocks["ql"].reshape(-1, 2, 64), 4).reshape(-1, 256)
    codes |= planes(blocks["qh"].reshape(-1, 2, 32), 2).reshape(-1, 256) << 4
    return codes


def q3_k_scales(blocks: Blocks) -> Singles:
    """Return the scales of Q3_K, of 6 bits, the factor ``d`` included.

    The low halves are in their first 8 bytes, the upper two bits in the other 4.
    """
    low = planes(blocks["scales"][:, :8], 4).reshape(-1, 16)
    high = planes(blocks["scales"][:, 8:], 2).reshape(-1, 16)
    scales = (low | high << 4).astype(np.float32)
    scales -= 32
    scales *= singles(blocks["d"])
    return scales


def q6_k_scales(blocks: Blocks) -> Singles:
    """Return the scales of Q6_K, of 8 bits, the factor ``d`` included."""
    scales: Singles = blocks["scales"].astype(np.float32)
    scales *= singles(blocks["d"])
    return scales


def six_bit_scales(blocks: Blocks) -> Singles:
    """Return the scales of Q4_K and Q5_K, of 6 bits, the factor ``d`` included.

    Of 12 bytes, 0 to 3 hold scales 0 to 3, bytes 4 to 7 minima 0 to 3, each in the low six bits.
    Bytes 8 to 11 hold the low halves of scales and minima 4 to 7, and the upper two bits of bytes 0
    to 7 are the rest of these.
    """
    first, _, third = _words(blocks["scales"])
    return _six_bits(first, third) * singles(blocks["d"])


def six_bit_minima(blocks: Blocks) -> Singles:
    """Return the minima likewise, the factor ``dmin`` included."""
    _, second, third = _words(blocks["scales"])
    return _six_bits(second, third >> np.uint32(4)) * singles(blocks["dmin"])


def _words(packed: Bytes) -> NDArray[np.uint32]:
    """Return each four bytes as a word: what is done to them, is done to all at once."""
    return np.ascontiguousarray(packed).view("<u4").T


def _six_bits(whole: NDArray[np.uint32], halves: NDArray[np.uint32]) -> Singles:
    words = np.empty((len(whole), 2), "<u4")
    words[:, 0] = whole & np.uint32(0x3F3F3F3F)
    words[:, 1] = (halves & np.uint32(0x0F0F0F0F)) | (whole >> 2 & np.uint32(0x30303030))
    return words.view(np.uint8).astype(np.float32)


def four_bit_scales(blocks: Blocks) -> Singles:
    """Return the scales of Q2_K, of 4 bits, the factor ``d`` included."""
    return (blocks["scales"] & np.uint8(15)).astype(np.float32) * singles(blocks["d"])


def four_bit_minima(blocks: Blocks) -> Singles:
    """Return the minima of Q2_K likewise, the factor ``dmin`` included."""
    return (blocks["scales"] >> np.uint8(4)).astype(np.float32) * singles(blocks["dmin"])


def signed(blocks: Blocks) -> Bytes:
    """Return the codes of Q8_0, 128 added to each."""
    return np.ascontiguousarray(blocks["qs"]).view(np.uint8) ^ np.uint8(128)
