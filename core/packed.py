"""Numbers that several pack into one integer, and scales that are looked up, as lazy tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from weighbridge import region as regions
from weighbridge.errors import InvalidFile, InvalidInput
from weighbridge.tensor import Lazy, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.encoding import Dense, Encoding, Shape
    from weighbridge.region import Region
    from weighbridge.tensor import Array


@dataclass(frozen=True)
class Computed(Lazy):
    """A tensor of plain numbers that are computed from others; none of its bytes are stored."""

    def grains(self, region: Region) -> Array:
        """Compute the numbers: those of whole bytes are their own grains.

        Raises:
            InvalidInput: (rule ``part-grain``) for numbers of less than a byte.
        """
        if self.encoding.grain > 1:
            raise InvalidInput(
                "numbers of less than a byte are not stored so",
                rule="part-grain",
                got=self.encoding,
            )
        return self.compute(region)


@dataclass(frozen=True)
class Words(Computed):
    """The numbers of a matrix of integers that hold several each.

    Attributes:
        inner: the integers.
        shape: of the numbers. The last integer of a row may have room for more.
        encoding: of the numbers.
        axis: of `inner`, along which numbers were packed.
        order: for the numbers of an integer, which of its equal parts each is in, the low bits
            first; as many as there are parts.
        add: what is added to each number, modulo what its bits can hold: a file may hold signed
            numbers plus half their range, or zero points minus one.
        transposed: whether the rows of `shape` are the columns of `inner`.

    Raises:
        InvalidInput: (rule ``part-shape``) when `inner` has another shape than that needs.

    Example:
        >>> from weighbridge.encoding import DENSE
        >>> from weighbridge.tensor import from_array
        >>> words = from_array("q", np.array([[0x21], [0x43]], np.uint8))
        >>> Words(words, (2, 2), DENSE["u4"], axis=1, order=(0, 1)).values("i8").tolist()
        [[1, 2], [3, 4]]
        >>> Words(words, (1, 4), DENSE["u4"], 0, (1, 0), transposed=True).values("i8").tolist()
        [[2, 1, 4, 3]]
    """

    inner: Lazy
    shape: Shape
    encoding: Dense
    axis: int
    order: tuple[int, ...]
    add: int = 0
    transposed: bool = False

    def __post_init__(self) -> None:
        """Check the shape of what is stored."""
        stored = list(self.shape[::-1] if self.transposed else self.shape)
        stored[self.axis] = -(-stored[self.axis] // len(self.order))
        if self.inner.shape != tuple(stored):
            raise InvalidInput(
                "its packed numbers have another shape",
                rule="part-shape",
                got=list(self.inner.shape),
                expected=stored,
            )

    def leaves(self) -> Iterator[Tensor]:
        """Yield the integers."""
        return self.inner.leaves()

    def units(self) -> tuple[int, ...]:
        """Return a whole integer on the axis that numbers are packed along."""
        units = [1] * self.ndim
        units[1 - self.axis if self.transposed else self.axis] = len(self.order)
        return tuple(units)

    def compute(self, region: Region) -> Array:
        """Read the integers of a region and take them apart."""
        turned = region[::-1] if self.transposed else region
        start, stop = turned[self.axis]
        count = len(self.order)
        low, high = start // count, -(-stop // count)
        numbers = self._apart(self.inner.compute(regions.replaced(turned, self.axis, low, high)))
        cut = slice(start - low * count, stop - low * count)
        numbers = numbers[cut] if self.axis == 0 else numbers[:, cut]
        return numbers.T if self.transposed else numbers

    def _apart(self, words: Array) -> Array:
        unsigned = words.view(f"u{words.itemsize}")
        bits, axis = self.encoding.bits, self.axis
        shape = list(words.shape)
        shape[axis] *= len(self.order)
        numbers = np.empty(shape, np.uint8)
        for number, place in enumerate(self.order):
            every = slice(number, None, len(self.order))
            codes = (unsigned >> (place * bits)).astype(np.uint8)
            numbers[every if axis == 0 else (slice(None), every)] = codes
        if self.add:
            numbers += np.uint8(self.add)
        if bits < 8:
            numbers &= np.uint8((1 << bits) - 1)
        return numbers.view(self.encoding.dtype)


@dataclass(frozen=True)
class Taken(Computed):
    """Columns of a matrix, each picked by an index: the scale of each input of a GPTQ layer.

    Attributes:
        inner: the matrix.
        index: for each column of the result, which of `inner` it is.
        encoding: that of `inner`.
    """

    inner: Lazy
    index: Lazy
    encoding: Encoding = field(init=False)

    def __post_init__(self) -> None:
        """Take over the encoding."""
        object.__setattr__(self, "encoding", self.inner.encoding)

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """As many rows as `inner`, as many columns as indices."""
        return self.inner.shape[0], self.index.size

    def leaves(self) -> Iterator[Tensor]:
        """Yield what the matrix is made from; the index is read as well."""
        yield from self.inner.leaves()
        yield from self.index.leaves()

    def compute(self, region: Region) -> Array:
        """Read the rows whole, and take columns.

        Raises:
            InvalidFile: (rule ``group-index``) for an index that is out of range.
        """
        rows, columns = region
        index = self.index.compute((columns,))
        groups = self.inner.shape[1]
        if index.size and not (index.min() >= 0 and index.max() < groups):
            raise InvalidFile(
                "an input is of a group that is not there",
                rule="group-index",
                got=int(index.max() if index.max() >= groups else index.min()),
                expected=f"0 to {groups - 1}",
            )
        return self.inner.compute((rows, (0, groups)))[:, index]


@dataclass(frozen=True)
class _Checked(Computed):
    """Scales that are read together with what has to agree with them.

    Attributes:
        inner: the scales, a column for each group of inputs.
        other: what is read with them.
        encoding: that of `inner`.
    """

    inner: Lazy
    other: Lazy
    encoding: Encoding = field(init=False)

    def __post_init__(self) -> None:
        """Take over the encoding."""
        object.__setattr__(self, "encoding", self.inner.encoding)

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """The shape of the scales."""
        return self.inner.shape

    def leaves(self) -> Iterator[Tensor]:
        """Yield what both are made from."""
        yield from self.inner.leaves()
        yield from self.other.leaves()


@dataclass(frozen=True)
class Ordered(_Checked):
    """The scales of a layer whose inputs are said to be in groups one after the other.

    Attributes:
        other: the group of each input, which a file has all the same.
        group: the number of inputs in a group.
    """

    group: int = field(kw_only=True)

    def compute(self, region: Region) -> Array:
        """Read the scales, and the index of their inputs.

        Raises:
            InvalidFile: (rule ``group-index``) when the inputs are in another order.
        """
        start, stop = (min(at * self.group, self.other.size) for at in region[1])
        index = self.other.compute(((start, stop),))
        if not np.array_equal(index, np.arange(start, stop) // self.group):
            raise InvalidFile(
                "its inputs are not in the order that quantization_config says",
                rule="group-index",
                hint='"desc_act": true there says that they are in another',
            )
        return self.inner.compute(region)


@dataclass(frozen=True)
class Centred(_Checked):
    """The scales of a layer whose zero points are said to be in the middle of the range.

    Attributes:
        other: the zero points, which a file has all the same, of the shape of the scales.
        middle: what each has to be.
    """

    middle: int = field(kw_only=True)

    def compute(self, region: Region) -> Array:
        """Read the scales and the zero points.

        Raises:
            InvalidFile: (rule ``zero-point``) when one is another.
        """
        zeros = self.other.compute(region).astype(np.int16)
        if (zeros != self.middle).any():
            raise InvalidFile(
                "a zero point is not in the middle, as quantization_config says",
                rule="zero-point",
                got=zeros[zeros != self.middle][0],
                expected=self.middle,
                hint='"sym": false there says that they may be anywhere',
            )
        return self.inner.compute(region)


def reshaped(tensor: Lazy, shape: Shape, encoding: Dense | None = None) -> Tensor:
    """Return a stored tensor's bytes as those of another shape, or of another dense encoding.

    Raises:
        InvalidInput: (rule ``part-shape``) when the bytes are not as many.

    Example:
        >>> from weighbridge.encoding import DENSE
        >>> from weighbridge.tensor import from_array
        >>> octets = from_array("x", np.array([[0x21, 0x43]], np.uint8))
        >>> reshaped(octets, (1, 4), DENSE["u4"]).values("i8").tolist()
        [[1, 2, 3, 4]]
    """
    stored = encoding or tensor.encoding
    if not isinstance(tensor, Tensor) or stored.nbytes(shape) != tensor.nbytes:
        raise InvalidInput(
            f"cannot be {math.prod(shape)} numbers of {stored}",
            rule="part-shape",
            got=f"{tensor.encoding} {list(tensor.shape)}",
            expected=f"{stored} {list(shape)}",
        )
    return Tensor(tensor.name, shape, stored, tensor.parts)
