"""Quantised matrices as codes and scales, whatever stores them, some rows at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.encoding import DATA, DENSE, Blocked, Dense, Scaled
from weighbridge.kernels.ggml.affine import AFFINE
from weighbridge.kernels.repack import pair_of
from weighbridge.parted import Parted, apart
from weighbridge.recode import Recoded
from weighbridge.repacked import repacked
from weighbridge.scaling import EncodedPart
from weighbridge.tensor import Lazy, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.kernels.codec import Blocks
    from weighbridge.kernels.ggml.affine import Affine
    from weighbridge.region import Shape
    from weighbridge.tensor import Array

BLOCKS = (128, 64, 32, 16)
"""The lengths that a block of MatMulNBits may have on every processor."""


class Source(ABC):
    """A matrix whose numbers are ``scale * (code - zero) - least``, in groups along its rows.

    Attributes:
        kind: what the table of encodings calls it: ``q4_k``, ``int8``.
        shape: of the matrix, one row for each output of a layer.
        group: how many values have a scale of their own, as it is returned here.
        top: one more than the largest code.
        zero: the code of 0; None where each group has its own.
        affine: whether groups have minima.
        exact: whether the codes are stored; False where numbers are rounded to them.
    """

    kind: str
    shape: Shape
    group: int
    top: int
    zero: int | None
    affine: bool
    exact: bool

    @property
    def groups(self) -> int:
        """The groups in a row, the last of which may be shorter."""
        return -(-self.shape[1] // self.group)

    @abstractmethod
    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors."""

    @abstractmethod
    def codes(self, start: int, stop: int) -> Array:
        """Return the codes of some rows, uint8 of shape ``(stop - start, shape[1])``."""

    @abstractmethod
    def scales(self, start: int, stop: int) -> Array:
        """Return the scales of some rows, float32 of shape ``(stop - start, groups)``."""

    @abstractmethod
    def zeros(self, start: int, stop: int) -> Array:
        """Return the zero points of some rows, uint8 in the shape of the scales."""

    @abstractmethod
    def least(self, start: int, stop: int) -> Array:
        """Return the minima of some rows, float32 in the shape of the scales."""


@dataclass(frozen=True)
class OfBlocks(Source):
    """A matrix in ggml's blocks, perhaps with its rows moved.

    Attributes:
        inner: the matrix.

    Example:
        >>> from weighbridge.tensor import from_array
        >>> from weighbridge.recode import recode
        >>> from weighbridge.kernels.ggml import BLOCKED
        >>> ramp = from_array("x", np.arange(-8, 24, dtype=np.float32)[None])
        >>> source = OfBlocks(recode(ramp, BLOCKED["q8_0"]))
        >>> source.codes(0, 1)[0, :4].tolist(), source.zero
        ([84, 89, 95, 100], 128)
    """

    inner: Lazy

    @property
    def type(self) -> Affine:
        """How its numbers follow from codes."""
        return AFFINE[self.inner.encoding.name]

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The type's name."""
        return self.inner.encoding.name

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """The matrix's."""
        return self.inner.shape

    @property
    def group(self) -> int:  # type: ignore[override]
        """The type's."""
        return self.type.group

    @property
    def top(self) -> int:  # type: ignore[override]
        """The type's."""
        return self.type.top

    @property
    def zero(self) -> int:  # type: ignore[override]
        """The type's."""
        return self.type.zero

    @property
    def affine(self) -> bool:  # type: ignore[override]
        """Whether the type has minima."""
        return self.type.least is not None

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether the blocks are stored."""
        return not _recoded(self.inner)

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors."""
        return self.inner.leaves()

    def codes(self, start: int, stop: int) -> Array:
        """Take the codes of some rows out of their blocks."""
        return self.type.codes(self._blocks(start, stop)).reshape(stop - start, -1)

    @np.errstate(all="ignore")
    def scales(self, start: int, stop: int) -> Array:
        """Compute the scales of some rows; a block has several."""
        return self.type.scales(self._blocks(start, stop)).reshape(stop - start, -1)

    def zeros(self, start: int, stop: int) -> Array:
        """Return the one zero point for each group."""
        return np.full((stop - start, self.groups), self.zero, np.uint8)

    @np.errstate(all="ignore")
    def least(self, start: int, stop: int) -> Array:
        """Compute the minima of some rows."""
        assert self.type.least is not None
        return self.type.least(self._blocks(start, stop)).reshape(stop - start, -1)

    def _blocks(self, start: int, stop: int) -> Blocks:
        assert isinstance(self.inner.encoding, Blocked)
        grains = self.inner.grains(((start, stop), (0, self.inner.grid[1])))
        return np.ascontiguousarray(grains).reshape(-1).view(self.inner.encoding.dtype)


