"""How values are encoded in one pass in compiled code: ggml's first types, ternary ones and MXFP4.

The formulas are in `legacy`, `ternary` and `microscaling`. Each function sets the bytes of one
block: `x` has its values from `at` on, `b` receives its bytes from `to` on. It returns whether all
values were finite: the bytes mean nothing else.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.kernels.ggml.mblocks import DOUBLED
from weighbridge.kernels.ggml.microscaling import floor_of_log2, halved_powers
from weighbridge.kernels.lanes import anyl, fabs, select
from weighbridge.kernels.simd_codes import (
    away,
    bits_of,
    extent,
    first,
    least,
    load,
    most,
    ones,
    set_half,
    set_octets,
    set_u8,
    set_u16,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

_ZERO, _ONE = np.float32(0), np.float32(1)
_INFINITY = np.float32(np.inf)
_HALF_DOWN = np.nextafter(np.float32(0.5), np.float32(0))
_MAX = np.finfo(np.float32).max

_HALVED = halved_powers()
_MIDDLES = (DOUBLED[:7] + DOUBLED[1:8]) / np.float32(2)
_LAST = (DOUBLED[1:8] * _HALVED.astype(np.float64)[:, None] <= _MAX).sum(axis=1).astype(np.float32)
"""The largest code whose product with half of a scale is finite."""

_POWERS = np.arange(-149, 129)


def _edges() -> NDArray[np.float32]:
    """Return, for each of `_POWERS`, the smallest number whose logarithm C rounds to it."""
    exact = np.where(_POWERS < -126, 1 << np.maximum(_POWERS + 149, 0), _POWERS + 127 << 23)
    below = exact.astype(np.int32)[:, None] - np.arange(128, dtype=np.int32)
    numbers = np.maximum(below, 1).view(np.float32)
    count = (floor_of_log2(numbers) >= _POWERS[:, None]).sum(axis=1)
    return np.append(numbers[np.arange(len(exact)), count - 1], np.float32(np.inf))


_EDGES = _edges()


def _inverse(scale: Any) -> Any:
    return _ONE / scale if scale != _ZERO else _ZERO


def q8_0(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `lblocks.Q8_0`."""
    low, high = load(x, at), load(x, at + 16)
    largest: Any = extent(low, high)
    d = largest / np.float32(127)
    inverse = _inverse(d)
    set_half(b, to, d)
    set_octets(b, to + 2, whole(away(low * inverse, _HALF_DOWN), 127.0))
    set_octets(b, to + 18, whole(away(high * inverse, _HALF_DOWN), 127.0))
    return largest < _INFINITY


