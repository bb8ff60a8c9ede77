"""ggml's blocks of 4-bit floating-point numbers (E2M1) with 8-bit floating-point scales.

Both types look a code up among the doubled values and halve the scale, so that the values are
integers. The blocks are in `mblocks`, how NVFP4 is encoded is in `mencoders`.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from weighbridge.kernels.codec import Blocks, Codec, Values, refuse_not_finite
from weighbridge.kernels.ggml.bits import (
    Bytes,
    Singles,
    by_groups,
    fill,
    look_up,
    pack_planes,
    planes,
)
from weighbridge.kernels.ggml.mblocks import DOUBLED, MXFP4, NVFP4
from weighbridge.kernels.ggml.mencoders import encode_nvfp4


@np.errstate(all="ignore")
def decode_mxfp4(blocks: Blocks) -> Values:
    """Return ``2**(e - 127)`` times the code's value; ``e`` = 255 is not special, as in ggml.

    Example:
        >>> block = np.array([(128, [0xF1] + [0] * 15)], MXFP4.dtype)
        >>> decode_mxfp4(block)[0, [0, 16]].tolist()
        [1.0, -12.0]
    """
    return by_groups(mxfp4_doubled(blocks), mxfp4_halved(blocks))


def mxfp4_doubled(blocks: Blocks) -> Values:
    """Return the doubled values of MXFP4's codes."""
    return look_up(DOUBLED, planes(blocks["qs"], 4)).reshape(-1, 32)


def mxfp4_halved(blocks: Blocks) -> Singles:
    """Return MXFP4's scales, halved."""
    return look_up(halved_powers(), blocks["e"])[:, None]


@np.errstate(all="ignore")
def decode_nvfp4(blocks: Blocks) -> Values:
    """Return a scale for each 16 values, unsigned E4M3, times the code's value.

    In each 8 bytes the low halves come first. The sign bit of a scale is ignored and 0x7F, which
    is not a number, is 0: ggml's ``ggml_ue4m3_to_fp32``.

    Example:
        >>> block = np.array([([0x40, 0, 0, 0], [0xF1] + [0] * 31)], NVFP4.dtype)
        >>> decode_nvfp4(block)[0, [0, 8]].tolist()
        [1.0, -12.0]
    """
    return by_groups(nvfp4_doubled(blocks), nvfp4_halved(blocks))


def nvfp4_doubled(blocks: Blocks) -> Values:
    """Return the doubled values of NVFP4's codes."""
    return look_up(DOUBLED, planes(blocks["qs"].reshape(-1, 4, 8), 4)).reshape(-1, 64)


def nvfp4_halved(blocks: Blocks) -> Singles:
    """Return NVFP4's scales, halved."""
    return look_up(halved_ue4m3(), blocks["d"])


@np.errstate(all="ignore")
def encode_mxfp4(values: Values) -> Blocks:
    """Scale so that the largest magnitude is from 4 to 8; take the nearest code, the first of two.

    Example:
        >>> block = encode_mxfp4(np.float32([[6, -1] + [0] * 30]))
        >>> block["e"].tolist(), decode_mxfp4(block)[0, :2].tolist()
        ([127], [6.0, -1.0])
    """
    refuse_not_finite(values, MXFP4)
    largest = np.abs(values).max(axis=1)
    exponent = (
        np.where(largest > 0, floor_of_log2(largest) + 125, 0).astype(np.int32).astype(np.uint8)
    )
    codes = _nearest(values, halved_powers()[exponent][:, None])
    return fill(MXFP4, e=exponent, qs=pack_planes(codes.reshape(-1, 2, 16), 4))


def floor_of_log2(numbers: Singles) -> Singles:
    """Return what ``floorf(log2f(x))`` is: just below ``2**n`` the logarithm is rounded to ``n``.

    Example:
        >>> floor_of_log2(np.float32([8, 7.9999995, 7.9])).tolist()
        [3.0, 3.0, 2.0]
    """
    return np.floor(np.log2(numbers, dtype=np.float64).astype(np.float32))


def _nearest(values: Values, halved: Singles) -> Bytes:
    """Return the codes nearest to `values`, given half the scale; all quotients are exact.

    ggml compares with products: a magnitude whose product overflows is never the nearest.
    """
    magnitudes = np.abs(values) / halved
    codes = np.zeros(values.shape, np.uint8)
    for below, above in itertools.pairwise(DOUBLED[:8]):
        codes += magnitudes > (below + above) / 2
    last = np.isfinite(DOUBLED[:8] * halved).sum(axis=1, keepdims=True, dtype=np.uint8) - 1
    np.minimum(codes, last, out=codes)
    codes[(values < 0) & (codes > 0)] += 8
    return codes


@functools.cache
def halved_powers() -> Singles:
    """Return ``2**(e - 128)`` for each byte ``e``."""
    powers: Singles = np.ldexp(np.float32(1), np.arange(256) - 128)
    return powers


@functools.cache
def halved_ue4m3() -> Singles:
    """Return half of what each byte is as E4M3 without sign, and 0 for 0x7F."""
    codes = np.arange(256)
    exponent, fraction = codes >> 3 & 15, codes & 7
    scales = np.where(
        exponent == 0,
        np.ldexp(np.float32(1), -10) * fraction,
        np.ldexp(1 + fraction / 8, exponent - 8),
    )
    scales[0x7F] = 0
    halved: Singles = scales.astype(np.float32)
    return halved


CODECS = (Codec(MXFP4, decode_mxfp4, encode_mxfp4), Codec(NVFP4, decode_nvfp4, encode_nvfp4))
