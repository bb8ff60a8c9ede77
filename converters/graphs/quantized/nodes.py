"""The nodes that take the place of a product with a weight, and of a look-up in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge.converters.graphs.quantized.parts import InBlocks, SameZeros
from weighbridge.converters.graphs.quantized.uses import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import onnx_ir

    from weighbridge.converters.graphs.quantized.initializers import Initializers
    from weighbridge.converters.graphs.quantized.matrix import Matrix

    Value = onnx_ir.Value
    Node = onnx_ir.Node

CONTRIB = "com.microsoft"


class Builder:
    """Puts nodes before others; what several need of the same value is computed once."""

    def __init__(self, initializers: Initializers) -> None:
        """Register weights and constants with `initializers`."""
        self._initializers = initializers
        self._made: dict[Hashable, Value] = {}

    def product(self, at: Node, activations: Value, name: str, matrix: Matrix) -> Value:
        """Return the activations times the transpose of a matrix.

        Args:
            at: before which node.
            activations: float32 of shape ``(..., columns)``.
            name: what the weight is called.
            matrix: the weight.
        """
        form, source = matrix.form, matrix.source
        taken = self._twice(at, activations, matrix) if form.split else activations
        codes = InBlocks(matrix.codes, matrix.blocks)
        settings = {"K": matrix.length, "N": source.shape[0]}
        if form.level:
            settings["accuracy_level"] = form.level
        inputs = [taken, *self._weights(name, matrix, codes)]
        result = self._quantized(at, "MatMulNBits", inputs, matrix, **settings)
        if not matrix.has_offsets:
            return result
        return self.put(at, "Add", [result, self._correction(at, activations, name, matrix)])

    def rows(self, at: Node, ids: Value, name: str, matrix: Matrix) -> Value:
        """Return some rows of a matrix as float32.

        Args:
            at: before which node.
            ids: which rows.
            name: what the weight is called.
            matrix: the weight, in a form without float zero points.
        """
        codes, *others = self._weights(name, matrix, matrix.codes)
        settings = {"gather_axis": 0, "quantize_axis": 1}
        inputs = [codes, ids, *others]
        result = self._quantized(at, "GatherBlockQuantized", inputs, matrix, **settings)
        if matrix.form.split:
            result = self._halves_added(at, result, matrix.source.shape[1])
        if not matrix.has_offsets:
            return result
        return self._with_offsets(at, result, ids, name, matrix)

    def cast(self, at: Node, value: Value, dtype: onnx_ir.DataType) -> Value:
        """Return a value in another dtype, cast once for all that ask for it."""
        key = ("cast", value, dtype, at.graph)
        return self._once(key, lambda: self.put(at, "Cast", [value], to=int(dtype)))

    def put(
        self, at: Node, op: str, inputs: Sequence[Value | None], domain: str = "", **attributes: Any
    ) -> Value:
        """Put a node before another, and return its result."""
        return self._put(at, op, inputs, 1, domain, **attributes)[0]

    def _put(
        self,
        at: Node,
        op: str,
        inputs: Sequence[Value | None],
        results: int,
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[Value]:
        import onnx_ir

        node = onnx_ir.node(op, inputs, attributes, domain=domain, num_outputs=results)
        at.prepend(node)
        return node.outputs

    def _quantized(
        self, at: Node, op: str, inputs: Sequence[Value], matrix: Matrix, **settings: int
    ) -> Value:
        settings |= {"bits": matrix.form.bits, "block_size": matrix.source.group}
        return self.put(at, op, inputs, CONTRIB, **settings)

    def _weights(self, name: str, matrix: Matrix, codes: Any) -> list[Value]:
        """Return codes, scales and, where they have to be given, zero points."""
        parts = [(f"{name}.codes", codes), (f"{name}.scales", matrix.scales)]
        if matrix.has_zeros:
            zeros = matrix.zeros
            shared = isinstance(zeros, SameZeros)
            owner = "x".join(map(str, zeros.shape)) if shared else name
            parts.append((f"{owner}.zeros", zeros))
        return [self._initializers.weight(*part) for part in parts]

    def _twice(self, at: Node, activations: Value, matrix: Matrix) -> Value:
        """Return activations twice in a row; blocks that are not full are filled up with zeros."""
        source = matrix.source
        missing = source.groups * source.group - source.shape[1]

        def made() -> Value:
            first = self._padded(at, activations, missing) if missing else activations
            return self.put(at, "Concat", [first, activations], axis=-1)

        return self._once(("twice", activations, missing, at.graph), made)

    def _padded(self, at: Node, activations: Value, missing: int) -> Value:
        pads, axes = self._initializers.constant([0, missing]), self._initializers.constant([-1])
        return self.put(at, "Pad", [activations, pads, None, axes])

    def _correction(self, at: Node, activations: Value, name: str, matrix: Matrix) -> Value:
        """Return the sums of the activations' blocks times the offsets."""
        group = matrix.source.group

        def made() -> Value:
            blocks = self._in_groups(at, activations, rank(activations), matrix)
            return self.put(
                at, "ReduceSum", [blocks, self._initializers.constant([-1])], keepdims=0
            )

        sums = self._once(("sums", activations, group, at.graph), made)
        offsets = self._initializers.weight(f"{name}.offsets", matrix.offsets)
        # ONNX Runtime transposes it once, when it loads the model; here rows are read as they lie.
        turned = self._once(
            ("turned", offsets, at.graph), lambda: self.put(at, "Transpose", [offsets], perm=[1, 0])
        )
        return self.put(at, "MatMul", [sums, turned])

    def _with_offsets(self, at: Node, rows: Value, ids: Value, name: str, matrix: Matrix) -> Value:
        """Return rows with each group's offset added."""
        offsets = self._initializers.weight(f"{name}.offsets", matrix.offsets)
        found = self.put(at, "Gather", [offsets, ids], axis=0)
        column = self.put(at, "Unsqueeze", [found, self._initializers.constant([-1])])
        axes = rank(ids)
        blocks = self._in_groups(at, rows, None if axes is None else axes + 1, matrix)
        added = self.put(at, "Add", [blocks, column])
        return self.put(at, "Reshape", [added, self.put(at, "Shape", [rows])])

    def _halves_added(self, at: Node, rows: Value, length: int) -> Value:
        lengths = self._initializers.constant([length, length])
        high, low = self._put(at, "Split", [rows, lengths], 2, axis=-1)
        return self.put(at, "Add", [high, low])

    def _in_groups(self, at: Node, value: Value, axes: int | None, matrix: Matrix) -> Value:
        """Return a value with its last axis cut into groups."""
        ends = [matrix.source.groups, matrix.source.group]
        if axes is not None:
            shape = self._initializers.constant([0] * (axes - 1) + ends)
            return self.put(at, "Reshape", [value, shape])
        lead = self.put(at, "Shape", [value], end=-1)
        shape = self.put(at, "Concat", [lead, self._initializers.constant(ends)], axis=0)
        return self.put(at, "Reshape", [value, shape])

    def _once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
