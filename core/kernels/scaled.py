"""Numbers with separate scales, in NumPy: ``value = (element - zero) * scale``."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weighbridge.encoding import DATA, DENSE, Scaled, Shape
from weighbridge.kernels.dense import cast, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Array = NDArray[Any]
Singles = NDArray[np.float32]


class _Piece(NamedTuple):
    """A part of an axis that is a whole number of blocks: of `number` blocks of `size` values."""

    values: slice
    blocks: slice
    number: int
    size: int


def decode_scaled(
    encoding: Scaled, parts: Mapping[str, NDArray[np.uint8]], shape: Shape
) -> Singles:
    r"""Return the numbers of a tensor of `shape` whose `parts` are bytes; see `scale_numbers`.

    Example:
        >>> from weighbridge.encoding import scaled
        >>> u4, f32 = DENSE["u4"], DENSE["f32"]
        >>> parts = {"data": b"\x21\x43", "scale": np.float32([0.5, 2]), "zero": b"\x31"}
        >>> parts = {name: np.frombuffer(part, np.uint8) for name, part in parts.items()}
        >>> decode_scaled(scaled(u4, f32, (1, 2), u4), parts, (1, 4)).tolist()
        [[0.0, 0.5, 0.0, 2.0]]
    """
    shapes = encoding.shapes(shape)
    numbers = {
        part: unpack(parts[part], dense, math.prod(shapes[part])).reshape(shapes[part])
        for part, dense in encoding.parts.items()
    }
    return scale_numbers(encoding, numbers, (0,) * len(shape))


def scale_numbers(encoding: Scaled, numbers: Mapping[str, Array], starts: Sequence[int]) -> Singles:
    """Return the values of a region of a tensor.

    Elements, scales and zero points are cast to float32 first; all that follows is float32: the
    scale by the outer scale, then the subtraction, then the product.

    Args:
        encoding: how the tensor is stored.
        numbers: for each part, those that the region needs: all the elements in it, the scales and
            zero points of every block that it touches.
        starts: for each axis, where the region begins.
    """
    values = _singles(numbers[DATA])
    if values is numbers[DATA]:
        values = values.copy()
    starts = tuple(starts)
    block = full_block(encoding, values.ndim)
    scales = _scales(encoding, numbers)
    if not encoding.block:
        scales = scales.reshape((1,) * values.ndim)
    zeros = _singles(numbers["zero"]).reshape(scales.shape) if encoding.zero else None
    ends = [start + length for start, length in zip(starts, values.shape, strict=True)]
    for region in itertools.product(*map(_pieces, starts, ends, block)):
        _apply(values, scales, zeros, region)
    return values


def full_block(encoding: Scaled, ndim: int) -> tuple[int, ...]:
    """Return the shape of a block with all axes; one axis of a whole tensor's block has no end.

    Example:
        >>> from weighbridge.encoding import scaled
        >>> full_block(scaled(DENSE["f4"], DENSE["f8_e8m0"], (32,)), 3)
        (1, 1, 32)
    """
    if not encoding.block:
        return (ENDLESS,) * ndim
    return (1,) * (ndim - len(encoding.block)) + encoding.block


ENDLESS = 1 << 62
"""More than any axis has."""


def _singles(numbers: Array) -> Singles:
    return cast(numbers, DENSE["f32"])


@np.errstate(all="ignore")
def _scales(encoding: Scaled, numbers: Mapping[str, Array]) -> Singles:
    scales = _singles(numbers["scale"])
    if not encoding.outer:
        return scales
    outer = _singles(numbers["outer"])
    return scales / outer if encoding.divides else scales * outer


def _pieces(start: int, stop: int, size: int) -> Iterator[_Piece]:
    """Yield the end of a block that a range begins in, its whole blocks, the begin of its last."""
    first, at = start // size, start
    cuts = {min(-(-start // size) * size, stop), max(stop // size * size, start), stop}
    for end in sorted(cuts):
        if end == at:
            continue
        number = max((end - at) // size, 1)
        block = at // size - first
        yield _Piece(
            slice(at - start, end - start),
            slice(block, block + number),
            number,
            (end - at) // number,
        )
        at = end


@np.errstate(all="ignore")
def _apply(
    values: Singles, scales: Singles, zeros: Singles | None, region: tuple[_Piece, ...]
) -> None:
    """Shift and scale one region of `values` in place; splitting its axes makes no copy."""
    split = [n for piece in region for n in (piece.number, piece.size)]
    spread = [n for piece in region for n in (piece.number, 1)]
    blocks = tuple(piece.blocks for piece in region)
    cells = values[tuple(piece.values for piece in region)].reshape(split)
    if zeros is not None:
        cells -= zeros[blocks].reshape(spread)
    cells *= scales[blocks].reshape(spread)
