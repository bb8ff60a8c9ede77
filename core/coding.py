"""Encode and decode arrays in memory: any encoding by its name, no model needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge import kernels
from weighbridge import region as regions
from weighbridge.codecs import codec, encodable
from weighbridge.encoding import DATA, DENSE, Blocked, Dense, Encoding, dense
from weighbridge.engine.budget import BYTES_PER_VALUE, budget
from weighbridge.engine.progress import silent
from weighbridge.engine.write import run_jobs, workers
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels.dense import dense_of
from weighbridge.kernels.importance import checked, matrices
from weighbridge.placing import decode_there, encode_there, octets_there, place_of
from weighbridge.tensor import whole_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from weighbridge.region import Shape

    Array = NDArray[Any]
    Octets = NDArray[np.uint8]

PIECE = 1 << 19
"""Values that a thread codes at once: what they need stays in the cache."""


def encode(
    values: Array | torch.Tensor,
    encoding: str | Encoding,
    importance: Array | torch.Tensor | None = None,
    *,
    device: str | torch.device | None = None,
    threads: int | None = None,
) -> Any:
    """Encode numbers, row by row, with the bytes that ggml gives for its own types.

    Args:
        values: numbers of any dense dtype, of shape ``(..., n)``: a NumPy array (those of
            ml_dtypes included) or a torch tensor. Blocks are made of float32, to which other
            numbers are rounded first.
        encoding: ``Q4_K``, ``Q8_0``, ``IQ4_XS``, ``MXFP4``, ``BF16``, ``F8_E4M3``, ``I8``: a type
            of ggml, a dtype, or what an entry point has added; in capitals or not.
        importance: how much the error of each column counts, numbers of shape ``(n,)``: the
            ``quant_weights`` of ggml, one row of an importance matrix. For a stack of matrices,
            as experts are, they may be of shape ``values.shape[:-2] + (n,)``. ggml demands them
            for IQ2_XXS, IQ2_XS and IQ1_S; where it makes no use of them, as in Q8_0, MXFP4 and
            the casts, they change nothing.
        device: where to work: ``cpu``, ``cuda``, ``cuda:1``. By default where `values` are. The
            bytes are the same. What has no kernel on a GPU (float64, importance, a few encodings)
            is encoded on the CPU and copied. Speed on a GPU has not been measured.
        threads: how many threads work; None takes one for each core.

    Returns:
        The rows as bytes: uint8 of shape ``(..., bytes of a row)``. An array from the CPU, a torch
        tensor on a GPU.

    Raises:
        InvalidInput: (rule ``overflow``) for a number that is out of the encoding's range, (rule
            ``not-finite``) for infinities and NaN where the encoding has no place for them, (rule
            ``dtype`` or ``shape``) when `values` are no rows of numbers, (rule ``importance``)
            when weights are missing, of another shape, negative or not finite.
        Unsupported: (rule ``unknown-encoding``, ``no-encoder``) for an encoding that cannot be
            made, (rule ``block-size``) when the rows are no whole number of its blocks, (rule
            ``device``) when there is no such device.

    Example:
        >>> rows = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
        >>> packed = encode(rows, "Q4_K")
        >>> packed.shape, packed.dtype
        ((2, 144), dtype('uint8'))
        >>> bool(np.abs(decode(packed, "Q4_K") - rows).max() < 0.05)
        True
        >>> encode(np.float64([1, -2]), "BF16").tobytes().hex()
        '803f00c0'
        >>> first_counts = np.arange(256) < 32  # the others count for nothing
        >>> weighted = decode(encode(rows, "Q2_K", first_counts), "Q2_K") - rows
        >>> alike = decode(encode(rows, "Q2_K"), "Q2_K") - rows
        >>> bool(np.square(weighted[:, :32]).sum() < np.square(alike[:, :32]).sum())
        True
    """
    target = encodable(encoding, weighted=importance is not None)
    place = place_of(values, device)
    if place is not None:
        on_cpu = partial(encode, values, target, importance, device="cpu", threads=threads)
        return encode_there(place, values, target, on_cpu, weighted=importance is not None)
    numbers = _numbers(values)
    shape = numbers.shape
    packed = np.empty((*shape[:-1], _row_bytes(target, shape)), np.uint8)
    weights = None if importance is None else checked(_numbers(importance), shape)
    pieces = [
        _Piece(partial(_encode_into, octets, target, part, columns), octets.nbytes, part.size)
        for part, octets, columns in _weighted_parts(target, numbers, packed, weights)
    ]
    _run(pieces, threads)
    return packed


def decode(
    data: Octets | bytes | bytearray | memoryview | torch.Tensor,
    encoding: str | Encoding,
    shape: Sequence[int] | None = None,
    dtype: str | type | np.dtype[Any] | torch.dtype | None = "float32",
    *,
    device: str | torch.device | None = None,
    threads: int | None = None,
) -> Any:
    """Decode what `encode` returns, or the bytes of a tensor from a file.

    Args:
        data: bytes; an array or a torch tensor of uint8 may have any shape.
        encoding: as `encode` takes it; every one can be decoded.
        shape: the shape of the result. By default that of `data`, its last axis decoded.
        dtype: the dtype of the result, to which numbers are rounded: ``float32``, ``bfloat16``.
            None keeps that of a dense encoding, and gives float32 for blocks.
        device: where to work, as for `encode`: by default where `data` is.
        threads: how many threads work; None takes one for each core.

    Returns:
        An array of `shape`. It is of a dtype of ml_dtypes where NumPy has none of its own. On a
        GPU, a torch tensor.

    Raises:
        InvalidInput: (rule ``part-size``) when `data` has not the bytes of that shape, or not of
            whole blocks; (rule ``overflow``) for a number that has no place in `dtype`; (rule
            ``encoding``) when there is no such dtype; (rule ``dtype``) when `data` is not bytes.
        Unsupported: (rule ``unknown-encoding``), (rule ``block-size``) when no tensor of `shape`
            can be stored so, (rule ``device``) when there is no such device.

    Example:
        >>> data = bytes.fromhex("003c") + bytes(range(32))  # a block of Q8_0: a scale of 1, codes
        >>> decode(data, "Q8_0")[:4].tolist()
        [0.0, 1.0, 2.0, 3.0]
        >>> decode(data, "Q8_0", (4, 8)).shape
        Traceback (most recent call last):
        ...
        weighbridge.errors.Unsupported: rows cannot be cut into blocks of Q8_0 \
