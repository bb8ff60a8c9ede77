"""The parts of a quantised matrix as lazy tensors: codes, scales, zero points, offsets."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge import region as regions
from weighbridge.converters.graphs.quantized.packing import (
    pack,
    packed_length,
    packed_zeros,
)
from weighbridge.encoding import DENSE, Dense
from weighbridge.errors import InvalidInput
from weighbridge.rearranged import Rearranged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.converters.graphs.quantized.forms import Form
    from weighbridge.converters.graphs.quantized.matrix import Matrix
    from weighbridge.region import Region, Shape
    from weighbridge.tensor import Array, Tensor

VALUES = 1 << 18
"""Values of the matrix that are worked on at once: what they need stays in a core's own cache."""


class Rowwise(Rearranged):
    """A tensor whose rows are made from as many rows of a matrix."""

    encoding: Dense

    @abstractmethod
    def some(self, start: int, stop: int) -> Array:
        """Return some rows, whole."""

    def units(self) -> tuple[int, ...]:
        """Return whole rows: the others are made as well."""
        return (1, *self.shape[1:])

    def grains(self, region: Region) -> Array:
        """Compute them: numbers of whole bytes are their own grains."""
        return self.compute(region)

    def compute(self, region: Region) -> Array:
        """Make the rows of a region, few at a time."""
        (first, last), *rest = region
        made = np.empty(regions.extent(region), self.encoding.dtype)
        step = self._step()
        for start in range(first, last, step):
            stop = min(start + step, last)
            rows = self.some(start, stop)
            made[start - first : stop - first] = rows[:, *regions.slices(tuple(rest))]
        return made

    @abstractmethod
    def _step(self) -> int:
        """Return how many rows are made at once."""


