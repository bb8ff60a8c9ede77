"""How ggml packs small numbers into bytes, and the few steps that its types share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from weighbridge.encoding import Blocked

Bytes = NDArray[np.uint8]
Singles = NDArray[np.float32]

Number = TypeVar("Number", np.uint8, np.float32)

_HALF_DOWN = np.nextafter(np.float32(0.5), np.float32(0))


def planes(packed: Bytes, bits: int) -> Bytes:
    """Return the numbers of `bits` bits in the last axis, plane after plane.

    First come the lowest bits of all the bytes, then the next ones: ggml's usual order, since it
    suits vector registers. An axis of ``n`` bytes becomes axes of ``8 // bits`` and ``n``.

    Example:
        >>> planes(np.array([0x21, 0x43], np.uint8), 4).tolist()
        [[1, 3], [2, 4]]
    """
    return _planes(packed, bits, np.uint8)


def plane_singles(packed: Bytes, bits: int) -> Singles:
    """Return `planes` as float32 at once: there is one small copy less."""
    return _planes(packed, bits, np.float32)


def _planes(packed: Bytes, bits: int, dtype: type[Number]) -> NDArray[Number]:
    packed = np.ascontiguousarray(packed)
    count = 8 // bits
    numbers = np.empty((*packed.shape[:-1], count, packed.shape[-1]), dtype)
    for i in range(count):
        plane = packed >> (bits * i) if i else packed
        numbers[..., i, :] = plane & ((1 << bits) - 1) if i + 1 < count else plane
    return numbers


def sequence(packed: Bytes, bits: int) -> Bytes:
    """Return the numbers of `bits` bits in the last axis, byte after byte, lowest bits first.

    Example:
        >>> sequence(np.array([0x21, 0x43], np.uint8), 4).tolist()
        [1, 2, 3, 4]
    """
    if bits == 1:
        return np.unpackbits(packed, axis=-1, bitorder="little")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    numbers = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return numbers.reshape(*packed.shape[:-1], packed.shape[-1] * (8 // bits))


def pack_planes(numbers: Bytes, bits: int) -> Bytes:
    """Return what `planes` unpacks: axes of ``8 // bits`` and ``n`` become one of ``n`` bytes.

    Example:
        >>> pack_planes(np.array([[1, 3], [2, 4]], np.uint8), 4).tolist()
        [33, 67]
    """
    packed = numbers[..., 0, :].copy()
    for i in range(1, 8 // bits):
        packed |= numbers[..., i, :] << (bits * i)
    return packed


def singles(scale: NDArray[Any], axes: int = 1) -> Singles:
    """Return float16 or integer `scale` as float32, with `axes` axes of length one behind.

    Example:
        >>> singles(np.float16([1, 2])).shape
        (2, 1)
    """
    return scale.astype(np.float32).reshape(*scale.shape, *(1,) * axes)


def by_groups(values: Singles, scales: Singles) -> Singles:
    """Multiply equal runs of each row of `values`, in place, by the row's scales.

    Example:
        >>> by_groups(np.float32([[1, 2, 3, 4]]), np.float32([[2, 10]])).tolist()
        [[2.0, 4.0, 30.0, 40.0]]
    """
    groups = values.reshape(*scales.shape, values.shape[1] // scales.shape[1])
    groups *= scales[:, :, None]
    return groups.reshape(values.shape)


def look_up(table: NDArray[Any], index: NDArray[Any]) -> NDArray[Any]:
    """Return the rows of `table` at `index`, of which none is out of range."""
    # "wrap" spares NumPy the check.
    return np.take(table, index, axis=0, mode="wrap")


def inverse(scale: Singles) -> Singles:
    """Return ``1 / scale``, and 0 where the scale is 0.

    Example:
        >>> inverse(np.float32([0.5, 0])).tolist()
        [2.0, 0.0]
    """
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)


def fill(encoding: Blocked, **fields: NDArray[Any]) -> NDArray[np.void]:
    """Return blocks of `encoding` with these fields; scales too large for float16 are infinite."""
    blocks = np.empty(len(next(iter(fields.values()))), encoding.dtype)
    with np.errstate(all="ignore"):
        for name, field in fields.items():
            blocks[name] = field
    return blocks


def to_codes(scaled: Singles) -> NDArray[np.int8]:
    """Return `scaled` without its fraction; codes that are not finite are 0.

    The inverse of a scale below 2**-128 is infinite. C leaves the conversion of the products
    undefined; x86 makes every one of them 0, and so does this.

    Example:
        >>> to_codes(np.float32([8.5, -1.5, np.inf, np.nan])).tolist()
        [8, -1, 0, 0]
    """
    if not np.isfinite(scaled).all():
        scaled = np.where(np.isfinite(scaled), scaled, np.float32(0))
    return scaled.astype(np.int8)


def rounded(scaled: Singles) -> NDArray[np.int8]:
    """Return `scaled` rounded to nearest, ties away from zero, as C's ``roundf`` does.

    Example:
        >>> rounded(np.float32([0.5, -2.5, 0.49999997])).tolist()
        [1, -3, 0]
    """
    return to_codes(scaled + np.copysign(_HALF_DOWN, scaled))
