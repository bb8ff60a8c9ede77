"""Regions: which part of a tensor is meant, one (start, stop) for each axis.

Reading, moving and converting all happen region by region, so that memory is bounded by the
region and not by the tensor.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import EllipsisType

Shape = tuple[int, ...]
Region = tuple[tuple[int, int], ...]


def whole(shape: Sequence[int]) -> Region:
    """Return the region of all of `shape`.

    Example:
        >>> whole((2, 3))
        ((0, 2), (0, 3))
    """
    return tuple((0, length) for length in shape)


def extent(region: Region) -> Shape:
    """Return the shape of a region.

    Example:
        >>> extent(((1, 3), (0, 4)))
        (2, 4)
    """
    return tuple(stop - start for start, stop in region)


def replaced(region: Region, axis: int, start: int, stop: int) -> Region:
    """Return `region` with another range on one axis.

    Example:
        >>> replaced(((0, 2), (0, 3)), 1, 1, 2)
        ((0, 2), (1, 2))
    """
    return (*region[:axis], (start, stop), *region[axis + 1 :])


def aligned(start: int, stop: int, unit: int, length: int) -> tuple[int, int]:
    """Return the smallest range of whole units that holds ``start:stop``, cut at `length`.

    Example:
        >>> aligned(5, 9, 4, 100)
        (4, 12)
    """
    return start // unit * unit, min(-(-stop // unit) * unit, length)


def widened(region: Region, grain: int, shape: Shape) -> tuple[Region, Region]:
    """Return `region` in whole grains of the last axis, and where it lies in that.

    Example:
        >>> widened(((0, 2), (5, 40)), 32, (2, 64))
        (((0, 2), (0, 64)), ((0, 2), (5, 40)))
    """
    if not region:
        return region, region
    start, stop = region[-1]
    low, high = aligned(start, stop, grain, shape[-1])
    inside = whole(extent(region[:-1]))
    return (*region[:-1], (low, high)), (*inside, (start - low, stop - low))


def slices(region: Region) -> tuple[slice | EllipsisType, ...]:
    """Return a region as the index of an array, which gives an array even where there is no axis.

    Example:
        >>> slices(((1, 2),))
        (slice(1, 2, None), Ellipsis)
    """
    return (*(slice(start, stop) for start, stop in region), ...)


def runs(region: Region, shape: Shape) -> Iterator[tuple[int, int]]:
    """Yield the contiguous runs of a region in row-major order, as (first item, items).

    Example:
        >>> list(runs(((0, 2), (1, 3)), (2, 4)))
        [(1, 2), (5, 2)]
        >>> list(runs(((1, 3), (0, 4)), (5, 4)))
        [(4, 8)]
    """
    inner = len(shape)
    while inner and region[inner - 1] == (0, shape[inner - 1]):
        inner -= 1
    axis = max(inner - 1, 0)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    length = math.prod(extent(region[axis:]))
    base = region[axis][0] * strides[axis] if shape else 0
    for index in product(*(range(*bounds) for bounds in region[:axis])):
        yield base + sum(i * s for i, s in zip(index, strides, strict=False)), length


def tiles(shape: Shape, most: int, units: Sequence[int]) -> Iterator[Region]:
    """Cut `shape` into regions of about `most` items, in row-major order.

    Args:
        shape: what is cut.
        most: how many items a region may have; a region of one unit may have more.
        units: for each axis, the length that a cut must be a multiple of.

    Example:
        >>> list(tiles((4, 4), 8, (1, 1)))
        [((0, 2), (0, 4)), ((2, 4), (0, 4))]
        >>> list(tiles((1, 6), 4, (1, 2)))
        [((0, 1), (0, 4)), ((0, 1), (4, 6))]
    """
    steps = []
    room = most
    for axis, (length, unit) in enumerate(zip(shape, units, strict=True)):
        inner = math.prod(shape[axis + 1 :])
        step = length if length * inner <= room else max(room // max(inner, 1) // unit, 1) * unit
        steps.append(max(min(step, length), 1))
        room = max(room // max(steps[-1], 1), 1)
    starts = (range(0, length, step) for length, step in zip(shape, steps, strict=True))
    for corner in product(*starts):
        yield tuple(
            (start, min(start + step, length))
            for start, step, length in zip(corner, steps, shape, strict=True)
        )
