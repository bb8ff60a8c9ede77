"""ggml's ternary types: 256 values a block, each -1, 0 or 1 times one scale.

Layouts: ``ggml-common.h``, ``block_tq1_0`` and ``block_tq2_0``.
"""

from __future__ import annotations

import numpy as np

from weighbridge.encoding import blocked
from weighbridge.kernels.codec import Blocks, Codec, Values, refuse_not_finite
from weighbridge.kernels.ggml.bits import (
    Bytes,
    fill,
    inverse,
    pack_planes,
    plane_singles,
    rounded,
    singles,
)

TQ1_0 = blocked("tq1_0", 256, [("qs", "u1", (48,)), ("qh", "u1", (4,)), ("d", "<f2")], 54)
TQ2_0 = blocked("tq2_0", 256, [("qs", "u1", (64,)), ("d", "<f2")], 66)

_RUNS = ((0, 32, 5), (32, 48, 5), (48, 52, 4))
"""TQ1_0's runs of bytes: from, to, and how many ternary digits each byte holds."""


@np.errstate(all="ignore")
def decode_tq1_0(blocks: Blocks) -> Values:
    """Return ``d * (digit - 1)``.

    A byte is a fraction of 256: multiplied by 3, what overflows a byte is the first digit, and the
    rest is the fraction of the next one. The first digits of all bytes of a run come first.

    Example:
        >>> block = np.zeros(1, TQ1_0.dtype)
        >>> block["d"], block["qs"][0, 0] = 0.5, 0b11010101  # 0.211 in base 3 is about 0.83
        >>> decode_tq1_0(block)[0, [0, 32, 64, 1]].tolist()
        [0.5, 0.0, 0.0, -0.5]
    """
    values = ternary_digits(blocks).astype(np.float32)
    values -= 1
    values *= singles(blocks["d"])
    return values


def ternary_digits(blocks: Blocks) -> Bytes:
    """Return the digits of TQ1_0."""
    packed = np.concatenate((blocks["qs"], blocks["qh"]), axis=1)
    values = np.empty((len(blocks), 256), np.uint8)
    at = 0
    for start, end, digits in _RUNS:
        fraction = packed[:, start:end].astype(np.uint16)
        for _ in range(digits):
            fraction *= 3
            values[:, at : at + end - start] = fraction >> 8
            fraction &= 255
            at += end - start
    return values


@np.errstate(all="ignore")
def decode_tq2_0(blocks: Blocks) -> Values:
    """Return ``d * (q - 1)``, four codes a byte.

    Example:
        >>> block = np.zeros(1, TQ2_0.dtype)
        >>> block["d"], block["qs"][0, 0] = 0.5, 0b01_00_10_01
        >>> decode_tq2_0(block)[0, [0, 32, 64, 96]].tolist()
        [0.0, 0.5, -0.5, 0.0]
    """
    values = plane_singles(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, 256)
    values -= 1
    values *= singles(blocks["d"])
    return values


@np.errstate(all="ignore")
def encode_tq1_0(values: Values) -> Blocks:
    """Round each value over the largest magnitude to a digit; see `decode_tq1_0`.

    Example:
        >>> blocks = encode_tq1_0(np.float32([[-0.5, 0, 0.5] + [0] * 253]))
        >>> decode_tq1_0(blocks)[0, :3].tolist()
        [-0.5, 0.0, 0.5]
    """
    refuse_not_finite(values, TQ1_0)
    d, codes = _ternary(values)
    packed = np.empty((len(values), 52), np.uint8)
    at = 0
    for start, end, digits in _RUNS:
        run = codes[:, at : at + digits * (end - start)].reshape(-1, digits, end - start)
        packed[:, start:end] = _fractions(run)
        at += digits * (end - start)
    return fill(TQ1_0, d=d, qs=packed[:, :48], qh=packed[:, 48:])


@np.errstate(all="ignore")
def encode_tq2_0(values: Values) -> Blocks:
    """Round each value over the largest magnitude to -1, 0 or 1.

    Example:
        >>> blocks = encode_tq2_0(np.float32([[-0.5, 0, 0.5] + [0] * 253]))
        >>> decode_tq2_0(blocks)[0, :3].tolist()
        [-0.5, 0.0, 0.5]
    """
    refuse_not_finite(values, TQ2_0)
    d, codes = _ternary(values)
    qs = pack_planes(codes.reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return fill(TQ2_0, d=d, qs=qs)


def _ternary(values: Values) -> tuple[Values, Bytes]:
    d = np.abs(values).max(axis=1, keepdims=True)
    return d[:, 0], (rounded(values * inverse(d)) + np.int8(1)).view(np.uint8)


def _fractions(digits: Bytes) -> Bytes:
    """Return the byte of each column of ternary digits: the smallest that decodes to them."""
    number = np.zeros((len(digits), digits.shape[2]), np.uint32)
    for i in range(digits.shape[1]):
        number = number * 3 + digits[:, i]
    # A column of four digits has a fifth that is 0.
    number *= 3 ** (5 - digits.shape[1])
    return ((number * 256 + 242) // 243).astype(np.uint8)


CODECS = (Codec(TQ1_0, decode_tq1_0, encode_tq1_0), Codec(TQ2_0, decode_tq2_0, encode_tq2_0))
