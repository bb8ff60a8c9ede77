"""Tensors whose numbers and scales are tensors of their own, read region by region."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.encoding import DATA, Dense, Scaled, Shape, scaled
from weighbridge.errors import InvalidInput
from weighbridge.tensor import Lazy, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.region import Region
    from weighbridge.tensor import Array


@dataclass(frozen=True)
class Parted(Lazy):
    """Elements, scales and zero points as lazy tensors: together one tensor of a scaled encoding.

    Attributes:
        shape: the elements' own.
        encoding: what the parts together are.
        parts: ``data``, ``scale`` and, where the encoding has them, ``zero`` and ``outer``.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> codes = from_array("q", np.arange(8, dtype=np.int8).reshape(2, 4))
        >>> scale = from_array("s", np.array([[1, 10], [2, 20]], np.float32))
        >>> tensor = parted((1, 2), data=codes, scale=scale)
        >>> tensor[1].tolist()
        [8.0, 10.0, 120.0, 140.0]
    """

    shape: Shape
    encoding: Scaled
    parts: Mapping[str, Lazy] = field(compare=False)

    def __post_init__(self) -> None:
        """Check that the parts have the shapes that the encoding gives."""
        expected = dict(self.encoding.shapes(self.shape))
        found = {part: tensor.shape for part, tensor in self.parts.items()}
        if found != expected:
            raise InvalidInput(
                "its parts do not have the shapes that its blocks give",
                rule="part-shape",
                got=_shapes(found),
                expected=_shapes(expected),
            )

    def leaves(self) -> Iterator[Tensor]:
        """Yield the stored tensors underneath, the elements first."""
        for tensor in self.parts.values():
            yield from tensor.leaves()

    def units(self) -> tuple[int, ...]:
        """Return the elements' own: a scale is read again where a block is cut."""
        return self.parts[DATA].units()

    def grains(self, region: Region) -> Array:
        """Refuse: the bytes are in several parts.

        Raises:
            InvalidInput: (rule ``which-part``) always.
        """
        raise InvalidInput(
            "its bytes are in several parts", rule="which-part", got=", ".join(self.parts)
        )

    def numbers(self, region: Region) -> dict[str, Array]:
        """Return what each part holds of a region: the scales of every block that it touches."""
        of_blocks = self._in_blocks(region)
        return {
            part: tensor.compute(region if part == DATA else of_blocks if tensor.ndim else ())
            for part, tensor in self.parts.items()
        }

    def compute(self, region: Region) -> Array:
        """Read the parts of a region, and scale its elements."""
        from weighbridge.kernels.scaled import scale_numbers  # needed only where weights are read

        starts = [start for start, _ in region]
        return scale_numbers(self.encoding, self.numbers(region), starts)

    def _in_blocks(self, region: Region) -> Region:
        from weighbridge.kernels.scaled import full_block

        block = full_block(self.encoding, self.ndim)
        return tuple(
            (start // size, -(-stop // size))
            for (start, stop), size in zip(region, block, strict=True)
        )


def parted(block: Shape, *, divides: bool = False, **parts: Lazy | None) -> Parted:
    """Return the tensor that `parts` are, its encoding made from theirs.

    Args:
        block: the shape of a block, aligned with the last axes; empty for one scale.
        divides: whether the part ``outer`` divides the scales.
        parts: ``data``, ``scale``, ``zero``, ``outer``; None is left out.

    Raises:
        InvalidInput: (rule ``part-shape``) when they do not fit together, (rule ``part-dtype``)
            for one that is not dense.
        Unsupported: (rule ``block-size``) when the elements have fewer axes than a block.
    """
    held = {part: tensor for part, tensor in parts.items() if tensor is not None}
    dense = {part: _dense(part, tensor) for part, tensor in held.items()}
    encoding = scaled(
        dense[DATA], dense["scale"], block, dense.get("zero"), dense.get("outer"), divides=divides
    )
    return Parted(held[DATA].shape, encoding, held)


def apart(tensor: Tensor) -> Parted:
    """Return a stored tensor of a scaled encoding as its parts, each a tensor."""
    encoding = tensor.encoding
    assert isinstance(encoding, Scaled), "apart is called for scaled encodings alone"
    shapes = encoding.shapes(tensor.shape)
    parts = {
        part: Tensor(f"{tensor.name}.{part}", shapes[part], dense, {DATA: tensor.parts[part]})
        for part, dense in encoding.parts.items()
    }
    return Parted(tensor.shape, encoding, parts)


def has_parts(tensor: Lazy) -> bool:
    """Tell whether a tensor is of several parts, or is made by operations on one that is."""
    inputs: tuple[Lazy, ...] = getattr(tensor, "inputs", ())
    return isinstance(tensor.encoding, Scaled) or any(map(has_parts, inputs))


def _dense(part: str, tensor: Lazy) -> Dense:
    if not isinstance(tensor.encoding, Dense):
        raise InvalidInput(
            f"its {part} are not plain numbers", rule="part-dtype", got=tensor.encoding
        )
    return tensor.encoding


def _shapes(found: Mapping[str, Shape]) -> str:
    return ", ".join(f"{part} {list(shape)}" for part, shape in found.items())
