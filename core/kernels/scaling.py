"""How numbers are rounded to elements with separate scales, in NumPy; `scaled` has the way back.

Every element is rounded to nearest, ties to even, having been divided by its scale as it is stored.
What the scale of a block is follows from the encoding:

- floats, and signed integers: the largest magnitude over the largest element (448 for E4M3, 6 for
  E2M1, 7 for 4-bit integers, 127 for 8-bit ones);
- a scale that is a power of two (E8M0): two to the power of the largest magnitude's exponent less
  the largest element's (OCP Microscaling Formats 1.0, section 6.3); magnitudes over the largest
  element saturate;
- with zero points: the range from the smallest to the largest number, of which zero is always one,
  over the number of steps; zero points are rounded to nearest;
- with a scale of scales (NVFP4): that is the largest magnitude of all over the largest element and
  the largest scale; then each block's as above, in units of it.

A block of zeros has a scale of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weighbridge.encoding import DATA, DENSE, Dense, Scaled
from weighbridge.errors import InvalidInput
from weighbridge.kernels.dense import cast
from weighbridge.kernels.ranges import range_of
from weighbridge.kernels.scaled import full_block

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[Any]
Singles = NDArray[np.float32]
Parts = dict[str, Array]


@np.errstate(all="ignore")
def encode_scaled(encoding: Scaled, values: Array) -> Parts:
    """Return the numbers of each part that `values` are stored as, in the shapes that parts have.

    Args:
        encoding: how they are to be stored.
        values: numbers, rounded to float32 first.

    Raises:
        InvalidInput: (rule ``not-finite``) for infinities and NaN, (rule ``overflow``) for a scale
            that is out of its own encoding's range.
        Unsupported: (rule ``block-size``) when there are fewer axes than a block has.

    Example:
        >>> from weighbridge.encoding import scaled
        >>> int4 = scaled(DENSE["i4"], DENSE["f32"], (1, 2))
        >>> parts = encode_scaled(int4, np.float32([[7, -3.5, 0.25, 1]]))
        >>> parts["data"].tolist(), parts["scale"].tolist()
        ([[7, -4, 2, 7]], [[1.0, 0.1428571492433548]])
    """
    singles = cast(values, DENSE["f32"])
    _refuse_not_finite(singles, encoding)
    shapes = encoding.shapes(singles.shape)
    blocks = _Blocks(full_block(encoding, singles.ndim), shapes["scale"])
    parts = _levels(encoding, singles, blocks)
    scale = blocks.spread(_effective(encoding, parts), singles.shape)
    steps = singles / scale
    if encoding.zero:
        steps = np.rint(steps) + blocks.spread(cast(parts["zero"], DENSE["f32"]), singles.shape)
    steps[np.broadcast_to(scale == 0, steps.shape)] = 0
    return {DATA: _saturated(steps, encoding.element), **parts}


class _Blocks:
    """Reduces values to one number a block, and spreads such numbers over the values again."""

    def __init__(self, block: Sequence[int], shape: Sequence[int]) -> None:
        self.block = block
        self.shape = shape

    def reduced(self, ufunc: np.ufunc, values: Singles) -> Singles:
        """Return what `ufunc` makes of each block, in the shape of the scales."""
        if not values.size:
            return np.zeros(self.shape, np.float32)
        # The last axis first: its numbers are neighbours in memory, and fewer remain.
        for axis, size in reversed(list(enumerate(self.block))):
            if size > 1:
                starts = np.arange(0, values.shape[axis], size)
                values = ufunc.reduceat(values, starts, axis)
        return values.reshape(self.shape)

    def spread(self, numbers: Array, shape: Sequence[int]) -> Array:
        """Return what can be combined with values of `shape`: one number alone stays as it is."""
        if len(numbers.shape) != len(shape):
            return numbers
        for axis, (size, length) in enumerate(zip(self.block, shape, strict=True)):
            if size > 1 and numbers.shape[axis] > 1:
                numbers = numbers.repeat(size, axis)[(slice(None),) * axis + (slice(length),)]
        return numbers


def _levels(encoding: Scaled, values: Singles, blocks: _Blocks) -> Parts:
    """Return all parts but the elements."""
    if encoding.zero:
        return _with_zeros(encoding, values, blocks)
    most = blocks.reduced(np.maximum, np.abs(values))
    if encoding.outer:
        return _two_levels(encoding, most)
    if encoding.scale.name == "f8_e8m0":
        exponent = np.frexp(most)[1] - np.frexp(np.float32(_largest(encoding.element)))[1]
        scale = np.ldexp(np.float32(1), np.clip(exponent, -127, 127))
    else:
        scale = most / _largest(encoding.element)
    return {"scale": _stored(np.where(most == 0, np.float32(1), scale), encoding.scale)}


def _two_levels(encoding: Scaled, most: Singles) -> Parts:
    assert encoding.outer is not None
    element, unit = _largest(encoding.element), _largest(encoding.scale)
    peak = most.max(initial=0)
    outer = np.float32(1) if peak == 0 else peak / (element * unit)
    if encoding.divides:
        outer = np.float32(1) if peak == 0 else element * unit / peak
        scale = most / element * outer
    else:
        scale = most / element / outer
    scale = np.where(most == 0, np.float32(1), np.minimum(scale, unit))
    return {
        "scale": cast(scale.astype(np.float32), encoding.scale),
        "outer": cast(np.asarray(outer, np.float32), encoding.outer),
    }


def _with_zeros(encoding: Scaled, values: Singles, blocks: _Blocks) -> Parts:
    assert encoding.zero is not None
    zero = np.float32(0)
    low = np.minimum(blocks.reduced(np.minimum, values), zero)
    high = np.maximum(blocks.reduced(np.maximum, values), zero)
    numbers = range_of(encoding.element)
    scale = (high - low) / np.float32(numbers.high - numbers.low)
    stored = _stored(np.where(scale == 0, np.float32(1), scale), encoding.scale)
    points = np.float32(numbers.low) - low / cast(stored, DENSE["f32"])
    return {"scale": stored, "zero": _saturated(points, encoding.zero)}


def _effective(encoding: Scaled, parts: Parts) -> Array:
    """Return the scales as decoding has them."""
    scale = cast(parts["scale"], DENSE["f32"])
    if not encoding.outer:
        return scale
    outer = cast(parts["outer"], DENSE["f32"])
    return scale / outer if encoding.divides else scale * outer


def _stored(scale: Singles, dense: Dense) -> Array:
    return cast(np.asarray(scale, np.float32), dense)


def _largest(dense: Dense) -> np.float32:
    return np.float32(range_of(dense).high)


def _saturated(values: Array, dense: Dense) -> Array:
    """Return numbers rounded to `dense`, those out of its range to its ends."""
    numbers = range_of(dense)
    low = -numbers.high if dense.name[0] == "i" else numbers.low
    return cast(np.clip(values, np.float32(low), np.float32(numbers.high)), dense)


def _refuse_not_finite(values: Singles, encoding: Scaled) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise InvalidInput(
            f"{encoding} cannot hold numbers that are not finite",
            rule="not-finite",
            got=values[~finite][0],
        )
