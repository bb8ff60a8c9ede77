"""Which nodes of a graph multiply by a weight or look up its rows, and what matrix that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.ops import Applied, Concat, Transpose, apply

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    import onnx_ir

    from weighbridge.tensor import Lazy

OUT = 0
"""The axis of outputs in a weight as PyTorch has it, and that of tokens in a table."""


@dataclass(frozen=True)
class Use:
    """A node that reads a matrix.

    What else it reads is looked up in the node, since other nodes may have changed it.

    Attributes:
        node: the node.
        weight: the name of the initialiser.
        rows: the matrix with a row for each output of a layer, or for each token.
    """

    node: onnx_ir.Node
    weight: str
    rows: Lazy


class Product(Use):
    """A node that multiplies activations of shape ``(..., in)`` by a weight."""

    @property
    def transpose(self) -> onnx_ir.Node | None:
        """The node that transposes the weight, if one does."""
        return _given(self.node.inputs[1]).producer()

    @property
    def activations(self) -> onnx_ir.Value:
        """What is multiplied."""
        return _given(self.node.inputs[0])

    @property
    def bias(self) -> onnx_ir.Value | None:
        """What is added, None where nothing is."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None


class Lookup(Use):
    """A node that gathers rows of a weight."""

    @property
    def ids(self) -> onnx_ir.Value:
        """Which rows."""
        return _given(self.node.inputs[1])


def use_of(node: onnx_ir.Node, weights: Mapping[str, Lazy]) -> Use | None:
    """Return what a node does with a matrix among `weights`, None where it does nothing with one.

    That is a `Product` or a `Lookup`.
    """
    make = _KINDS.get((node.domain, node.op_type))
    return make(node, weights) if make else None


def _product(node: onnx_ir.Node, weights: Mapping[str, Lazy]) -> Product | None:
    name, rows = _factor(node.inputs[1], weights)
    if rows is None or rank(_given(node.inputs[0])) == 1:
        return None
    return Product(node, name, transposed(rows))


def _gemm(node: onnx_ir.Node, weights: Mapping[str, Lazy]) -> Product | None:
    settings = {name: attribute.value for name, attribute in node.attributes.items()}
    plain = settings.get("alpha", 1) == settings.get("beta", 1) == 1
    name, rows = _factor(node.inputs[1], weights)
    if rows is None or not plain or settings.get("transA"):
        return None
    return Product(node, name, rows if settings.get("transB") else transposed(rows))


def _lookup(node: onnx_ir.Node, weights: Mapping[str, Lazy]) -> Lookup | None:
    name, rows = _stored(node.inputs[0], weights)
    axis = node.attributes["axis"].value if "axis" in node.attributes else 0
    return None if rows is None or axis != OUT else Lookup(node, name, rows)


_KINDS = {("", "MatMul"): _product, ("", "Gemm"): _gemm, ("", "Gather"): _lookup}


def _factor(value: onnx_ir.Value | None, weights: Mapping[str, Lazy]) -> tuple[str, Lazy | None]:
    """Return the initialiser that a value is or is the transpose of, and the value's matrix."""
    node = None if value is None else value.producer()
    if node is None or (node.domain, node.op_type) != ("", "Transpose"):
        return _stored(value, weights)
    name, tensor = _stored(node.inputs[0], weights)
    order = tuple(node.attributes["perm"].value) if "perm" in node.attributes else (1, 0)
    return name, transposed(tensor) if tensor is not None and order == (1, 0) else None


def _stored(value: onnx_ir.Value | None, weights: Mapping[str, Lazy]) -> tuple[str, Lazy | None]:
    """Return the initialiser that a value is, and its matrix."""
    name = value.name if value is not None and value.is_initializer() else None
    found = weights.get(name or "")
    return name or "", found if found is not None and found.ndim == 2 else None


def _given(value: onnx_ir.Value | None) -> onnx_ir.Value:
    assert value is not None, "these operators have no optional input there"
    return value


def rank(value: onnx_ir.Value) -> int | None:
    """Return how many axes a value has, None where the graph does not say."""
    return None if value.shape is None else len(value.shape)


def transposed(tensor: Lazy) -> Lazy:
    """Return the transpose of a matrix: undone where it is one, and below a concatenation.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> rows = from_array("x", np.zeros((2, 3), np.float32))
        >>> transposed(apply(Transpose(), [rows])[0]) is rows
        True
    """
    if isinstance(tensor, Applied) and isinstance(tensor.op, Concat):
        parts = [transposed(part) for part in tensor.inputs]
        return apply(Concat(1 - tensor.op.axis, tensor.op.sizes), parts)[0]
    return apply(Transpose(), [tensor])[0]


def stacked(rows: Lazy) -> tuple[Lazy, ...]:
    """Return the matrices that one is made of, those that have rows of their own below each other.

    Only where they are stored in different encodings, so that their rows cannot be moved together.
    """
    if not isinstance(rows, Applied) or not isinstance(rows.op, Concat) or rows.op.axis != OUT:
        return (rows,)
    if all(part.encoding == rows.encoding for part in rows.inputs):
        return (rows,)
    return tuple(piece for part in rows.inputs for piece in stacked(part))


def identity(tensor: Lazy) -> Hashable:
    """Return what is equal for the same operations on the same stored tensors."""
    return tensor, tuple(id(leaf) for leaf in tensor.leaves())
