"""A tensor's numbers in another encoding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge import region as regions
from weighbridge.encoding import DATA, Dense, Encoding
from weighbridge.tensor import Lazy, Tensor, as_grains, whole_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from weighbridge.region import Region, Shape


@dataclass(frozen=True)
class Recoded(Lazy):
    """A lazy tensor, decoded and encoded anew when it is read.

    Attributes:
        inner: the tensor whose numbers are meant.
        encoding: how they are stored from now on.
        exact: True where no number may change: one that does is an error, not a rounding.

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

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """The inner tensor's shape."""
        return self.inner.shape

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors underneath."""
        return self.inner.leaves()

    def units(self) -> tuple[int, ...]:
        """Return the inner units, with whole grains of both encodings on the last axis."""
        inner = self.inner.units()
        if not inner:
            return inner
        return (*inner[:-1], math.lcm(inner[-1], self.inner.encoding.grain, self.encoding.grain))

    def grains(self, region: Region) -> NDArray[Any]:
        """Decode a region and encode it."""
        if not whole_rows(self.shape, self.encoding):
            values = self.inner.compute(regions.whole(self.shape))
            return as_grains(self._encoded(values), self.encoding)[regions.slices(region)]
        values = self.inner.compute(_in_values(region, self.encoding.grain))
        return as_grains(self._encoded(values), self.encoding).reshape(regions.extent(region))

    def compute(self, region: Region) -> NDArray[Any]:
        """Decode a region, round it through the encoding, and decode that."""
        from weighbridge import kernels  # the codecs are needed only here

        wide, inside = regions.widened(region, self.encoding.grain, self.shape)
        values = self.inner.compute(wide)
        data = {DATA: self._encoded(values)}
        decoded = kernels.decode(self.encoding, data, values.shape, None)
        return decoded[regions.slices(inside)]

    def _encoded(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        from weighbridge import kernels

        if self.exact and isinstance(self.encoding, Dense):
            values = kernels.narrow_exactly(values, self.encoding)
        return kernels.encode(self.encoding, values)


def recode(tensor: Lazy, encoding: Encoding, *, exact: bool = False) -> Lazy:
    """Return `tensor` in `encoding`: itself where it is stored so already."""
    return tensor if tensor.encoding == encoding else Recoded(tensor, encoding, exact)


def _in_values(region: Region, grain: int) -> Region:
    """Return a region of the grid as a region of the shape."""
    if grain == 1:
        return region
    start, stop = region[-1]
    return (*region[:-1], (start * grain, stop * grain))
