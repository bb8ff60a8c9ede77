"""Numbers with separate scales, in NumPy: ``value = (element - zero) * scale``."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weighbridge.encoding import DATA, DENSE, Dense, Scaled, Shape
from weighbridge.kernels.dense import cast, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
    r"""Return the numbers of a tensor of `shape` whose `parts` are ``data``, ``scale``, ``zero``.

    Elements, scales and zero points are cast to float32 first; the subtraction and the product
    are float32.

    Example:
        >>> from weighbridge.encoding import scaled
        >>> u4, f32 = DENSE["u4"], DENSE["f32"]
        >>> parts = {"data": b"\x21\x43", "scale": np.float32([0.5, 2]), "zero": b"\x31"}
        >>> parts = {name: np.frombuffer(part, np.uint8) for name, part in parts.items()}
        >>> decode_scaled(scaled(u4, f32, (1, 2), u4), parts, (1, 4)).tolist()
        [[0.0, 0.5, 0.0, 2.0]]
    """
    values = _singles(parts[DATA], encoding.element, shape)
    if encoding.element.name == "f32":
        values = values.copy()
    block = encoding.block or tuple(max(n, 1) for n in shape)
    block = (1,) * (len(shape) - len(block)) + block
    blocks = tuple(-(-n // size) for n, size in zip(shape, block, strict=True))
    scales = _singles(parts["scale"], encoding.scale, blocks)
    zeros = None if encoding.zero is None else _singles(parts["zero"], encoding.zero, blocks)
    for region in itertools.product(*map(_pieces, shape, block)):
        _apply(values, scales, zeros, region)
    return values


def _singles(data: NDArray[np.uint8], dense: Dense, shape: Shape) -> Singles:
    numbers = unpack(data, dense, math.prod(shape))
    return cast(numbers, DENSE["f32"]).reshape(shape)


def _pieces(length: int, size: int) -> Iterator[_Piece]:
    """Yield the whole blocks of an axis, then the short last one, where there are any."""
    count, rest = divmod(length, size)
    if count:
        yield _Piece(slice(0, length - rest), slice(0, count), count, size)
    if rest:
        yield _Piece(slice(length - rest, length), slice(count, count + 1), 1, rest)


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
