"""A tensor of several parts as the blocks that hold the same numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge import region as regions
from weighbridge.encoding import Blocked, Encoding, Scaled
from weighbridge.parted import Parted, apart
from weighbridge.rearranged import Rearranged
from weighbridge.tensor import Lazy, Tensor, as_grains

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.kernels.repack import Pair
    from weighbridge.region import Region, Shape
    from weighbridge.tensor import Array


@dataclass(frozen=True)
class Repacked(Rearranged):
    """Elements and scales, moved into blocks when they are read.

    Attributes:
        inner: the parts.
        pair: what they become, and how.
        exact: True: no number changes.

    Example:
        >>> import numpy as np
        >>> from weighbridge.encoding import DENSE
        >>> from weighbridge.kernels.ggml.lblocks import Q8_0
        >>> from weighbridge.parted import parted
        >>> from weighbridge.tensor import from_array
        >>> codes = from_array("q", np.arange(64, dtype=np.int8).reshape(2, 32))
        >>> scale = from_array("s", np.float16([[1], [2]]))
        >>> repacked(parted((1, 32), data=codes, scale=scale), Q8_0)[1, :2].tolist()
        [64.0, 66.0]
    """

    inner: Parted
    pair: Pair
    exact: bool = True

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """The inner tensor's shape."""
        return self.inner.shape

    @property
    def encoding(self) -> Encoding:  # type: ignore[override]
        """The blocks'."""
        return self.pair.blocked

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors underneath."""
        return self.inner.leaves()

    def units(self) -> tuple[int, ...]:
        """Return the inner units, with whole blocks on the last axis."""
        inner = self.inner.units()
        return (*inner[:-1], math.lcm(inner[-1], self.encoding.grain))

    def grains(self, region: Region) -> Array:
        """Read the parts of a region and move them into blocks."""
        from weighbridge.kernels.repack import to_blocks

        grain = self.encoding.grain
        start, stop = region[-1]
        values = (*region[:-1], (start * grain, stop * grain))
        numbers = self.inner.numbers(values)
        blocks = to_blocks(self.pair, self.inner.encoding, numbers, start * grain)
        return as_grains(blocks, self.encoding).reshape(regions.extent(region))

    def compute(self, region: Region) -> Array:
        """Read the parts of a region, and scale its elements: the numbers are the same."""
        return self.inner.compute(region)


def repacked(tensor: Lazy, encoding: Encoding) -> Repacked | None:
    """Return a tensor of several parts in an encoding of blocks, None where numbers would change.

    Example:
        >>> import numpy as np
        >>> from weighbridge.encoding import DENSE
        >>> from weighbridge.tensor import from_array
        >>> repacked(from_array("x", np.zeros((1, 32), np.float32)), DENSE["f16"]) is None
        True
    """
    if not isinstance(tensor.encoding, Scaled) or not isinstance(encoding, Blocked):
        return None
    from weighbridge.kernels.repack import pair_of  # only quantised weights of parts need it

    pair = pair_of(tensor.encoding, encoding)
    if pair is None or not encoding.fits(tensor.shape):
        return None
    parts = apart(tensor) if isinstance(tensor, Tensor) else tensor
    return Repacked(parts, pair) if isinstance(parts, Parted) else None
