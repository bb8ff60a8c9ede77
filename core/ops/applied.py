"""The lazy tensors that operations make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE, Dense, Encoding, Scaled
from weighbridge.errors import Unsupported
from weighbridge.parted import Parted, parted
from weighbridge.tensor import Lazy, Tensor, whole_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.ops.op import Array, Op
    from weighbridge.region import Region, Shape


@dataclass(frozen=True)
class Applied(Lazy):
    """One result of an operation on lazy tensors.

    Attributes:
        op: the operation.
        inputs: what it is applied to.
        result: which of its results this is.
        shape: the result's shape.
        encoding: the inputs' own where the operation moves whole grains, a dense one otherwise.
    """

    op: Op
    inputs: tuple[Lazy, ...]
    result: int
    shape: Shape
    encoding: Encoding

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors underneath."""
        for tensor in self.inputs:
            yield from tensor.leaves()

    def units(self) -> tuple[int, ...]:
        """Return the lengths at which the operation is best cut."""
        return self.op.units(self.result, [tensor.shape for tensor in self.inputs])

    @property
    def packed(self) -> bool:
        """Whether the inputs' grains are moved as they are."""
        shapes = [tensor.shape for tensor in self.inputs]
        same = all(tensor.encoding == self.encoding for tensor in self.inputs)
        return same and self.op.run(shapes) is not None

    def grains(self, region: Region) -> Array:
        """Move the inputs' grains, or compute values where these change."""
        if not self.packed:
            return self.compute(region)
        shapes = [tensor.shape for tensor in self.inputs]
        op = self.op.on_grid(shapes, self.encoding.grain)
        grids = [tensor.grid for tensor in self.inputs]
        return op.region(self.result, region, grids, lambda n, r: self.inputs[n].grains(r))

    def compute(self, region: Region) -> Array:
        """Run the operation on the inputs' values."""
        shapes = [tensor.shape for tensor in self.inputs]
        return self.op.region(self.result, region, shapes, self._values)

    def _values(self, number: int, region: Region) -> Array:
        values = self.inputs[number].compute(region)
        if not isinstance(self.encoding, Dense):
            return values
        from weighbridge import kernels  # the codecs are needed only here

        return kernels.cast(values, self.encoding)


def apply(op: Op, inputs: Sequence[Lazy]) -> tuple[Lazy, ...]:
    """Return the results of an operation, computed when they are read.

    An operation on all the results of its own inverse gives back what that was applied to, so that
    there and back is the identity, and its route a copy.

    Raises:
        InvalidInput: (rule ``op-shape``) for inputs that the operation cannot take.

    Example:
        >>> import numpy as np
        >>> from weighbridge.ops import Transpose
        >>> from weighbridge.tensor import from_array
        >>> x = from_array("x", np.zeros((2, 3), np.float32))
        >>> apply(Transpose(), apply(Transpose(), [x]))[0] is x
        True
    """
    shapes = op.shapes([tensor.shape for tensor in inputs])
    undone = _undone(op, inputs)
    if undone is not None:
        return undone
    if _keeps_blocks(op, inputs, shapes):
        return _part_by_part(op, inputs)
    encoding = _result_encoding(op, inputs, shapes)
    return tuple(
        Applied(op, tuple(inputs), number, shape, encoding) for number, shape in enumerate(shapes)
    )


def _undone(op: Op, inputs: Sequence[Lazy]) -> tuple[Lazy, ...] | None:
    first = inputs[0]
    if (
        not isinstance(first, Applied)
        or first.op != op.inverse
        or first.op.run([tensor.shape for tensor in first.inputs]) is None
    ):
        return None
    results = first.op.shapes([tensor.shape for tensor in first.inputs])
    together = [
        isinstance(tensor, Applied)
        and tensor.op == first.op
        and tensor.result == number
        and all(a is b for a, b in zip(tensor.inputs, first.inputs, strict=True))
        for number, tensor in enumerate(inputs)
    ]
    return first.inputs if len(results) == len(inputs) and all(together) else None


def _keeps_blocks(op: Op, inputs: Sequence[Lazy], results: Sequence[Shape]) -> bool:
    """Tell whether an operation on elements and scales alike is one on what they stand for.

    It has to leave the last axis alone, and blocks have to lie along that axis.
    """
    first = inputs[0].encoding
    return (
        isinstance(first, Scaled)
        and all(isinstance(tensor, Parted) and tensor.encoding == first for tensor in inputs)
        and op.run([tensor.shape for tensor in inputs]) == 0
        and min(map(len, results)) >= len(first.block) > 0
        and set(first.block[:-1]) <= {1}
        and first.outer is None
    )


def _part_by_part(op: Op, inputs: Sequence[Lazy]) -> tuple[Lazy, ...]:
    held = [tensor for tensor in inputs if isinstance(tensor, Parted)]
    block = held[0].encoding.block
    done = {part: apply(op, [tensor.parts[part] for tensor in held]) for part in held[0].parts}
    results = zip(*done.values(), strict=True)
    return tuple(parted(block, **dict(zip(done, parts, strict=True))) for parts in results)


def _result_encoding(op: Op, inputs: Sequence[Lazy], results: Sequence[Shape]) -> Encoding:
    run = op.run([tensor.shape for tensor in inputs])
    if run is None:
        return DENSE["f32"]
    encoding = inputs[0].encoding
    same = all(tensor.encoding == encoding for tensor in inputs)
    whole_grains = (
        run % encoding.grain == 0
        and not isinstance(encoding, Scaled)
        and all(whole_rows(shape, encoding) for shape in (*results, *(t.shape for t in inputs)))
    )
    return encoding if same and whole_grains else _common([tensor.encoding for tensor in inputs])


def _common(encodings: Sequence[Encoding]) -> Dense:
    """Return a dense encoding of whole bytes that holds the numbers of all these.

    Raises:
        Unsupported: (rule ``mixed-encodings``) when there is none.
    """
    from weighbridge import kernels  # not every operation mixes encodings

    single = DENSE["f32"]
    held = [encoding if isinstance(encoding, Dense) else single for encoding in encodings]
    for candidate in (*held, single, DENSE["f64"]):
        if candidate.grain == 1 and all(kernels.lossless(one, candidate) for one in held):
            return candidate
    raise Unsupported(
        "no encoding holds the numbers of all these tensors",
        rule="mixed-encodings",
        got=", ".join(sorted({str(encoding) for encoding in encodings})),
    )
