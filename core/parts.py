"""Encode and decode arrays with separate scales, any such encoding by its name: no model needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge import kernels
from weighbridge.encoding import DATA, DENSE, Dense, Scaled, Shape, dense, scaled
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from weighbridge.encoding import Blocked

    Array = NDArray[Any]

WHOLE = 0
"""In the shape of a block: all of the axis."""

GROUP = 128
"""The numbers that share a scale in a group of integers, where the name does not say."""

NAMED: Mapping[str, tuple[str, str, Shape, str | None, str | None]] = {
    "fp8": ("f8_e4m3", "f32", (), None, None),
    "fp8_row": ("f8_e4m3", "f32", (1, WHOLE), None, None),
    "fp8_128x128": ("f8_e4m3", "f32", (128, 128), None, None),
    "mxfp8": ("f8_e4m3", "f8_e8m0", (1, 32), None, None),
    "mxfp4": ("f4", "f8_e8m0", (1, 32), None, None),
    "nvfp4": ("f4", "f8_e4m3", (1, 16), None, "f32"),
    "int4": ("i4", "f16", (1, GROUP), None, None),
    "int8": ("i8", "f16", (1, GROUP), None, None),
    "uint4": ("u4", "f16", (1, GROUP), "u4", None),
    "uint8": ("u8", "f16", (1, GROUP), "u8", None),
}
"""Name -> element, scale, block, zero point and outer scale."""

_NAME = re.compile(r"(u?int[48])_g(\d{1,5})")


def scaled_encoding(name: str, shape: Sequence[int]) -> Scaled:
    """Return the scaled encoding of that name, for tensors of a shape.

    Args:
        name: one of `NAMED`; those of integers take the size of a group: ``int4_g32``.
        shape: that of the numbers.

    Raises:
        Unsupported: (rule ``unknown-encoding``) when there is none of that name, (rule
            ``block-size``) when the shape has fewer axes than its blocks.

    Example:
        >>> str(scaled_encoding("INT4_G32", (8, 64))), str(scaled_encoding("fp8_row", (8, 64)))
        ('I4:F16:1X32', 'F8_E4M3:F32:1X64')
    """
    lower = name.lower()
    grouped = _NAME.fullmatch(lower)
    row = NAMED.get(grouped[1] if grouped else lower)
    if row is None or (grouped and not int(grouped[2])):
        raise Unsupported(
            "unknown encoding",
            rule="unknown-encoding",
            got=name,
            expected=f"one of {', '.join(NAMED)}, or int4_g32 and the like",
        )
    element, scale, block, zero, outer = row
    if grouped:
        block = (1, int(grouped[2]))
    if len(block) > len(shape):
        raise Unsupported(f"{name} needs {len(block)} axes", rule="block-size", got=list(shape))
    ends = list(shape)[len(shape) - len(block) :]
    sizes = tuple(size or max(end, 1) for size, end in zip(block, ends, strict=True))
    return scaled(
        DENSE[element], DENSE[scale], sizes,
        DENSE[zero] if zero else None, DENSE[outer] if outer else None,
    )  # fmt: skip


def encode_parts(values: Array | torch.Tensor, encoding: str | Scaled) -> dict[str, Array]:
    """Encode numbers as elements with separate scales, rounded to nearest.

    The scale of a block is made from its largest magnitude, or from its smallest and largest
    number where there are zero points; `weighbridge.kernels.scaling` has each rule.

    Args:
        values: numbers of any dense dtype: a NumPy array (those of ml_dtypes included) or a torch
            tensor. They are rounded to float32 first.
        encoding: ``fp8`` (one scale), ``fp8_row``, ``fp8_128x128``, ``mxfp8``, ``mxfp4``,
            ``nvfp4``, ``int4``, ``int8`` and, with zero points, ``uint4``, ``uint8``, in groups of
            128 or as in ``int4_g32``; in capitals or not. Any `Scaled` encoding will do.

    Returns:
        ``data``, ``scale`` and, where the encoding has them, ``zero`` and ``outer`` (the scale of
        the scales, which multiplies them). Numbers of whole bytes have a dtype of their own
        (``ml_dtypes.float8_e4m3fn``); smaller ones are uint8, two in a byte, the first in the low
        bits, and the last axis as much shorter (one axis alone where rows end inside a byte).

    Raises:
        InvalidInput: (rule ``not-finite``) for infinities and NaN, (rule ``overflow``) for a scale
            that is out of range, (rule ``dtype`` or ``shape``) when `values` are no numbers.
        Unsupported: (rule ``unknown-encoding``, ``block-size``).

    Example:
        >>> rows = np.float32([[1, -2, 0.5, 4]])
        >>> parts = encode_parts(rows, "fp8_row")
        >>> parts["data"].dtype.name, parts["scale"].tolist()
        ('float8_e4m3fn', [[0.008928571827709675]])
        >>> decode_parts(parts, "fp8_row").tolist()
        [[1.0, -2.0, 0.5, 4.0]]
        >>> encode_parts(rows, "int4_g32")["data"].tolist()
        [[194, 113]]
    """
    from weighbridge.kernels.scaling import encode_scaled  # most callers never encode

    numbers = _array(values)
    chosen = _chosen(encoding, numbers.shape)
    parts = encode_scaled(chosen, numbers)
    return {part: _as_held(made, chosen.parts[part]) for part, made in parts.items()}


def decode_parts(
    parts: Mapping[str, Array | torch.Tensor],
    encoding: str | Scaled,
    shape: Sequence[int] | None = None,
    dtype: str | type | np.dtype[Any] | torch.dtype = "float32",
) -> Array:
    """Decode what `encode_parts` returns, or such tensors of a checkpoint.

    Args:
        parts: arrays or torch tensors; of numbers of less than a byte the packed bytes.
        encoding: as `encode_parts` takes it.
        shape: that of the result. By default that of ``data``, unpacked.
        dtype: the dtype of the result, to which numbers are rounded from float32.

    Raises:
        InvalidInput: (rule ``part-size``) when a part is missing or has another size, (rule
            ``overflow``) for a number that has no place in `dtype`, (rule ``encoding``) when there
            is no such dtype.
        Unsupported: (rule ``unknown-encoding``, ``block-size``).
    """
    held = {part: _array(array) for part, array in parts.items()}
    if DATA not in held:
        raise InvalidInput("a part is missing", rule="part-size", expected=DATA)
    full = tuple(shape) if shape is not None else _unpacked_shape(encoding, held[DATA])
    target = dense(dtype.__name__ if isinstance(dtype, type) else str(dtype))
    chosen = _chosen(encoding, full)
    return kernels.decode(chosen, held, full, target)


def parts_to_blocks(
    parts: Mapping[str, Array | torch.Tensor], encoding: str | Scaled, blocks: str
) -> Array:
    """Repack elements and scales as ggml's blocks of the same numbers.

    Pairs are ``mxfp4`` and MXFP4; integers in groups of 32 or a multiple and Q4_0, Q8_0, or, with
    zero points, Q4_1; 4-bit floats with E4M3 scales for each 16, without a scale of these, and
    NVFP4. Integers have F16 scales.

    Args:
        parts: as `decode_parts` takes them.
        encoding: theirs.
        blocks: the type of ggml.

    Returns:
        The rows as bytes, as `weighbridge.encode` returns them.

    Raises:
        Unsupported: (rule ``no-repack``) when these are no pair, (rule ``block-size``) when rows
            are no whole blocks.
        InvalidInput: (rule ``inexact``) for scales or zero points that the blocks cannot have.

    Example:
        >>> rows = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
        >>> parts = encode_parts(rows, "int8_g32")
        >>> packed = parts_to_blocks(parts, "int8_g32", "Q8_0")
        >>> packed.shape, blocks_to_parts(packed, "Q8_0")["scale"].shape
        ((2, 34), (2, 1))
    """
    from weighbridge.kernels.repack import pair_for, to_blocks

    held = {part: _array(array) for part, array in parts.items()}
    shape = _unpacked_shape(encoding, held[DATA])
    chosen = _chosen(encoding, shape)
    pair = pair_for(blocks, chosen)
    row = pair.blocked.nbytes(shape[-1:])
    shapes = chosen.shapes(shape)
    numbers = {
        part: kernels.decode(stored, {DATA: held[part]}, shapes[part], None)
        for part, stored in chosen.parts.items()
    }
    return to_blocks(pair, chosen, numbers).view(np.uint8).reshape(*shape[:-1], row)


def blocks_to_parts(data: Array | torch.Tensor, blocks: str) -> dict[str, Array]:
    """Repack ggml's blocks as elements and scales, one scale for each that a block has.

    Args:
        data: rows of bytes, as `weighbridge.encode` returns them.
        blocks: the type of ggml: MXFP4, NVFP4, Q4_0, Q8_0 or Q4_1.

    Returns:
        Parts as `encode_parts` returns them: ``mxfp4``, ``int4_g32``, ``int8_g32``, ``uint4_g32``.

    Raises:
        Unsupported: (rule ``no-repack``) for another type.
        InvalidInput: (rule ``inexact``) for a minimum of Q4_1 that is no multiple of its scale, or
            a scale that the parts cannot have; (rule ``part-size``) when rows end inside a block.
    """
    from weighbridge.kernels.repack import pair_for

    pair = pair_for(blocks)
    octets = np.ascontiguousarray(_array(data))
    shape = _blocks_shape(octets.shape, pair.blocked)
    made = pair.unpack(octets.reshape(-1).view(pair.blocked.dtype))
    shapes = pair.scaled.shapes(shape)
    return {
        part: _as_held(numbers.reshape(shapes[part]), pair.scaled.parts[part])
        for part, numbers in made.items()
    }


def _array(values: Any) -> Array:
    """Return numbers of any dense dtype as an array."""
    if not hasattr(values, "detach"):
        return from_array("values", np.asarray(values)).values()
    from weighbridge.engine.torch_types import from_torch  # only who has torch tensors needs torch

    return from_torch("values", values).values()


def _chosen(encoding: str | Scaled, shape: Shape) -> Scaled:
    return encoding if isinstance(encoding, Scaled) else scaled_encoding(encoding, shape)


def _as_held(numbers: Array, stored: Dense) -> Array:
    """Return numbers as an array that can hold them: packed, where they are less than a byte."""
    if stored.bits >= 8:
        return numbers
    packed = kernels.encode(stored, numbers)
    rows = numbers.shape[-1:] and numbers.shape[-1] * stored.bits % 8 == 0
    return packed.reshape(*numbers.shape[:-1], -1) if rows and numbers.size else packed


def _unpacked_shape(encoding: str | Scaled, data: Array) -> Shape:
    """Return the shape of the numbers that bytes hold."""
    element = _chosen(encoding, (1, 1, *data.shape)).element
    if element.bits >= 8 or not data.ndim:
        return data.shape
    return (*data.shape[:-1], data.shape[-1] * 8 // element.bits)


def _blocks_shape(held: Shape, blocks: Blocked) -> Shape:
    """Return the shape of the numbers that rows of blocks hold."""
    count, rest = divmod(held[-1], blocks.grain_bytes) if held else (0, 1)
    if rest:
        raise InvalidInput(
            f"rows of bytes end inside a block of {blocks}",
            rule="part-size",
            got=list(held),
            expected=f"a multiple of {blocks.grain_bytes}",
        )
    return (*held[:-1], count * blocks.grain)
