"""Adding a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.ops.op import Op, only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.ops.op import Array, Fetch
    from weighbridge.region import Region, Shape


@dataclass(frozen=True)
class Add(Op):
    """Add a number, in float32.

    Example:
        >>> from weighbridge.ops import apply
        >>> from weighbridge.tensor import from_array
        >>> apply(Add(1.0), [from_array("x", np.zeros(2, np.float32))])[0].values()
        array([1., 1.], dtype=float32)
    """

    amount: float

    @property
    def inverse(self) -> Add:
        """Subtract it."""
        return Add(-self.amount)

    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the input's shape."""
        return (only(inputs, self),)

    def run(self, inputs: Sequence[Shape]) -> None:
        """Return None: values change."""
        del inputs

    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Read the region and add."""
        del result, inputs
        values = fetch(0, region).astype(np.float32)
        with np.errstate(invalid="ignore"):  # a NaN stays one, whatever its bits
            return values + np.float32(self.amount)
