"""Tensors that are addresses, and what can be computed from them, region by region."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from weighbridge import region as regions
from weighbridge.encoding import DATA, DENSE, Blocked, Dense, Encoding, Scaled, dense
from weighbridge.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from weighbridge.file import File
    from weighbridge.region import Region, Shape

    Array = NDArray[Any]


class Extent(NamedTuple):
    """An address: `length` bytes from `offset` of `file`. Nothing is read when one is made.

    Attributes:
        file: the file.
        offset: where the bytes begin.
        length: how many there are.
        order: ``<`` where numbers are stored little-endian, ``>`` where they are big-endian.
    """

    file: File
    offset: int
    length: int
    order: str = "<"

    def view(self) -> memoryview:
        """Return the bytes, read-only, without copying them."""
        return self.file.view(self.offset, self.length)

    def read(self, start: int, length: int) -> Array:
        """Read `length` bytes from `start` on, counted from the extent's own begin, as uint8."""
        buffer = np.empty(length, np.uint8)
        self.read_into(buffer, start)
        return buffer

    def read_into(self, buffer: Array, start: int) -> None:
        """Fill a contiguous array with the bytes from `start` on."""
        self.file.read_into(buffer.view(np.uint8).data, self.offset + start)


Part = Extent | np.ndarray[Any, np.dtype[Any]]


