"""Dense numbers in NumPy: from bytes, to bytes, and from one type to another."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weighbridge.encoding import DENSE, Dense
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels import shortcuts
from weighbridge.kernels.ranges import Range, lossless, range_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = NDArray[Any]

_OF_DTYPE: Mapping[np.dtype[Any], Dense] = {dense.dtype: dense for dense in DENSE.values()}
_TABLE_BATCH = 1 << 16


def dense_of(values: Array) -> Dense:
    """Return the encoding whose unpacked numbers have the type of `values`.

    Raises:
        Unsupported: (rule ``dtype``) when no dense encoding has such numbers.
    """
    dense = _OF_DTYPE.get(values.dtype)
    if dense is None:
        raise Unsupported("no dense encoding holds such numbers", rule="dtype", got=values.dtype)
    return dense


def unpack(data: NDArray[np.uint8], encoding: Dense, count: int) -> Array:
    """Return the `count` numbers in `data`, as a view where numbers are whole bytes.

    Numbers of less than a byte come one a byte; the first is in the low bits (ONNX
    ``TensorProto.raw_data``; the pairs of safetensors ``F4`` likewise).

    Example:
        >>> unpack(np.array([0x21, 0x0F], np.uint8), DENSE["i4"], 3).tolist()
        [1, 2, -1]
    """
    if encoding.bits >= 8:
        return data.view(encoding.dtype)
    missing = -data.size % encoding.grain_bytes
    if missing:
        data = np.concatenate([data, np.zeros(missing, np.uint8)])
    words = _words(data.reshape(-1, encoding.grain_bytes))
    numbers = np.empty((len(words), encoding.grain), np.uint8)
    for i in range(encoding.grain):
        numbers[:, i] = words >> (i * encoding.bits) & ((1 << encoding.bits) - 1)
    return numbers.reshape(-1)[:count].view(encoding.dtype)


def _words(grains: NDArray[np.uint8]) -> NDArray[Any]:
    if grains.shape[1] == 1:
        return grains[:, 0]
    words = np.zeros(len(grains), np.uint32)
    for i in range(grains.shape[1]):
        words |= grains[:, i].astype(np.uint32) << (8 * i)
    return words


def pack(values: Array, encoding: Dense) -> NDArray[np.uint8]:
    """Return the bytes of `values`, which have the type of `encoding` already.

    Example:
        >>> pack(np.array([1, 2, -1], DENSE["i4"].dtype), DENSE["i4"]).tolist()
        [33, 15]
    """
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    if encoding.bits >= 8:
        return flat
    grains = np.zeros((-(-flat.size // encoding.grain), encoding.grain), np.uint32)
    grains.reshape(-1)[: flat.size] = flat & ((1 << encoding.bits) - 1)
    grains <<= np.arange(encoding.grain, dtype=np.uint32) * encoding.bits
    words = np.bitwise_or.reduce(grains, axis=1)
    octets = words.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : encoding.grain_bytes]
    packed: NDArray[np.uint8] = np.ascontiguousarray(octets).reshape(-1)
    return packed[: encoding.nbytes((flat.size,))]


@np.errstate(all="ignore")
def cast(values: Array, to: Dense) -> Array:
    """Return `values` as numbers of `to`, rounded once to nearest, ties to even.

    Not-a-number stays so (quiet, as ggml's ``ggml_compute_fp32_to_bf16`` has it) and infinities
    stay infinite. What has no place in `to` is refused instead of becoming something else.

    Raises:
        InvalidInput: (rule ``overflow``) naming the first number that is too large, or is not a
            finite number while `to` has finite numbers only; (rule ``inexact``) for integers
            above 2**53 that would have to be rounded twice.
        Unsupported: (rule ``dtype``) from complex numbers to others.

    Example:
        >>> cast(np.float32([1.00390625, 3e-8]), DENSE["bf16"]).astype(float).tolist()
        [1.0, 3.003515303134918e-08]
        >>> cast(np.int32([1, 300]), DENSE["u8"])
        Traceback (most recent call last):
        ...
        weighbridge.errors.InvalidInput: out of U8's range (got 300, expected 0 to 255) [overflow]
    """
    source = dense_of(values)
    if source == to:
        return values
    results = np.empty(values.shape, to.dtype)
    if _compiled_cast(values, source, to, results):
        return results
    if lossless(source, to):
        return _widened(values, to)
    if range_of(source).pairs:
        raise Unsupported(f"complex numbers cannot become {to}", rule="dtype", got=source)
    plain = _plain(values)
    _refuse_misfits(plain, to)
    return _looked_up(values, to) if _is_tabled(source) else _rounded(plain, to)


def cast_into(values: Array, out: Array) -> None:
    """Set a contiguous array of the same shape to `values` as numbers of its type; see `cast`."""
    source, to = dense_of(values), dense_of(out)
    if not _compiled_cast(values, source, to, out):
        out[...] = cast(values, to)


@np.errstate(all="ignore")
def narrow_exactly(values: Array, to: Dense) -> Array:
    """Return `values` as numbers of `to`, of which each is exactly what it was.

    Raises:
        InvalidInput: (rule ``inexact``) naming the first value that would change, or (rule
            ``overflow``) the first that is out of range.

    Example:
        >>> narrow_exactly(np.float32([1.5, -0.0]), DENSE["bf16"]).astype(float).tolist()
        [1.5, -0.0]
        >>> narrow_exactly(np.float32([0.1]), DENSE["f16"])
        Traceback (most recent call last):
        ...
        weighbridge.errors.InvalidInput: not exactly a number of F16 (got 0.1) [inexact]
    """
    narrow = cast(values, to)
    back = cast(narrow, dense_of(values)) if narrow.dtype != values.dtype else values
    changed = back != values
    if changed.any() and (changed := changed & ~(np.isnan(back) & np.isnan(values))).any():
        raise InvalidInput(f"not exactly a number of {to}", rule="inexact", got=values[changed][0])
    return narrow


def _compiled_cast(values: Array, source: Dense, to: Dense, results: Array) -> bool:
    """Cast in compiled code; False where there is none, or NumPy has to refuse a number.

    Bits are the same, those of NaN included.
    """
    run = shortcuts.caster(source, to, values.size)
    flat = values.reshape(-1)
    if run is None or not (flat.flags.c_contiguous and flat.flags.aligned):
        return False
    return bool(run(_bits(flat), _bits(results.reshape(-1))))


def _bits(values: Array) -> Array:
    return values.view(f"u{values.itemsize}")


def _widened(values: Array, to: Dense) -> Array:
    """Return `values` as numbers of `to`, which has all of them. To widen bf16 is but a shift."""
    source = dense_of(values)
    if _is_tabled(source) and source.name != "bf16":
        return _looked_up(values, to)
    if source.name == "bool":
        # A file may have any byte here, not only 0 and 1.
        values = (values.view(np.uint8) != 0).view(np.uint8)
    elif source.bits < 8:
        values = values.astype(np.int8)
    return values.astype(to.dtype)


def _plain(values: Array) -> Array:
    """Return `values` in a type of NumPy's own that holds them exactly."""
    source = dense_of(values)
    if source.dtype.isbuiltin == 1:
        return values
    return _widened(values, DENSE["i8" if range_of(source).integers else "f32"])


def _is_tabled(source: Dense) -> bool:
    """Tell whether a table of all its numbers is faster than a cast: for small floats it is."""
    return source.bits <= 16 and not range_of(source).integers


def _looked_up(values: Array, to: Dense) -> Array:
    flat = np.ascontiguousarray(values).reshape(-1)
    codes = flat.view(np.dtype(f"u{flat.itemsize}"))
    numbers = np.empty(codes.shape, to.dtype)
    table = _table(dense_of(values), to)
    for start in range(0, codes.size, _TABLE_BATCH):
        part = slice(start, start + _TABLE_BATCH)
        # "wrap" spares the check of indices that cannot be out of range.
        np.take(table, codes[part], out=numbers[part], mode="wrap")
    return numbers.reshape(values.shape)


@functools.cache
def _table(source: Dense, to: Dense) -> Array:
    """Return what every code of `source`, of one or two bytes, is in `to`."""
    width = source.dtype.itemsize
    codes = np.arange(1 << (8 * width), dtype=np.dtype(f"u{width}"))
    with np.errstate(all="ignore"):
        plain = codes.view(source.dtype)
        if source.dtype.isbuiltin != 1:
            plain = plain.astype(np.float32)
        return plain.astype(to.dtype) if lossless(source, to) else _rounded(plain, to)


def _refuse_misfits(values: Array, to: Dense) -> None:
    numbers = range_of(to)
    if not values.size or _all_fit(values, numbers):
        return
    misfits = _misfits(values, numbers)
    if misfits.any():
        raise InvalidInput(
            f"out of {to}'s range",
            rule="overflow",
            got=values[misfits][0],
            expected=f"{numbers.low} to {numbers.high}",
        )


def _bounds(values: Array, numbers: Range) -> tuple[float, float]:
    both_integers = values.dtype.kind in "iu" and numbers.integers
    return (numbers.low, numbers.high) if both_integers else numbers.rounded


def _all_fit(values: Array, numbers: Range) -> bool:
    """Tell, quickly, whether the extremes of `values` are in range: False where one is NaN."""
    low, high = _bounds(values, numbers)
    return bool(low <= values.min().item() and values.max().item() <= high)


def _misfits(values: Array, numbers: Range) -> NDArray[np.bool_]:
    low, high = _bounds(values, numbers)
    if not isinstance(high, int):
        # As Python floats the bounds would be rounded to the type of the values.
        low, high = np.float64(low), np.float64(high)
    misfits = ~((values >= low) & (values <= high))
    if numbers.infinity:
        misfits &= ~np.isinf(values)
    if numbers.nan:
        misfits &= ~np.isnan(values)
    return misfits


def _rounded(values: Array, to: Dense) -> Array:
    """Return numbers in `to`'s range, rounded once, in its type."""
    if range_of(to).integers:
        whole = np.rint(values, out=np.empty_like(values)) if values.dtype.kind == "f" else values
        return whole.astype(np.int8 if to.bits < 8 else to.dtype).astype(to.dtype)
    if to.dtype.isbuiltin == 1:
        return values.astype(to.dtype)
    singles = values if values.dtype == np.float32 else _to_odd(values, to)
    rounded = singles.astype(to.dtype)
    return _keep_nan_bits(singles, rounded) if to.name == "bf16" else rounded


def _to_odd(values: Array, to: Dense) -> NDArray[np.float32]:
    """Return `values` as f32 from which another rounding gives what a single one would.

    Where a value lies between two f32, the one whose last bit is set is taken: it is never half
    way between two numbers of fewer digits.
    """
    doubles = values.astype(np.float64)
    if values.dtype.kind in "iu" and (np.abs(doubles) > 1 << 53).any():
        raise InvalidInput(f"an integer is too large for an exact cast to {to}", rule="inexact")
    singles = doubles.astype(np.float32)
    bits = singles.view(np.uint32)
    bits -= np.abs(singles) > np.abs(doubles)
    bits |= (singles != doubles) & ~np.isnan(doubles)
    return singles


def _keep_nan_bits(singles: NDArray[np.float32], rounded: Array) -> Array:
    """Give the NaN in bf16 `rounded` the upper bits that they have in `singles`, but quiet."""
    nan = np.isnan(singles)
    if nan.any():
        bits = singles.view(np.uint32)[nan] >> 16
        rounded.view(np.uint16)[nan] = bits.astype(np.uint16) | 0x40
    return rounded
