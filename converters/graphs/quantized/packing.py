"""How ONNX Runtime's block-quantised operators put codes of a few bits into bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weighbridge.converters.graphs.quantized.forms import Form
    from weighbridge.tensor import Array


def halves(codes: Array) -> tuple[Array, Array]:
    """Return the high and the low halves of codes of 8 bits."""
    return codes >> 4, codes & np.uint8(15)


def pack_nibbles(codes: Array) -> Array:
    """Return codes of 4 bits, two in a byte.

    Example:
        >>> [hex(byte) for byte in pack_nibbles(np.array([[1, 2, 3, 4]], np.uint8))[0]]
        ['0x21', '0x43']
    """
    pairs = np.ascontiguousarray(codes).view("<u2")
    packed: Array = (pairs | pairs >> np.uint16(4)).astype(np.uint8)
    return packed


def pack_crumbs(codes: Array) -> Array:
    """Return codes of 2 bits, four in a byte.

    Example:
        >>> pack_crumbs(np.array([[1, 2, 3, 0]], np.uint8)).tolist()
        [[57]]
    """
    four = np.ascontiguousarray(codes).view("<u4")
    packed: Array = four.copy()
    for shift in (6, 12, 18):
        packed |= four >> np.uint32(shift)
    return packed.astype(np.uint8)


PACKERS: Mapping[int, Callable[[Array], Array]] = {
    2: pack_crumbs,
    4: pack_nibbles,
    8: lambda codes: codes,
}
"""How codes of so many bits are put into bytes."""


def pack(codes: Array, form: Form) -> Array:
    """Return rows of codes, whole bytes of them, as they are stored.

    Example:
        >>> from weighbridge.converters.graphs.quantized.forms import EIGHT, SPLIT
        >>> codes = np.array([[0x12, 0x34]], np.uint8)
        >>> [[hex(byte) for byte in pack(codes, form)[0]] for form in (EIGHT, SPLIT)]
        [['0x12', '0x34'], ['0x31', '0x42']]
    """
    packed = PACKERS[form.bits]
    if form.split:
        return np.concatenate([packed(half) for half in halves(codes)], axis=1)
    return packed(codes)


def packed_length(count: int, form: Form) -> int:
    """Return the bytes that so many zero points of a row take."""
    return -(-count * form.bits // 8)


def packed_zeros(zeros: Array, form: Form) -> Array:
    """Return zero points as they are stored: split like codes, in rows of whole bytes."""
    if form.split:
        zeros = np.concatenate(halves(zeros), axis=1)
    missing = -zeros.shape[1] % (8 // form.bits)
    return PACKERS[form.bits](np.pad(zeros, ((0, 0), (0, missing))))
