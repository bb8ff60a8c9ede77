"""A tensor's numbers in another encoding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge import region as regions
from weighbridge.encoding import DATA, Dense, Encoding
from weighbridge.repacked import repacked
from weighbridge.tensor import Lazy, Tensor, as_grains, in_grains, whole_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from weighbridge.importance import Importance
    from weighbridge.region import Region, Shape


@dataclass(frozen=True)
class Recoded(Lazy):
    """A lazy tensor, decoded and encoded anew when it is read.

    Attributes:
        inner: the tensor whose numbers are meant.
        encoding: how they are stored from now on.
        exact: True where no number may change: one that does is an error, not a rounding.
        importance: how much each column counts, where the encoding makes use of that; then only
            whole rows are encoded.

    Example:
        >>> import numpy as np
        >>> from weighbridge.encoding import DENSE
        >>> from weighbridge.tensor import from_array
        >>> x = from_array("x", np.array([1.5, 2.0], np.float32))
        >>> Recoded(x, DENSE["bf16"]).values().dtype.name
        'bfloat16'
    """

    inner: Lazy
    encoding: Encoding
    exact: bool = False
    importance: Importance | None = None

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """The inner tensor's shape."""
        return self.inner.shape

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors underneath."""
        return self.inner.leaves()

    def units(self) -> tuple[int, ...]:
        """Return the inner units, with whole grains of both encodings on the last axis.

        With importance that axis is whole.
        """
        inner = self.inner.units()
        if not inner:
            return inner
        if self.importance:
            return (*inner[:-1], self.shape[-1])
        return (*inner[:-1], math.lcm(inner[-1], self.inner.encoding.grain, self.encoding.grain))

    def grains(self, region: Region) -> NDArray[Any]:
        """Decode a region and encode it."""
        if not whole_rows(self.shape, self.encoding):
            data = self._encoded(regions.whole(self.shape))
            return as_grains(data, self.encoding)[regions.slices(region)]
        wide, inside = regions.widened(
            _in_values(region, self.encoding.grain), self._unit, self.shape
        )
        data = as_grains(self._encoded(wide), self.encoding)
        grid = regions.extent(in_grains(wide, self.encoding.grain))
        return data.reshape(grid)[regions.slices(in_grains(inside, self.encoding.grain))]

    def compute(self, region: Region) -> NDArray[Any]:
        """Decode a region, round it through the encoding, and decode that."""
        from weighbridge import kernels  # the codecs are needed only here

        wide, inside = regions.widened(region, self._unit, self.shape)
        data = {DATA: self._encoded(wide)}
        decoded = kernels.decode(self.encoding, data, regions.extent(wide), None)
        return decoded[regions.slices(inside)]

    @property
    def _unit(self) -> int:
        """The values of a row that are encoded together."""
        return self.shape[-1] if self.importance else self.encoding.grain

    def _encoded(self, region: Region) -> NDArray[np.uint8]:
        """Encode the values of a region of the shape."""
        from weighbridge import kernels

        values = self.inner.compute(region)
        if self.exact and isinstance(self.encoding, Dense):
            values = kernels.narrow_exactly(values, self.encoding)
        weights = self.importance.of(region) if self.importance else None
        return kernels.encode(self.encoding, values, weights)


def recode(
    tensor: Lazy,
    encoding: Encoding,
    *,
    exact: bool = False,
    importance: Importance | None = None,
) -> Lazy:
    """Return `tensor` in `encoding`: itself where it is stored so, repacked if it can be.

    Args:
        tensor: the tensor.
        encoding: how it is to be stored.
        exact: whether no number may change.
        importance: how much each column counts; of no effect where the encoding ignores it.
    """
    if tensor.encoding == encoding:
        return tensor
    return repacked(tensor, encoding) or Recoded(tensor, encoding, exact, importance)


def _in_values(region: Region, grain: int) -> Region:
    """Return a region of the grid as a region of the shape."""
    if grain == 1:
        return region
    start, stop = region[-1]
    return (*region[:-1], (start * grain, stop * grain))
