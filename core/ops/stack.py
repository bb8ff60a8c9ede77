"""Stacking tensors along a new axis, and taking them apart again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.ops.op import Op, only, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.ops.op import Array, Fetch
    from weighbridge.region import Region, Shape


@dataclass(frozen=True)
class Stack(Op):
    """Stack `count` tensors of one shape along a new first axis.

    Example:
        >>> Stack(3).shapes([(2, 4)] * 3)
        ((3, 2, 4),)
    """

    count: int

    @property
    def inverse(self) -> Unstack:
        """Take them apart."""
        return Unstack(self.count)

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the stacked shape."""
        if len(inputs) != self.count or len(set(inputs)) != 1:
            raise refuse(self, inputs, f"{self.count} tensors of one shape")
        return ((self.count, *inputs[0]),)

    def run(self, inputs: Sequence[Shape]) -> int:
        """Return 0 for matrices; 1 where single numbers are stacked."""
        return 0 if inputs[0] else 1

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read the inputs that the region touches, one after the other."""
        del result
        numbers = range(*region[0])
        if not numbers:
            return fetch(0, region[1:])[None][:0]
        return np.stack([fetch(number, region[1:]) for number in numbers])


@dataclass(frozen=True)
class Unstack(Op):
    """Take the first axis, of length `count`, apart.

    Example:
        >>> Unstack(2).shapes([(2, 5)])
        ((5,), (5,))
    """

    count: int

    @property
    def inverse(self) -> Stack:
        """Stack them again."""
        return Stack(self.count)

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape without its first axis, `count` times."""
        shape = only(inputs, self)
        if not shape or shape[0] != self.count:
            raise refuse(self, inputs, f"{self.count} on the first axis")
        return (shape[1:],) * self.count

    def run(self, inputs: Sequence[Shape]) -> int:
        """Return 0 for matrices; 1 where single numbers are taken apart."""
        return 0 if len(inputs[0]) > 1 else 1

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read the one slice."""
        del inputs
        array: Array = fetch(0, ((result, result + 1), *region))[0, ...]
        return array