@dataclass(frozen=True)
class OfMatrix(Rowwise):
    """A part of a quantised matrix.

    Attributes:
        matrix: the matrix.
    """

    matrix: Matrix

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether the codes are stored, not rounded to."""
        return self.matrix.source.exact

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors underneath."""
        return self.matrix.source.leaves()

    def _step(self) -> int:
        return max(VALUES // max(self.matrix.source.shape[1], 1), 1)


class Codes(OfMatrix):
    """The codes of a matrix, packed: the first of a byte in its low bits."""

    encoding = DENSE["u8"]

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """A row of bytes for each row, in whole blocks."""
        matrix = self.matrix
        row = matrix.blocks * matrix.source.group * matrix.form.bits // 8
        return (matrix.source.shape[0], row)

    def some(self, start: int, stop: int) -> Array:
        """Take the codes of some rows, and pack them anew."""
        codes = self._whole_blocks(start, stop)
        if self.matrix.form.floating:
            codes = codes * self._scaled(start, stop)
        if self.matrix.shift:
            codes += np.uint8(self.matrix.shift)
        return pack(codes, self.matrix.form)

    def _whole_blocks(self, start: int, stop: int) -> Array:
        """Return the codes of some rows, the last block filled up with zeros."""
        source = self.matrix.source
        codes = source.codes(start, stop)
        missing = source.groups * source.group - source.shape[1]
        if not missing:
            return codes
        last = source.zeros(start, stop)[:, -1:]
        return np.concatenate([codes, last.repeat(missing, axis=1)], axis=1)

    def _scaled(self, start: int, stop: int) -> Array:
        """Return 0 for the codes of groups whose scale is 0, 1 for all others."""
        source = self.matrix.source
        scaled: Array = source.scales(start, stop) != 0
        return scaled.astype(np.uint8).repeat(source.group, axis=1)


class Scales(OfMatrix):
    """The scales of a matrix.

    Where zero points hold the minima, a group whose scale is 0 has its minimum for a scale, with
    codes of 0 and a zero point of 1.

    Raises:
        InvalidInput: (rule ``overflow``) when read, for scales from 2**124 on of split codes.
    """

    encoding = DENSE["f32"]

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """A scale for each block."""
        return (self.matrix.source.shape[0], self.matrix.blocks)

    @np.errstate(all="ignore")
    def some(self, start: int, stop: int) -> Array:
        """Compute the scales of some rows."""
        source, form = self.matrix.source, self.matrix.form
        scales = source.scales(start, stop)
        if form.floating:
            scales = np.where(scales == 0, source.least(start, stop), scales)
        return self._for_halves(scales) if form.split else scales

    def _for_halves(self, scales: Array) -> Array:
        high = scales * np.float32(16)
        over = np.isinf(high) & np.isfinite(scales)
        if over.any():
            raise InvalidInput(
                "a scale is too large for codes that are split",
                rule="overflow",
                got=scales[over][0],
                expected="less than 2**124",
            )
        return np.concatenate([high, scales], axis=1)


class Zeros(OfMatrix):
    """The zero points of a matrix whose groups have their own, packed like its codes."""

    encoding = DENSE["u8"]

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """A row of whole bytes for each row."""
        return (self.matrix.source.shape[0], packed_length(self.matrix.blocks, self.matrix.form))

    def some(self, start: int, stop: int) -> Array:
        """Read the zero points of some rows, and pack them."""
        zeros = self.matrix.source.zeros(start, stop)
        return packed_zeros(zeros, self.matrix.form)


class FloatZeros(OfMatrix):
    """Zero points that hold the minima: each is its group's minimum over its scale."""

    encoding = DENSE["f32"]

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """A zero point for each block."""
        return (self.matrix.source.shape[0], self.matrix.blocks)

    @np.errstate(all="ignore")
    def some(self, start: int, stop: int) -> Array:
        """Compute the zero points of some rows."""
        scales = self.matrix.source.scales(start, stop)
        least = self.matrix.source.least(start, stop)
        return np.where(scales == 0, np.float32(1), least / scales)


class Offsets(OfMatrix):
    """What is added to all numbers of a group."""

    encoding = DENSE["f32"]

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """An offset for each group."""
        return (self.matrix.source.shape[0], self.matrix.source.groups)

    @np.errstate(all="ignore")
    def some(self, start: int, stop: int) -> Array:
        """Compute the offsets of some rows."""
        source = self.matrix.source
        middle = np.float32(source.top // 2)
        return source.scales(start, stop) * middle - source.least(start, stop)


@dataclass(frozen=True)
class SameZeros(Rowwise):
    """One zero point for all the groups of a matrix, as often as it has groups, packed.

    Attributes:
        count: the rows.
        blocks: the blocks in each.
        zero: the zero point.
        form: how codes are packed.
    """

    count: int
    blocks: int
    zero: int
    form: Form
    encoding = DENSE["u8"]
    exact = True

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """A row of whole bytes for each row."""
        return (self.count, packed_length(self.blocks, self.form))

    def leaves(self) -> Iterator[Tensor]:
        """Yield nothing."""
        return iter(())

    def some(self, start: int, stop: int) -> Array:
        """Return the same row as often as it is asked for."""
        groups = self.blocks // (2 if self.form.split else 1)
        row = packed_zeros(np.full((1, groups), self.zero, np.uint8), self.form)
        return np.broadcast_to(row, (stop - start, row.shape[1]))

    def _step(self) -> int:
        return max(VALUES // max(self.shape[1], 1), 1)


@dataclass(frozen=True)
class InBlocks(Rowwise):
    """Packed codes with an axis of blocks, as ``MatMulNBits`` counts them; the bytes are `inner`'s.

    Attributes:
        inner: a row of bytes for each row, as ``GatherBlockQuantized`` reads them. Two tensors with
            the same `inner`, and `inner` itself, can be stored once.
        blocks: how many blocks a row has.
    """

    inner: Codes
    blocks: int
    encoding = DENSE["u8"]

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """Rows, blocks, and the bytes of a block."""
        count, row = self.inner.shape
        return (count, self.blocks, row // self.blocks)

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """As the codes are."""
        return self.inner.exact

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors underneath."""
        return self.inner.leaves()

    def some(self, start: int, stop: int) -> Array:
        """Make some rows of codes."""
        return self.inner.some(start, stop).reshape(stop - start, *self.shape[1:])

    def _step(self) -> int:
        return self.inner._step()
