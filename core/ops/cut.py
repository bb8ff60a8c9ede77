"""Leaving out the beginning of an axis, and putting zeros in its place."""

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
class Cut(Op):
    """Leave out the first `count` entries of an axis.

    Example:
        >>> from weighbridge.ops import apply
        >>> from weighbridge.tensor import from_array
        >>> x = from_array("x", np.arange(4, dtype=np.float32))
        >>> apply(Cut(0, 1), [x])[0].values().tolist()
        [1.0, 2.0, 3.0]
    """

    axis: int
    count: int

    @property
    def inverse(self) -> Pad:
        """Put zeros in their place: what they were is lost."""
        return Pad(self.axis, self.count)

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape of what is left."""
        shape = only(inputs, self)
        if not 0 <= self.axis < len(shape) or not 0 <= self.count <= shape[self.axis]:
            raise refuse(self, inputs, f"at least {self.count} on axis {self.axis}")
        return (_longer(shape, self.axis, -self.count),)

    def run(self, inputs: Sequence[Shape]) -> int:
        """Return the largest run that the seam does not cut."""
        return _run(self.axis, self.count, inputs[0])

    def on_grid(self, inputs: Sequence[Shape], grain: int) -> Cut:
        """Return the operation with its count in grains."""
        return replace(self, count=_in_grains(self.axis, self.count, inputs[0], grain))

    def remark(self, inputs: Sequence[Shape]) -> tuple[str, str] | None:
        """Tell what is left out."""
        if not self.count:
            return None
        length = inputs[0][self.axis]
        told = f"the first {self.count} of {length} on axis {self.axis} have no place in the target"
        return "dropped", told

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read the region, moved past what is left out."""
        del result, inputs
        start, stop = region[self.axis]
        moved = start + self.count, stop + self.count
        return fetch(0, regions.replaced(region, self.axis, *moved))


@dataclass(frozen=True)
class Pad(Op):
    """Put `count` zeros before an axis.

    Example:
        >>> from weighbridge.ops import apply
        >>> from weighbridge.tensor import from_array
        >>> x = from_array("x", np.ones((1, 2), np.float32))
        >>> apply(Pad(0, 1), [x])[0].values().tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """

    axis: int
    count: int

    @property
    def inverse(self) -> Cut:
        """Leave them out again."""
        return Cut(self.axis, self.count)

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the longer shape."""
        shape = only(inputs, self)
        if not 0 <= self.axis < len(shape) or self.count < 0:
            raise refuse(self, inputs, f"an axis {self.axis}")
        return (_longer(shape, self.axis, self.count),)

    def run(self, inputs: Sequence[Shape]) -> int:
        """Return the largest run that the seam does not cut."""
        return _run(self.axis, self.count, inputs[0])

    def on_grid(self, inputs: Sequence[Shape], grain: int) -> Pad:
        """Return the operation with its count in grains: a grain of zero bytes holds zeros."""
        return replace(self, count=_in_grains(self.axis, self.count, inputs[0], grain))

    def remark(self, inputs: Sequence[Shape]) -> tuple[str, str] | None:
        """Tell what is made up."""
        if not self.count:
            return None
        length = inputs[0][self.axis] + self.count
        told = f"the first {self.count} of {length} on axis {self.axis}, as zeros"
        return "generated", told

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read what the region has of the input, and put zeros before it."""
        del result, inputs
        start, stop = region[self.axis]
        low, high = max(start - self.count, 0), max(stop - self.count, 0)
        read = fetch(0, regions.replaced(region, self.axis, low, high))
        missing = (stop - start) - (high - low)
        if not missing:
            return read
        shape = regions.extent(regions.replaced(region, self.axis, 0, missing))
        return np.concatenate([np.zeros(shape, read.dtype), read], self.axis)


def _longer(shape: Shape, axis: int, count: int) -> Shape:
    return (*shape[:axis], shape[axis] + count, *shape[axis + 1 :])


def _run(axis: int, count: int, shape: Shape) -> int:
    return along_last(axis, shape, int(np.gcd(count, shape[axis])))


def _in_grains(axis: int, count: int, shape: Shape, grain: int) -> int:
    return count // grain if axis == len(shape) - 1 else count
