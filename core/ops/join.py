"""Joining tensors along an axis, and cutting them again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from weighbridge import region as regions
from weighbridge.ops.op import Op, along_last, only, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.ops.op import Array, Fetch
    from weighbridge.region import Region, Shape


@dataclass(frozen=True)
class Concat(Op):
    """Join tensors along an axis; `sizes` are their lengths on it, so that the inverse needs none.

    Example:
        >>> Concat(0, (2, 1)).shapes([(2, 4), (1, 4)])
        ((3, 4),)
    """

    axis: int
    sizes: tuple[int, ...]

    @property
    def inverse(self) -> Split:
        """Cut at the same places."""
        return Split(self.axis, self.sizes)

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the joined shape."""
        if not inputs:
            raise refuse(self, inputs, "at least one tensor")
        whole = regions.extent(
            regions.replaced(regions.whole(inputs[0]), self.axis, 0, sum(self.sizes))
        )
        if self.inverse.shapes([whole]) != tuple(inputs):
            raise refuse(self, inputs, f"lengths {list(self.sizes)} on axis {self.axis}")
        return (whole,)

    def run(self, inputs: Sequence[Shape]) -> int:
        """Return the largest run that no seam cuts."""
        return along_last(self.axis, inputs[0], int(np.gcd.reduce(self.sizes)))

    def on_grid(self, inputs: Sequence[Shape], grain: int) -> Concat:
        """Return the operation with its sizes in grains."""
        return replace(self, sizes=_sizes_in_grains(self.axis, self.sizes, inputs[0], grain))

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read what each input gives of the region, and join."""
        del result, inputs
        start, stop = region[self.axis]
        pieces: list[Array] = []
        offset = 0
        for number, size in enumerate(self.sizes):
            low, high = max(start - offset, 0), min(stop - offset, size)
            if low < high:
                pieces.append(fetch(number, regions.replaced(region, self.axis, low, high)))
            offset += size
        if not pieces:
            return fetch(0, regions.replaced(region, self.axis, 0, 0))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, self.axis)


@dataclass(frozen=True)
class Split(Op):
    """Cut a tensor along an axis into pieces of `sizes`.

    Example:
        >>> Split(0, (2, 1)).shapes([(3, 4)])
        ((2, 4), (1, 4))
    """

    axis: int
    sizes: tuple[int, ...]

    @property
    def inverse(self) -> Concat:
        """Join the pieces."""
        return Concat(self.axis, self.sizes)

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shapes of the pieces."""
        shape = only(inputs, self)
        if not 0 <= self.axis < len(shape) or shape[self.axis] != sum(self.sizes):
            raise refuse(self, inputs, f"length {sum(self.sizes)} on axis {self.axis}")
        whole = regions.whole(shape)
        return tuple(
            regions.extent(regions.replaced(whole, self.axis, 0, size)) for size in self.sizes
        )

    def run(self, inputs: Sequence[Shape]) -> int:
        """Return the largest run that no seam cuts."""
        return along_last(self.axis, inputs[0], int(np.gcd.reduce(self.sizes)))

    def on_grid(self, inputs: Sequence[Shape], grain: int) -> Split:
        """Return the operation with its sizes in grains."""
        return replace(self, sizes=_sizes_in_grains(self.axis, self.sizes, inputs[0], grain))

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read the region, moved to where the piece begins."""
        del inputs
        offset = sum(self.sizes[:result])
        start, stop = region[self.axis]
        return fetch(0, regions.replaced(region, self.axis, start + offset, stop + offset))


def _sizes_in_grains(
    axis: int, sizes: tuple[int, ...], shape: Shape, grain: int
) -> tuple[int, ...]:
    return tuple(size // grain for size in sizes) if axis == len(shape) - 1 else sizes
