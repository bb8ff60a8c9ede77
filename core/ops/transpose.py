"""Putting axes in another order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.ops.op import Op, only, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.ops.op import Array, Fetch
    from weighbridge.region import Region, Shape


@dataclass(frozen=True)
class Transpose(Op):
    """Put the axes in another order.

    Example:
        >>> import numpy as np
        >>> from weighbridge.ops import apply
        >>> from weighbridge.tensor import from_array
        >>> apply(Transpose(), [from_array("x", np.zeros((2, 3), np.float32))])[0].shape
        (3, 2)
    """

    axes: tuple[int, ...] = (1, 0)

    @property
    def inverse(self) -> Transpose:
        """The order that puts the axes back."""
        return Transpose(tuple(self.axes.index(axis) for axis in range(len(self.axes))))

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape in the new order."""
        shape = only(inputs, self)
        if sorted(self.axes) != list(range(len(shape))):
            raise refuse(self, inputs, f"{len(self.axes)} axes")
        return (tuple(shape[axis] for axis in self.axes),)

    def run(self, inputs: Sequence[Shape]) -> int:
        """Return 1 where the last axis moves."""
        return 0 if self.axes[-1:] == (len(inputs[0]) - 1,) else 1

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read the transposed region and transpose it."""
        del result, inputs
        back = self.inverse.axes
        return fetch(0, tuple(region[axis] for axis in back)).transpose(self.axes)