(got rows of 8 values, expected a multiple of 32) [block-size]
    """
    source = codec(encoding).encoding
    place = place_of(data, device)
    held: Any = _octets(data) if place is None else octets_there(place, data, lambda: _octets(data))
    full = _inferred(tuple(held.shape), source) if shape is None else _checked_shape(shape)
    _check_size(math.prod(held.shape), source, full)
    target = _result_dtype(source, dtype)
    if place is not None:
        on_cpu = partial(decode, data, source, full, target.name, device="cpu", threads=threads)
        return decode_there(held, source, full, target, on_cpu)
    if not whole_rows(full, source):
        return kernels.decode(source, {DATA: held}, full, target)
    values = np.empty(full, target.dtype)
    # Rows are whole grains: together they are one long row.
    row, packed = values.reshape(1, -1), held.reshape(1, -1)
    pieces = [
        _Piece(partial(_decode_into, part[0], source, octets[0], target), part.nbytes, part.size)
        for part, octets in _parts(source, row, packed, source.grain)
    ]
    _run(pieces, threads)
    return values


def _numbers(values: Any) -> Array:
    """Return numbers as an array with at least one axis, in this machine's order."""
    if hasattr(values, "detach"):
        from weighbridge.engine.torch_types import from_torch

        lazy = from_torch("values", values)
        array = lazy.values()
    elif isinstance(values, np.ndarray | np.generic):
        array = np.asarray(values)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        dense_of(array)
    else:
        raise InvalidInput(
            "is neither a NumPy array nor a torch tensor",
            rule="dtype",
            got=type(values).__name__,
        )
    if not array.ndim:
        raise InvalidInput("a single number has no rows", rule="shape", expected="an axis or more")
    return array


def _octets(data: Any) -> Octets:
    """Return bytes as an array with at least one axis."""
    if hasattr(data, "detach"):
        data = _numbers(data)
    if not isinstance(data, np.ndarray):
        return np.frombuffer(data, np.uint8)
    if data.dtype.kind not in "iu" or data.dtype.itemsize != 1:
        raise InvalidInput("encoded data is bytes", rule="dtype", got=data.dtype, expected="uint8")
    return np.atleast_1d(data).view(np.uint8)


