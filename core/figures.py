"""How far numbers are from others, added up piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Distance:
    """How far numbers x are from numbers y. The distances of two pieces can be added.

    Attributes:
        worst: the largest |x - y|; NaN where one of the two alone is not a number.
        noise: the sum of the squares of x - y.
        signal: the sum of the squares of all finite x.
        values: how many numbers there are.

    Example:
        >>> distance(np.float32([3]), np.float32([4])) + distance(np.float32([2]), np.float32([0]))
        Distance(worst=2.0, noise=5.0, signal=13.0, values=2)
    """

    worst: float = 0.0
    noise: float = 0.0
    signal: float = 0.0
    values: int = 0

    def __add__(self, other: Distance) -> Distance:
        """Return the distance of both pieces together."""
        return Distance(
            max(self.worst, other.worst, key=lambda error: (math.isnan(error), error)),
            self.noise + other.noise,
            self.signal + other.signal,
            self.values + other.values,
        )

    @property
    def rms(self) -> float:
        """The root of the mean square of x - y."""
        return math.sqrt(self.noise / max(self.values, 1))

    @property
    def rms_signal(self) -> float:
        """The root of the mean square of x."""
        return math.sqrt(self.signal / max(self.values, 1))

    @property
    def relative(self) -> float:
        """The root of the mean square of x - y, divided by that of x: 0 where all are equal."""
        if self.noise == 0:
            return 0.0
        return math.sqrt(self.noise / self.signal) if self.signal else math.inf


@np.errstate(all="ignore")
def distance(x: NDArray[Any], y: NDArray[Any]) -> Distance:
    """Measure how far the numbers of two arrays of one shape are apart.

    Two equal infinities are 0 apart, and so are two that are not a number.
    """
    error, size = _error(x, y), np.abs(_wide(x))
    return Distance(
        float(np.max(error, initial=0.0)),
        float(np.sum(np.square(error))),
        float(np.sum(np.square(size), where=np.isfinite(size))),
        x.size,
    )


def _error(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    if x.dtype == y.dtype and x.dtype.kind in "iu":  # exact, which float64 would not be
        between = np.maximum(x, y) - np.minimum(x, y)
        unsigned: NDArray[np.unsignedinteger[Any]] = between.view(f"u{x.dtype.itemsize}")
        return unsigned.astype(np.float64)
    a, b = _wide(x), _wide(y)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    apart: NDArray[np.float64] = np.where(equal, 0.0, np.abs(a - b))
    return apart


def _wide(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
