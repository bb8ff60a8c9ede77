"""The parts that a tensor's numbers are encoded to, each a lazy tensor of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge import region as regions
from weighbridge.encoding import DATA, Dense, Scaled
from weighbridge.packed import Computed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.region import Region, Shape
    from weighbridge.tensor import Array, Lazy, Tensor


VALUES = 1 << 19
"""Values that are encoded at once where only their scales are wanted."""


@dataclass(frozen=True)
class EncodedPart(Computed):
    """Elements, scales or zero points that numbers are rounded to when they are read.

    Blocks are read whole, so that regions are best cut at blocks.

    Attributes:
        inner: the numbers.
        scaled: what all parts together are.
        part: which of them this is.

    Example:
        >>> import numpy as np
        >>> from weighbridge.encoding import DENSE, scaled
        >>> from weighbridge.tensor import from_array
        >>> rows = from_array("x", np.float32([[448, 1], [2, 896]]))
        >>> fp8 = scaled(DENSE["f8_e4m3"], DENSE["f32"], (1, 2))
        >>> [EncodedPart(rows, fp8, part)[1].tolist() for part in fp8.parts]
        [[1.0, 448.0], [2.0]]
    """

    inner: Lazy
    scaled: Scaled
    part: str

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """The shape of the part."""
        return self.scaled.shapes(self.inner.shape)[self.part]

    @property
    def encoding(self) -> Dense:  # type: ignore[override]
        """How the part is stored."""
        return self.scaled.parts[self.part]

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors underneath."""
        return self.inner.leaves()

    def units(self) -> tuple[int, ...]:
        """Return a block for elements."""
        return self._block() if self.part == DATA else (1,) * self.ndim

    def compute(self, region: Region) -> Array:
        """Read the blocks of a region whole, and round their numbers."""
        return self._elements(region) if self.part == DATA else self._of_blocks(region)

    def _elements(self, region: Region) -> Array:
        wide = self._in_values(
            tuple(
                (start // size, -(-stop // size))
                for (start, stop), size in zip(region, self._block(), strict=True)
            )
        )
        inside = tuple(
            (start - low, stop - low) for (start, stop), (low, _) in zip(region, wide, strict=True)
        )
        return self._encoded(wide)[regions.slices(inside)]

    def _of_blocks(self, region: Region) -> Array:
        """Return a number for each block; there are far more values than these: bit by bit."""
        shape = regions.extent(region)
        made = np.empty(shape, self.encoding.dtype)
        most = max(VALUES // math.prod(self._block()), 1)
        for tile in regions.tiles(shape, most, (1,) * len(shape)):
            pairs = zip(tile, region, strict=True)
            here = tuple((start + low, stop + low) for (start, stop), (low, _) in pairs)
            made[regions.slices(tile)] = self._encoded(self._in_values(here))
        return made

    def _encoded(self, region: Region) -> Array:
        from weighbridge.kernels.scaling import encode_scaled  # needed only where weights are read

        return encode_scaled(self.scaled, self.inner.compute(region))[self.part]

    def _in_values(self, of_blocks: Region) -> Region:
        """Return a region of blocks as one of values."""
        return tuple(
            (start * size, min(stop * size, length))
            for (start, stop), size, length in zip(
                of_blocks, self._block(), self.inner.shape, strict=True
            )
        )

    def _block(self) -> tuple[int, ...]:
        from weighbridge.kernels.scaled import full_block

        return full_block(self.scaled, self.inner.ndim)
