"""Small graphs that read lazy weights, rewritten and run in ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import onnx_ir as ir
import onnxruntime

import weighbridge as wb
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.ops import Transpose, apply
from weighbridge.report import Report
from weighbridge.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from weighbridge.converters.graphs.quantized import Choice
    from weighbridge.tensor import Lazy

    Array = NDArray[Any]

F32, F16, I64 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT64


def blocks(type: str, raw: Array, name: str = "w") -> Tensor:
    """Return rows of blocks as a stored tensor."""
    encoding = BLOCKED[type]
    shape = (raw.shape[0], raw.shape[1] // encoding.grain_bytes * encoding.grain)
    return Tensor(name, shape, encoding, {"data": np.ascontiguousarray(raw).reshape(-1)})


def encoded(type: str, rows: int, columns: int, seed: int = 0, name: str = "w") -> Tensor:
    """Return random numbers in blocks, as ggml encodes them."""
    values = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    importance = np.ones(columns, np.float32)
    return blocks(type, wb.encode(values, type, importance).reshape(rows, -1), name)


def decoded(tensor: Tensor) -> Array:
    """Return what gguf-py decodes blocks to, as float64; two types are not known to it."""
    raw = tensor.part().reshape(tensor.shape[0], -1)
    if tensor.encoding.name in ("q1_0", "q2_0"):
        return wb.decode(raw, tensor.encoding).astype(np.float64)
    kind = gguf.GGMLQuantizationType[str(tensor.encoding)]
    return gguf.quants.dequantize(raw, kind).astype(np.float64)


def turned(tensor: Lazy) -> Lazy:
    """Return a weight as a product wants it."""
    return apply(Transpose(), [tensor])[0]


class Program:
    """A graph to which nodes are added one by one.

    Attributes:
        weights: what its initialisers are made from.
        model: the graph.
        report: what the rewriting told.
    """

    def __init__(self, dtype: ir.DataType = F32) -> None:
        self.dtype = dtype
        self.weights: dict[str, Lazy] = {}
        self.report = Report()
        graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="graph")
        self.model = ir.Model(graph, ir_version=10)

    @property
    def ops(self) -> list[str]:
        return [node.op_type for node in self.model.graph]

    @property
    def initializers(self) -> set[str]:
        return set(self.model.graph.initializers)

    def input(
        self, shape: Sequence[int | str] | None, dtype: ir.DataType | None = None
    ) -> ir.Value:
        name = f"x{len(self.model.graph.inputs)}"
        value = ir.val(name, dtype or self.dtype, None if shape is None else list(shape))
        self.model.graph.inputs.append(value)
        return value

    def weight(self, name: str, tensor: Lazy) -> ir.Value:
        value = ir.val(name, self.dtype, list(tensor.shape))
        self.model.graph.initializers.add(value)
        self.weights[name] = tensor
        return value

    def node(
        self, op: str, *inputs: ir.Value, axes: int | None = None, **settings: Any
    ) -> ir.Value:
        made = ir.node(op, inputs, settings)
        self.model.graph.append(made)
        (result,) = made.outputs
        result.name = f"y{len(self.model.graph)}"
        result.dtype = self.dtype
        result.shape = None if axes is None else ir.Shape([None] * axes)
        return result

    def output(self, *values: ir.Value) -> Program:
        self.model.graph.outputs.extend(values)
        return self

    def quantized(self, quantize: Any, choice: Choice | None = None) -> Program:
        self.weights = quantize(self.model, self.weights, choice, self.report)
        assert set(self.weights) <= self.initializers
        return self

    def run(self, *inputs: Array) -> list[Array]:
        """Run the graph, its weights read whole."""
        for name, tensor in self.weights.items():
            value = self.model.graph.initializers[name]
            assert value.shape is not None
            assert value.shape.numpy() == tensor.shape
            assert value.dtype is not None
            assert value.dtype.numpy() == tensor.encoding.dtype
            value.const_value = ir.tensor(tensor.values(), name=name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            ir.to_proto(self.model).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        names = [value.name for value in self.model.graph.inputs]
        results: list[Array] = session.run(None, dict(zip(names, inputs, strict=True)))
        return results


def product(tensor: Lazy, dtype: ir.DataType = F32) -> Program:
    """Return a program that multiplies by one weight."""
    program = Program(dtype)
    x = program.input(["batch", "rows", tensor.shape[1]])
    return program.output(program.node("MatMul", x, program.weight("w", turned(tensor)), axes=3))


def error(found: Array, right: Array) -> float:
    """Return the largest difference in terms of the largest number."""
    return float(np.abs(found - right).max() / np.abs(right).max())


def same_bytes(weights: Mapping[str, Lazy]) -> int:
    """Return the bytes of all weights, those once that are the same."""
    held = {getattr(tensor, "inner", tensor): tensor.nbytes for tensor in weights.values()}
    return sum(held.values())