def _row_bytes(encoding: Encoding, shape: Shape) -> int:
    length = shape[-1]
    if whole_rows(shape, encoding):
        return encoding.nbytes(shape[-1:])
    raise Unsupported(
        f"rows cannot be cut into blocks of {encoding}",
        rule="block-size",
        got=f"rows of {length} values",
        expected=f"a multiple of {encoding.grain}",
        hint=f"what fits: {', '.join(_fitting(length))}",
    )


def _fitting(length: int) -> list[str]:
    """Return the blocks that rows of `length` values can be encoded in, and a dense encoding."""
    from weighbridge.kernels.ggml import GGML

    found = [each.encoding for each in GGML.values() if each.encode]
    return [*(str(one) for one in found if length % one.grain == 0), "F16"]


def _inferred(held: Shape, encoding: Encoding) -> Shape:
    grains, rest = divmod(held[-1], encoding.grain_bytes)
    if rest:
        raise InvalidInput(
            f"rows of bytes end inside a block of {encoding}",
            rule="part-size",
            got=f"rows of {held[-1]} bytes",
            expected=f"a multiple of {encoding.grain_bytes}",
        )
    return (*held[:-1], grains * encoding.grain)


def _checked_shape(shape: Sequence[int]) -> Shape:
    numbers = tuple(int(length) for length in shape)
    if any(length < 0 for length in numbers):
        raise InvalidInput("is no shape", rule="shape", got=numbers)
    return numbers


def _check_size(held: int, encoding: Encoding, shape: Shape) -> None:
    expected = encoding.nbytes(shape)
    if held != expected:
        raise InvalidInput(
            f"{encoding} of shape {list(shape)} has another size",
            rule="part-size",
            got=f"{held} bytes",
            expected=f"{expected} bytes",
        )


def _result_dtype(encoding: Encoding, dtype: object) -> Dense:
    if dtype is None:
        return encoding if isinstance(encoding, Dense) else DENSE["f32"]
    return dense(dtype.__name__ if isinstance(dtype, type) else str(dtype))


def _as_rows(array: Array) -> Array:
    """Return an array with all but its last axis in one: a view, where it is contiguous."""
    return array.reshape(math.prod(array.shape[:-1]), math.prod(array.shape[-1:]))


def _encode_into(octets: Octets, encoding: Encoding, values: Array, columns: Array | None) -> None:
    octets[...] = kernels.encode(encoding, values, columns).reshape(octets.shape)


def _decode_into(values: Array, encoding: Encoding, octets: Octets, dtype: Dense) -> None:
    if isinstance(encoding, Blocked) and dtype.grain == 1:
        kernels.decode_into(encoding, {DATA: octets}, values)
    else:
        values[...] = kernels.decode(encoding, {DATA: octets}, values.shape, dtype)


@dataclass(frozen=True)
class _Piece:
    """Codes a part of some rows into memory of `nbytes` bytes."""

    work: Callable[[], None]
    nbytes: int
    values: int
    name: str = ""

    @property
    def cost(self) -> int:
        """The memory that it may take."""
        return self.values * BYTES_PER_VALUE

    def run(self) -> int:
        self.work()
        return self.nbytes


def _weighted_parts(
    encoding: Encoding, values: Array, packed: Octets, importance: Array | None
) -> Iterator[tuple[Array, Octets, Array | None]]:
    """Cut rows into parts: yield the values, the bytes and the weights of each.

    With weights parts are whole rows; there are none where they make no difference.
    """
    rows, octets = _as_rows(values), _as_rows(packed)
    if importance is None or codec(encoding).weighted is None:
        for part, data in _parts(encoding, rows, octets, encoding.grain):
            yield part, data, None
        return
    for held, matrix, columns in matrices(values, importance):
        for part, data in _parts(encoding, matrix, octets[held], columns.size):
            yield part, data, columns


def _parts(
    encoding: Encoding, values: Array, packed: Octets, unit: int
) -> Iterator[tuple[Array, Octets]]:
    """Cut rows into parts, of a multiple of `unit` columns: yield the values and bytes of each."""
    for region in regions.tiles(values.shape, PIECE, (1, unit)):
        rows, columns = region
        first, last = (at // encoding.grain * encoding.grain_bytes for at in columns)
        yield values[regions.slices(region)], packed[slice(*rows), first:last]


def _run(pieces: Sequence[_Piece], threads: int | None) -> None:
    bounds = budget(None, threads)
    if len(pieces) < 2 or bounds.threads < 2:
        for piece in pieces:
            piece.run()
        return
    with workers(None, bounds) as pool:
        run_jobs(pieces, pool, bounds, 0, silent)