@dataclass(frozen=True)
class OfParts(Source):
    """A matrix of integers with scales and perhaps zero points, as GPTQ and its like have it.

    Attributes:
        data: the integers, of 2, 4 or 8 bits, signed or not.
        scale: a scale for each `block` of a row.
        zero_part: zero points stored like the integers; None where there are none.
        block: how many integers of a row have a scale.
    """

    data: Lazy
    scale: Lazy
    zero_part: Lazy | None
    block: int

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Integers of so many bits."""
        return f"int{self._element.bits}"

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """The integers'."""
        return self.data.shape

    @property
    def group(self) -> int:  # type: ignore[override]
        """The largest length of a block that MatMulNBits takes and that fits into these."""
        return _fitting(self.block, self.shape[1]) or self.block

    @property
    def top(self) -> int:  # type: ignore[override]
        """Two to the power of the bits."""
        return 1 << self._element.bits

    @property
    def zero(self) -> int | None:  # type: ignore[override]
        """The code of 0: signed integers are counted from the smallest."""
        return None if self.zero_part else self._lowest

    @property
    def affine(self) -> bool:  # type: ignore[override]
        """False: zero points do it."""
        return False

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether the integers are stored."""
        return not isinstance(self.data, EncodedPart)

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors."""
        for part in (self.data, self.scale, self.zero_part):
            if part:
                yield from part.leaves()

    def codes(self, start: int, stop: int) -> Array:
        """Read the integers of some rows."""
        return self._unsigned(self.data.compute(((start, stop), (0, self.shape[1]))))

    def scales(self, start: int, stop: int) -> Array:
        """Read the scales of some rows, each as often as it has groups."""
        return self._of_groups(self.scale, start, stop).astype(np.float32)

    def zeros(self, start: int, stop: int) -> Array:
        """Read the zero points of some rows likewise."""
        if not self.zero_part:
            return np.full((stop - start, self.groups), self.zero, np.uint8)
        return self._unsigned(self._of_groups(self.zero_part, start, stop))

    def least(self, start: int, stop: int) -> Array:
        """Return zeros: there are no minima."""
        return np.zeros((stop - start, self.groups), np.float32)

    @property
    def _element(self) -> Dense:
        assert isinstance(self.data.encoding, Dense)
        return self.data.encoding

    @property
    def _lowest(self) -> int:
        """What makes the integers codes."""
        return self.top // 2 if self._element.name[0] == "i" else 0

    def _unsigned(self, integers: Array) -> Array:
        return (integers.astype(np.int16) + np.int16(self._lowest)).astype(np.uint8)

    def _of_groups(self, part: Lazy, start: int, stop: int) -> Array:
        stored = part.compute(((start, stop), (0, part.shape[1])))
        if self.block == self.group:
            return stored
        return stored[:, np.arange(self.groups) * self.group // self.block]


def source_of(tensor: Lazy) -> Source | None:
    """Return a quantised matrix as codes and scales; None where it is none of these.

    Example:
        >>> from weighbridge.tensor import from_array
        >>> source_of(from_array("x", np.zeros((2, 32), np.float32))) is None
        True
    """
    if tensor.ndim != 2:
        return None
    if isinstance(tensor.encoding, Blocked):
        known = AFFINE.get(tensor.encoding.name)
        return OfBlocks(tensor) if known and known.encoding == tensor.encoding else None
    if isinstance(tensor.encoding, Scaled):
        whole = apart(tensor) if isinstance(tensor, Tensor) else tensor
        integers = _of_parts(whole) if isinstance(whole, Parted) else None
        return integers or _as_blocks(tensor, tensor.encoding)
    return None


def rounded(tensor: Lazy, encoding: Scaled) -> Source:
    """Return a matrix of floats as integers with scales, rounded when they are read.

    Args:
        tensor: the matrix.
        encoding: of integers, in blocks along rows that are a power of two from 16 on.
    """
    parts = {part: EncodedPart(tensor, encoding, part) for part in encoding.parts}
    return OfParts(parts[DATA], parts["scale"], parts.get("zero"), encoding.block[-1])


INTEGERS = frozenset({"i2", "u2", "i4", "u4", "i8", "u8"})


def _recoded(tensor: Lazy) -> bool:
    """Tell whether numbers are rounded to the blocks, wholly or in part, when these are read."""
    inputs: tuple[Lazy, ...] = getattr(tensor, "inputs", ())
    return isinstance(tensor, Recoded) or any(map(_recoded, inputs))


def _as_blocks(tensor: Lazy, encoding: Scaled) -> OfBlocks | None:
    """Return a matrix of parts as the blocks of ggml's that hold the same numbers (MXFP4)."""
    pair = pair_of(encoding)
    blocks = repacked(tensor, pair.blocked) if pair else None
    return OfBlocks(blocks) if blocks else None


def _of_parts(tensor: Parted) -> OfParts | None:
    encoding = tensor.encoding
    plain = encoding.element.name in INTEGERS and encoding.zero in (None, encoding.element)
    rows = len(encoding.block) in (1, 2) and set(encoding.block[:-1]) <= {1}
    if not plain or not rows or encoding.outer or encoding.scale.name not in DENSE:
        return None
    if _fitting(encoding.block[-1], tensor.shape[1]) is None:
        return None
    parts = tensor.parts
    return OfParts(parts[DATA], parts["scale"], parts.get("zero"), encoding.block[-1])


def _fitting(block: int, length: int) -> int | None:
    """Return the longest block of MatMulNBits of which `block` is a multiple, None if none is.

    Where one scale is for all of a row of this length, any will do.
    """
    if block >= length:
        return 32
    return next((size for size in BLOCKS if block % size == 0), None)