def q4_0(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `lblocks.Q4_0`."""
    low, high = load(x, at), load(x, at + 16)
    largest = extent(low, high)
    d = _extreme(low, high, largest) / np.float32(-8)
    inverse = _inverse(d)
    set_half(b, to, d)
    codes = whole(high * inverse + 8.5, 15.0) << 4
    set_octets(b, to + 2, codes | whole(low * inverse + 8.5, 15.0))
    return largest < _INFINITY


def q5_0(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `lblocks.Q5_0`."""
    low, high = load(x, at), load(x, at + 16)
    largest = extent(low, high)
    d = _extreme(low, high, largest) / np.float32(-16)
    inverse = _inverse(d)
    set_half(b, to, d)
    _set_five_bits(b, to + 2, whole(low * inverse + 16.5, 31.0), whole(high * inverse + 16.5, 31.0))
    return largest < _INFINITY


def q4_1(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `lblocks.Q4_1`."""
    low, high = load(x, at), load(x, at + 16)
    smallest, d = _span(low, high, np.float32(15))
    inverse = _inverse(d)
    set_half(b, to, d)
    set_half(b, to + 2, smallest)
    codes = whole((high - smallest) * inverse + 0.5, 15.0) << 4
    set_octets(b, to + 4, codes | whole((low - smallest) * inverse + 0.5, 15.0))
    return extent(low, high) < _INFINITY


def q5_1(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `lblocks.Q5_1`."""
    low, high = load(x, at), load(x, at + 16)
    smallest, d = _span(low, high, np.float32(31))
    inverse = _inverse(d)
    set_half(b, to, d)
    set_half(b, to + 2, smallest)
    low_codes = whole((low - smallest) * inverse + 0.5, 31.0)
    _set_five_bits(b, to + 4, low_codes, whole((high - smallest) * inverse + 0.5, 31.0))
    return extent(low, high) < _INFINITY


def mxfp4(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `mblocks.MXFP4`."""
    low, high = load(x, at), load(x, at + 16)
    largest = extent(low, high)
    exponent = _exponent(largest)
    scale, last = _HALVED[exponent], _LAST[exponent]
    set_u8(b, to, exponent)
    set_octets(b, to + 1, _nearest(low, scale, last) | _nearest(high, scale, last) << 4)
    return largest < _INFINITY


def tq1_0(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `ternary.TQ1_0`."""
    largest = _largest(x, at)
    inverse = _inverse(largest)
    for i in range(2):
        digits = _digit(x, at + 16 * i, inverse)
        for j in range(1, 5):
            digits = digits * 3 + _digit(x, at + 16 * i + 32 * j, inverse)
        set_octets(b, to + 16 * i, _fraction(digits))
    digits = _digit(x, at + 160, inverse)
    for j in range(1, 5):
        digits = digits * 3 + _digit(x, at + 160 + 16 * j, inverse)
    set_octets(b, to + 32, _fraction(digits))
    for i in range(4):
        number = 0
        for j in range(4):
            number = number * 3 + _one_digit(x[at + 240 + 4 * j + i] * inverse)
        set_u8(b, to + 48 + i, (number * 768 + 242) // 243)
    set_half(b, to + 52, largest)
    return largest < _INFINITY


def tq2_0(x: Any, at: int, b: Any, to: int) -> Any:
    """Encode a block of `ternary.TQ2_0`."""
    largest = _largest(x, at)
    inverse = _inverse(largest)
    for i in range(4):
        first_digit = at + 128 * (i // 2) + 16 * (i % 2)
        codes = _digit(x, first_digit, inverse)
        for j in range(1, 4):
            codes = codes | _digit(x, first_digit + 32 * j, inverse) << 2 * j
        set_octets(b, to + 16 * i, codes)
    set_half(b, to + 64, largest)
    return largest < _INFINITY


def _exponent(largest: Any) -> Any:
    """Return the byte of a scale for which the largest magnitude is from 4 to 8."""
    bits = bits_of(largest)
    power = (bits >> 23) + 22 if bits >> 23 else 0
    while largest >= _EDGES[power + 1]:
        power += 1
    return (power - 24) & 255 if largest > _ZERO else 0


def _nearest(values: Any, halved: Any, last: Any) -> Any:
    """Return the codes of MXFP4 nearest to 16 values; there is no minus zero."""
    zero = values * _ZERO
    magnitudes = fabs(values) / halved
    codes = zero
    for i in range(7):
        codes = codes + select(magnitudes > _MIDDLES[i], zero + _ONE, zero)
    codes = select(codes < last, codes, zero + last)
    minus = (values < _ZERO) & (codes > _ZERO)
    return whole(select(minus, codes + 8.0, codes), 15.0)


def _largest(x: Any, at: int) -> Any:
    """Return the largest magnitude of 256 values, likewise."""
    found: Any = _ZERO
    for i in range(0, 256, 32):
        part = extent(load(x, at + i), load(x, at + i + 16))
        found = part if bits_of(part) > bits_of(found) else found
    return found


def _digit(x: Any, at: int, inverse: Any) -> Any:
    """Return 0, 1 or 2 for 16 values: -1, 0 or 1 of the block's scale."""
    return whole(away(load(x, at) * inverse, _HALF_DOWN), 1.0) + 1


def _one_digit(scaled: Any) -> Any:
    if not abs(scaled) < _INFINITY:
        return 1
    return int(scaled + math.copysign(_HALF_DOWN, scaled)) + 1


def _fraction(digits: Any) -> Any:
    """Return the bytes for columns of five digits: the smallest that decode to them."""
    # The product and the shift divide by 243 whatever the digits are.
    return (digits * 256 + 242) * 69043 >> 24


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
    body.__name__: body for body in (q4_0, q4_1, q5_0, q5_1, q8_0, mxfp4, tq1_0, tq2_0)
}
"""The encoders by the names of their encodings."""
