"""Swapping two parts of an axis inside each of its groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weighbridge import region as regions
from weighbridge.ops.op import Op, along_last, only, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.ops.op import Array, Fetch
    from weighbridge.region import Region, Shape


@dataclass(frozen=True)
class Swap(Op):
    """See an axis as `outer` groups of (`first`, `second`, rest) and swap these two.

    Rotary position embeddings want a head's rows either as two halves or interleaved: with
    ``outer`` heads, ``Swap(0, heads, 2, head_dim // 2)`` goes from halves (transformers) to pairs
    (llama.cpp's ``llama`` architecture).

    Example:
        >>> import numpy as np
        >>> from weighbridge.ops import apply
        >>> from weighbridge.tensor import from_array
        >>> x = from_array("x", np.arange(8, dtype=np.float32).reshape(8, 1))
        >>> apply(Swap(0, 2, 2, 2), [x])[0].values().ravel().astype(int).tolist()
        [0, 2, 1, 3, 4, 6, 5, 7]
    """

    axis: int
    outer: int
    first: int
    second: int

    @property
    def inverse(self) -> Swap:
        """The same groups, swapped back."""
        return replace(self, first=self.second, second=self.first)

    def _inner(self, inputs: Sequence[Shape]) -> int:
        shape = only(inputs, self)
        groups = self.outer * self.first * self.second
        if not 0 <= self.axis < len(shape) or groups < 1 or shape[self.axis] % groups:
            raise refuse(self, inputs, f"axis {self.axis} in multiples of {groups}")
        return shape[self.axis] // groups

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the input's own shape."""
        self._inner(inputs)
        return (inputs[0],)

    def run(self, inputs: Sequence[Shape]) -> int:
        """Return the length of what lies under the two swapped axes."""
        return along_last(self.axis, inputs[0], self._inner(inputs))

    def on_grid(self, inputs: Sequence[Shape], grain: int) -> Swap:
        """Return the operation itself: its groups hold for grains as well."""
        del inputs, grain
        return self

    def units(self, result: int, inputs: Sequence[Shape]) -> tuple[int, ...]:
        """Return one group on the axis."""
        del result
        group = max(self.first * self.second * self._inner(inputs), 1)
        return tuple(group if axis == self.axis else 1 for axis in range(len(inputs[0])))

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read whole groups, swap inside them, and cut."""
        del result
        inner = self._inner(inputs)
        group = max(self.first * self.second * inner, 1)
        start, stop = region[self.axis]
        low, high = regions.aligned(start, stop, group, inputs[0][self.axis])
        source = fetch(0, regions.replaced(region, self.axis, low, high))
        before, after = source.shape[: self.axis], source.shape[self.axis + 1 :]
        groups = (high - low) // group
        apart = source.reshape(*before, groups, self.first, self.second, inner, *after)
        at = len(before) + 1
        swapped = apart.swapaxes(at, at + 1).reshape(source.shape)
        return swapped[(slice(None),) * self.axis + (slice(start - low, stop - low),)]
