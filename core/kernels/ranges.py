"""Which numbers a dense encoding holds, and so which casts lose nothing."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from weighbridge.encoding import DENSE, Dense, Encoding

_COMPLEX = ("c64", "c128")


@dataclass(frozen=True)
class Range:
    """The numbers that a dense encoding holds.

    They are all those of up to `digits` binary digits that are multiples of `quantum` and lie from
    `low` to `high`.

    Attributes:
        digits: binary digits of a number; the largest power of two of each sign needs only one.
        quantum: the smallest positive number.
        low: the smallest number, exact: a Python integer where the numbers are integers.
        high: the largest number, likewise.
        infinity: whether there are infinities.
        nan: whether there is a "not a number".
        minus_zero: whether zero has a sign.
        pairs: whether a number is a pair of these: a complex number.
    """

    digits: int
    quantum: float
    low: float
    high: float
    infinity: bool = False
    nan: bool = False
    minus_zero: bool = False
    pairs: bool = False

    @property
    def integers(self) -> bool:
        """Tell whether all numbers are integers."""
        return isinstance(self.high, int)

    def includes(self, other: Range) -> bool:
        """Tell whether every number of `other` is one of these."""
        return (
            self.digits >= other.digits
            and self.quantum <= other.quantum
            and self.low <= other.low
            and other.high <= self.high
            and self.infinity >= other.infinity
            and self.nan >= other.nan
            and self.minus_zero >= other.minus_zero
            and self.pairs >= other.pairs
        )

    @functools.cached_property
    def rounded(self) -> tuple[float, float]:
        """The smallest and the largest number that rounding to nearest, ties to even, brings here.

        Example:
            >>> range_of(DENSE["f16"]).rounded[1], range_of(DENSE["u8"]).rounded
            (65519.99999999999, (-0.5, 255.49999999999997))
        """
        return -_reach(-self.low, self) if self.low <= 0 else self.low, _reach(self.high, self)


def _reach(extreme: float, numbers: Range) -> float:
    """Return the largest number that rounds to `extreme`, the largest magnitude of its sign."""
    unit = 1 if numbers.integers else math.ldexp(1.0, math.frexp(extreme)[1] - numbers.digits)
    tie = float(extreme) + unit / 2
    even = extreme // unit % 2 == 0
    return tie if even else math.nextafter(tie, 0.0)


@functools.cache
def range_of(encoding: Dense) -> Range:
    """Return which numbers `encoding` holds.

    Example:
        >>> range_of(DENSE["f8_e4m3"]).high, range_of(DENSE["i4"]).low
        (448.0, -8)
    """
    if encoding.name == "bool":
        return Range(1, 1.0, 0, 1)
    if encoding.name in _COMPLEX:
        part = range_of(DENSE["f32" if encoding.name == "c64" else "f64"])
        return Range(part.digits, part.quantum, part.low, part.high, True, True, True, True)
    return _integers(encoding) if encoding.name[0] in "iu" else _floats(encoding)


def _integers(encoding: Dense) -> Range:
    info = ml_dtypes.iinfo(encoding.dtype)  # type: ignore[no-untyped-call]
    low, high = int(info.min), int(info.max)
    return Range(high.bit_length(), 1.0, low, high)


def _floats(encoding: Dense) -> Range:
    info = ml_dtypes.finfo(encoding.dtype)  # type: ignore[no-untyped-call]
    odd = np.array([math.inf, math.nan, -0.0], np.float32).astype(encoding.dtype)
    infinity, nan, zero = odd.astype(np.float32)
    high, quantum = float(info.max), float(info.smallest_subnormal)
    return Range(
        digits=int(info.nmant) + 1,
        quantum=quantum,
        low=float(info.min),
        high=high,
        infinity=bool(np.isinf(infinity)),
        nan=bool(np.isnan(nan)),
        minus_zero=bool(zero == 0 and np.signbit(zero)),
    )


def lossless(source: Encoding, target: Encoding) -> bool:
    """Tell whether every number of `source` is exactly a number of `target`.

    Only dense encodings are compared; any other holds its own numbers and no other's.

    Example:
        >>> lossless(DENSE["bf16"], DENSE["f32"]), lossless(DENSE["bf16"], DENSE["f16"])
        (True, False)
        >>> lossless(DENSE["u8"], DENSE["i16"]), lossless(DENSE["i64"], DENSE["f64"])
        (True, False)
    """
    if source == target:
        return True
    if not isinstance(source, Dense) or not isinstance(target, Dense):
        return False
    return range_of(target).includes(range_of(source))
