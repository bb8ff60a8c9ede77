"""How values are encoded as ggml's first types in compiled code: see `legacy` for the formulas.

Each function sets the bytes of one block: `x` has its 32 values from `at` on, `b` receives its
bytes from `to` on. It returns whether all values were finite: the bytes mean nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.kernels.lanes import anyl, fabs, select
from weighbridge.kernels.simd_codes import (
    away,
    extent,
    first,
    least,
    load,
    most,
    ones,
    set_half,
    set_octets,
    set_u16,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ZERO, _ONE = np.float32(0), np.float32(1)
_INFINITY = np.float32(np.inf)
_HALF_DOWN = np.nextafter(np.float32(0.5), np.float32(0))


def _inverse(scale: Any) -> Any:
    return _ONE / scale if scale != _ZERO else _ZERO


def q8_0(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `legacy.Q8_0`."""
    low, high = load(x, at), load(x, at + 16)
    largest: Any = extent(low, high)
    d = largest / np.float32(127)
    inverse = _inverse(d)
    set_half(b, to, d)
    set_octets(b, to + 2, whole(away(low * inverse, _HALF_DOWN), 127.0))
    set_octets(b, to + 18, whole(away(high * inverse, _HALF_DOWN), 127.0))
    return largest < _INFINITY


def q4_0(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `legacy.Q4_0`."""
    low, high = load(x, at), load(x, at + 16)
    largest = extent(low, high)
    d = _extreme(low, high, largest) / np.float32(-8)
    inverse = _inverse(d)
    set_half(b, to, d)
    codes = whole(high * inverse + 8.5, 15.0) << 4
    set_octets(b, to + 2, codes | whole(low * inverse + 8.5, 15.0))
    return largest < _INFINITY


def q5_0(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `legacy.Q5_0`."""
    low, high = load(x, at), load(x, at + 16)
    largest = extent(low, high)
    d = _extreme(low, high, largest) / np.float32(-16)
    inverse = _inverse(d)
    set_half(b, to, d)
    _set_five_bits(b, to + 2, whole(low * inverse + 16.5, 31.0), whole(high * inverse + 16.5, 31.0))
    return largest < _INFINITY


def q4_1(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `legacy.Q4_1`."""
    low, high = load(x, at), load(x, at + 16)
    smallest, d = _span(low, high, np.float32(15))
    inverse = _inverse(d)
    set_half(b, to, d)
    set_half(b, to + 2, smallest)
    codes = whole((high - smallest) * inverse + 0.5, 15.0) << 4
    set_octets(b, to + 4, codes | whole((low - smallest) * inverse + 0.5, 15.0))
    return extent(low, high) < _INFINITY


def q5_1(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `legacy.Q5_1`."""
    low, high = load(x, at), load(x, at + 16)
    smallest, d = _span(low, high, np.float32(31))
    inverse = _inverse(d)
    set_half(b, to, d)
    set_half(b, to + 2, smallest)
    low_codes = whole((low - smallest) * inverse + 0.5, 31.0)
    _set_five_bits(b, to + 4, low_codes, whole((high - smallest) * inverse + 0.5, 31.0))
    return extent(low, high) < _INFINITY


def _extreme(low: Any, high: Any, largest: Any) -> Any:
    """Return the first value of largest magnitude, +0 if that is 0."""
    here = fabs(low) == largest
    found = first(here, low) if anyl(here) else first(fabs(high) == largest, high)
    return found + _ZERO


def _span(low: Any, high: Any, steps: Any) -> Any:
    """Return the smallest value, the first of equals, and a part of the way to the largest."""
    below = select(high < low, high, low)
    smallest = least(below)
    here = low == smallest
    smallest = first(here, low) if anyl(here) else first(high == smallest, high)
    above = select(high > low, high, low)
    # Of two zeros, the largest value may be -0: the span is +0.
    return smallest, (most(above) - smallest + _ZERO) / steps


def _set_five_bits(b: Any, at: int, low: Any, high: Any) -> None:
    set_u16(b, at, ones(low >> 4))
    set_u16(b, at + 2, ones(high >> 4))
    set_octets(b, at + 4, low & 15 | (high & 15) << 4)


BODIES: Mapping[str, Callable[[Any, int, Any, int], Any]] = {
    body.__name__: body for body in (q4_0, q4_1, q5_0, q5_1, q8_0)
}
"""The encoders by the names of their encodings."""