class Lazy(ABC):
    """A tensor that is an address, or an operation on such tensors: shape and encoding, no bytes.

    Numbers appear in two forms. *Grains* are the stored bytes, as an array with an item for each
    grain (`Encoding.grain`): shape ``grid``, the tensor's own shape with its last axis counted in
    grains. *Values* are decoded numbers in the tensor's own shape.
    """

    __slots__ = ()

    shape: Shape
    encoding: Encoding

    @abstractmethod
    def grains(self, region: Region) -> Array:
        """Return the stored grains of a region of the grid, without decoding them."""

    @abstractmethod
    def compute(self, region: Region) -> Array:
        """Return the values of a region of the shape: float32, or the dtype of a dense encoding."""

    @abstractmethod
    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors that this one is made from, in order."""

    @property
    def grid(self) -> Shape:
        """The shape in grains: the last axis is counted in grains."""
        return grid(self.shape, self.encoding)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all parts, as stored."""
        return sum(self.encoding.sizes(self.shape).values())

    def units(self) -> tuple[int, ...]:
        """Return, for each axis, the length that regions are best cut at."""
        return (1,) * self.ndim

    def values(self, dtype: str | None = None) -> Array:
        """Decode the whole tensor.

        Args:
            dtype: the name of a dense encoding (``f32``, ``bfloat16``); None gives the stored
                dtype, or float32 where the encoding is not dense.

        Returns:
            An array of `shape`. It may be read-only: that of a `Tensor` in a file, whose numbers
            need no decoding, is a view of the file.

        Raises:
            InvalidInput: (rule ``encoding``) when there is no such dtype, (rule ``overflow``) for
                a number that has no place in it.
        """
        values = self.compute(regions.whole(self.shape))
        if dtype is None:
            return values
        from weighbridge import kernels  # the codecs are needed only here

        return kernels.cast(values, dense(dtype))

    def __getitem__(self, index: object) -> Array:
        """Read and decode a slice: only the grains that it touches are read, and into new memory.

        Slices with a step, integers and ``...`` are understood as NumPy does.

        Raises:
            InvalidInput: (rule ``index``) for any other index, and for one out of range.
        """
        region, rest = _region_of(index, self.shape)
        array: Array = self.compute(region)[rest]
        return array

    def rows(self, max_bytes: int = 1 << 24) -> Iterator[Array]:
        """Walk the values in row-major order, in pieces of at most `max_bytes` decoded bytes.

        Yields:
            Arrays whose flattened concatenation is the flattened tensor. A piece holds at least
            one grain.
        """
        itemsize = self.encoding.dtype.itemsize if isinstance(self.encoding, Dense) else 4
        units = (1,) * (self.ndim - 1) + (self.encoding.grain,) * min(self.ndim, 1)
        for tile in regions.tiles(self.shape, max(max_bytes // itemsize, 1), units):
            yield self.compute(tile)


def grid(shape: Shape, encoding: Encoding) -> Shape:
    """Return `shape` with its last axis counted in grains.

    Sub-byte numbers whose rows end inside a byte are one row of bytes: they can only be copied.

    Example:
        >>> grid((4, 64), DENSE["f4"])
        (4, 32)
    """
    if encoding.grain == 1:
        return shape
    if not whole_rows(shape, encoding):
        return (-(-math.prod(shape) // encoding.grain),)
    return (*shape[:-1], shape[-1] // encoding.grain)


def whole_rows(shape: Shape, encoding: Encoding) -> bool:
    """Tell whether the rows of a tensor are whole grains each, so that parts of it can be read.

    Example:
        >>> whole_rows((4, 64), DENSE["f4"]), whole_rows((5,), DENSE["f4"])
        (True, False)
    """
    return encoding.grain == 1 or (len(shape) > 0 and shape[-1] % encoding.grain == 0)


class Tensor(Lazy):
    """A stored tensor: its logical shape, its encoding, and where its bytes are; a frozen value.

    Tensors are equal when their names, shapes and encodings are.

    Attributes:
        name: as its file spells it.
        shape: row-major, as PyTorch prints it.
        encoding: how the numbers are stored.
        parts: the bytes of each part, as an `Extent` or as an array of uint8.

    Example:
        >>> t = from_array("x", np.arange(6, dtype=np.float32).reshape(2, 3))
        >>> t.shape, t.encoding.name, t[1, :2]
        ((2, 3), 'f32', array([3., 4.], dtype=float32))
    """

    __slots__ = ("_held", "encoding", "name", "shape")

    name: str
    shape: Shape
    encoding: Encoding
    _held: tuple[File, int, int, str] | Mapping[str, Part]

    def __init__(
        self, name: str, shape: Shape, encoding: Encoding, parts: Mapping[str, Part]
    ) -> None:
        """Check that every part is there and has the size that the encoding gives.

        Raises:
            InvalidInput: (rule ``part-size``) when one has not.
        """
        sizes = encoding.sizes(shape)
        found = {part: _length(where) for part, where in parts.items()}
        if found != dict(sizes):
            raise InvalidInput(
                "its parts do not have the size that its shape and encoding give",
                rule="part-size",
                tensor=name,
                got=found,
                expected=dict(sizes),
            )
        put = object.__setattr__
        put(self, "name", name)
        put(self, "shape", shape)
        put(self, "encoding", encoding)
        put(self, "_held", MappingProxyType(dict(parts)))

    @property
    def parts(self) -> Mapping[str, Part]:
        """The bytes of each part, by its name."""
        held = self._held
        return MappingProxyType({DATA: Extent(*held)}) if isinstance(held, tuple) else held

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse to change."""
        raise AttributeError(f"cannot set {name} of a tensor")

    def __eq__(self, other: object) -> bool:
        """Tell whether names, shapes and encodings are the same."""
        if not isinstance(other, Tensor):
            return NotImplemented
        return self._told() == other._told()

    def __hash__(self) -> int:
        """Return the hash of what is compared."""
        return hash(self._told())

    def _told(self) -> tuple[str, Shape, Encoding]:
        return self.name, self.shape, self.encoding

    def __repr__(self) -> str:
        """Show everything."""
        return f"Tensor({self.name!r}, {self.shape}, {self.encoding!r}, {dict(self.parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by address."""
        return Tensor, (self.name, self.shape, self.encoding, dict(self.parts))

    def values(self, dtype: str | None = None) -> Array:
        """Decode the whole tensor; see `Lazy.values`.

        Numbers that lie in a file as they are in memory are not copied: the array is a read-only
        view of the file, which stays valid when the model is closed. ``tensor[...]`` is always a
        copy.
        """
        where = self.parts.get(DATA)
        if not isinstance(where, Extent) or not _is_plain(self.encoding, where):
            return super().values(dtype)
        if dtype is not None and dense(dtype) != self.encoding:
            return super().values(dtype)
        from weighbridge import kernels  # the codecs are needed only here

        return kernels.decode(self.encoding, {DATA: where.view()}, self.shape, None)

    def part(self, name: str | None = None) -> Array:
        """Return the bytes of one part as a read-only uint8 array, without copying them.

        Raises:
            InvalidInput: (rule ``which-part``) when there are several parts and no name is given,
                or there is no part of that name.
        """
        if name is None and len(self.parts) == 1:
            (name,) = self.parts
        if name is None or name not in self.parts:
            raise InvalidInput(
                "which part of the tensor is meant?",
                rule="which-part",
                tensor=self.name,
                got=name,
                expected=f"one of {', '.join(self.parts)}",
            )
        where = self.parts[name]
        if isinstance(where, Extent):
            return np.frombuffer(where.view(), np.uint8)
        flat = where.view()
        flat.flags.writeable = False
        return flat

    def leaves(self) -> Iterator[Tensor]:
        """Yield the tensor itself."""
        yield self

    def grains(self, region: Region) -> Array:
        """Read the grains of a region, as items of `grain_bytes` bytes.

        Raises:
            InvalidInput: (rule ``which-part``) when the bytes are in several parts, (rule
                ``part-grain``) when they end inside a grain.
        """
        self._one_piece()
        where = self.parts[DATA]
        if not isinstance(where, Extent):
            return as_grains(where, self.encoding).reshape(self.grid)[regions.slices(region)]
        item = grain_type(self.encoding)
        shape = regions.extent(region)
        data = np.empty(math.prod(shape), item)
        done = 0
        for first, count in regions.runs(region, self.grid):
            where.read_into(data[done : done + count], first * item.itemsize)
            done += count
        swapped = data if where.order == "<" else self._swapped(data)
        return swapped.reshape(shape)

    def compute(self, region: Region) -> Array:
        """Read and decode the values of a region."""
        from weighbridge import kernels  # the codecs are needed only here

        if isinstance(self.encoding, Scaled):
            from weighbridge.parted import apart  # which itself is made of tensors

            return apart(self).compute(region)
        if not whole_rows(self.shape, self.encoding):
            return self._bits(region)
        wide, inside = regions.widened(region, self.encoding.grain, self.shape)
        stored = self.grains(in_grains(wide, self.encoding.grain))
        data = {DATA: np.ascontiguousarray(stored).reshape(-1).view(np.uint8)}
        decoded = kernels.decode(self.encoding, data, regions.extent(wide), None)
        return decoded[regions.slices(inside)]

    def _bits(self, region: Region) -> Array:
        """Return numbers of less than a byte whose rows end inside a byte, run by run."""
        from weighbridge import kernels

        assert isinstance(self.encoding, Dense)
        values = np.empty(regions.extent(region), self.encoding.dtype)
        flat, done, grain = values.reshape(-1), 0, self.encoding.grain
        for first, count in regions.runs(region, self.shape):
            begin = first // grain * grain
            held = min(-(-(first + count) // grain) * grain, self.size) - begin
            data = _bytes(
                self.parts[DATA],
                begin // grain * self.encoding.grain_bytes,
                self.encoding.nbytes((held,)),
            )
            run = kernels.decode(self.encoding, {DATA: data}, (held,), None)
            flat[done : done + count] = run[first - begin :][:count]
            done += count
        return values

    def _one_piece(self) -> None:
        if len(self.parts) != 1:
            raise InvalidInput(
                "its bytes are in several parts",
                rule="which-part",
                tensor=self.name,
                got=", ".join(self.parts),
            )

    def _swapped(self, grains: Array) -> Array:
        """Return big-endian grains in little-endian order: blocks field by field."""
        if isinstance(self.encoding, Blocked):
            return grains.view(self.encoding.dtype).byteswap().view(grains.dtype)
        return grains.byteswap()


Row = tuple[str, "Shape", Encoding, int, int]
"""A tensor's name, shape and encoding, where its bytes begin, and how many there are: as many as
the encoding gives for the shape."""


class _Unset(Tensor):
    """A tensor whose fields are still to be set: a frozen one could be given none."""

    __slots__ = ()
    __setattr__ = object.__setattr__  # type: ignore[assignment]


def stored(file: File, rows: Iterable[Row], order: str = "<") -> dict[str, Tensor]:
    """Return tensors in one piece of a file each, for a parser that has checked all lengths.

    Args:
        file: where they are.
        rows: what there is to know of each; of two of one name the later is returned.
        order: of the bytes of a number, as in `Extent`.
    """
    made: dict[str, Tensor] = {}
    new = object.__new__
    # A file may have a hundred thousand tensors: this takes a tenth of what checking takes.
    for name, shape, encoding, offset, length in rows:
        tensor: Tensor = new(_Unset)
        tensor.name, tensor.shape, tensor.encoding = name, shape, encoding
        tensor._held = file, offset, length, order
        tensor.__class__ = Tensor
        made[name] = tensor
    return made


def _is_plain(encoding: Encoding, where: Extent) -> bool:
    """Tell whether numbers lie in a file as NumPy has them in memory."""
    if not isinstance(encoding, Dense) or encoding.grain != 1 or where.order != "<":
        return False
    return where.offset % encoding.dtype.itemsize == 0


def grain_type(encoding: Encoding) -> np.dtype[Any]:
    """Return the type of one grain in an array of grains.

    Example:
        >>> grain_type(DENSE["bf16"]).name, grain_type(DENSE["f6_e2m3"]).itemsize
        ('bfloat16', 3)
    """
    if isinstance(encoding, Dense) and encoding.grain == 1:
        return encoding.dtype
    return np.dtype((np.void, encoding.grain_bytes))


def as_grains(data: Array, encoding: Encoding) -> Array:
    """Return bytes as grains, without copying them.

    Raises:
        InvalidInput: (rule ``part-grain``) when they end inside a grain: such can only be copied.
    """
    if data.nbytes % encoding.grain_bytes:
        raise InvalidInput(f"ends inside a grain of {encoding}", rule="part-grain", got=data.nbytes)
    return data.view(grain_type(encoding))


def in_grains(region: Region, grain: int) -> Region:
    """Return a region of the shape, aligned on grains, as a region of the grid."""
    if grain == 1:
        return region
    start, stop = region[-1]
    return (*region[:-1], (start // grain, -(-stop // grain)))


def from_array(name: str, array: Array, encoding: Encoding | None = None) -> Tensor:
    """Return a tensor whose numbers are in memory.

    Args:
        name: its name.
        array: numbers of a dense type; kept without a copy where they are contiguous.
        encoding: the dense encoding, where the array's dtype does not tell.

    Raises:
        InvalidInput: (rule ``dtype``) for a dtype that is no dense encoding.
    """
    encoding = encoding or dense_of(array.dtype, name)
    flat = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return Tensor(name, array.shape, encoding, {DATA: flat.reshape(-1).view(np.uint8)})


def dense_of(dtype: np.dtype[Any], tensor: str | None = None) -> Dense:
    """Return the dense encoding of a NumPy or ml_dtypes type of whole bytes.

    Raises:
        InvalidInput: (rule ``dtype``) when there is none.
    """
    little = dtype.newbyteorder("<")
    for candidate in DENSE.values():
        if candidate.grain == 1 and candidate.dtype == little:
            return candidate
    raise InvalidInput("this dtype cannot be stored", rule="dtype", tensor=tensor, got=dtype)


def _length(where: Part) -> int:
    return where.length if isinstance(where, Extent) else where.nbytes


def _bytes(where: Part, start: int, length: int) -> Array:
    if isinstance(where, Extent):
        return where.read(start, length)
    return where.reshape(-1).view(np.uint8)[start : start + length]


def _region_of(index: object, shape: Shape) -> tuple[Region, tuple[Any, ...]]:
    """Split a NumPy index into the region to read and what remains to be done on it."""
    given = list(index) if isinstance(index, tuple) else [index]
    for at in [at for at, item in enumerate(given) if item is Ellipsis][:1]:
        given[at : at + 1] = [slice(None)] * (len(shape) - len(given) + 1)
    given += [slice(None)] * (len(shape) - len(given))
    if len(given) != len(shape):
        raise InvalidInput(
            "has fewer axes than the index", rule="index", got=len(given), expected=len(shape)
        )
    region: list[tuple[int, int]] = []
    rest: list[Any] = []
    for axis, (item, length) in enumerate(zip(given, shape, strict=True)):
        bounds, remaining = _axis_of(item, length, axis)
        region.append(bounds)
        rest.append(remaining)
    return tuple(region), tuple(rest)


def _axis_of(item: object, length: int, axis: int) -> tuple[tuple[int, int], Any]:
    if isinstance(item, slice) and item.step != 0:
        picked = range(length)[item]
        if not len(picked):
            return (0, 0), slice(None)
        low, high = min(picked[0], picked[-1]), max(picked[0], picked[-1])
        return (low, high + 1), slice(None) if picked.step == 1 else slice(None, None, picked.step)
    whole = isinstance(item, int | np.integer) and not isinstance(item, bool)
    if whole and -length <= item < length:  # type: ignore[operator]
        at = int(item) % length  # type: ignore[call-overload]
        return (at, at + 1), 0
    raise InvalidInput(
        "cannot be indexed so", rule="index", got=item, expected=f"within axis {axis} of {length}"
    )
