"""ONNX models for the tests: made and read by the ``onnx`` package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support import packages
from weighbridge.formats.onnx import FORMAT
from weighbridge.formats.onnx.dtypes import BY_NUMBER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from weighbridge.formats.onnx.dtypes import DataType
    from weighbridge.model import Model

DATA_TYPES = {dtype.name: dtype for dtype in BY_NUMBER.values()}


def package_file(package: str, name: str) -> Path:
    """Find a file in an installed package without importing it."""
    return next(packages.folder(package).rglob(name))


def numbers(dtype: DataType, shape: Sequence[int], seed: int = 0) -> NDArray[Any]:
    """Return numbers with random bits, NaN among them."""
    kind = helper.tensor_dtype_to_np_dtype(dtype.number)
    rng = np.random.default_rng([seed, dtype.number])
    below = 1 << min(dtype.encoding.bits, 8)
    if dtype.name == "BOOL":
        below = 2
    raw = rng.integers(0, below, int(np.prod(shape)) * kind.itemsize, np.uint8)
    array: NDArray[Any] = raw.view(kind).reshape(shape)
    return array


def model_of(
    *initializers: TensorProto, nodes: Sequence[onnx.NodeProto] = (), **fields: Any
) -> onnx.ModelProto:
    """Return a model of IR version 14 with these initialisers and nodes."""
    outputs = [helper.make_value_info(node.output[0], onnx.TypeProto()) for node in nodes[-1:]]
    graph = helper.make_graph(list(nodes), "graph", [], outputs, list(initializers))
    opsets = [helper.make_opsetid("", 25)]
    made: onnx.ModelProto = helper.make_model(graph, ir_version=14, opset_imports=opsets, **fields)
    return made


def opened(path: Path, model: onnx.ModelProto | bytes) -> Model:
    """Write a model to `path` and open it."""
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return FORMAT.open(path)


def stored_bytes(array: NDArray[Any], dtype: int) -> bytes:
    """Return the bytes that the ``onnx`` package gives numbers of a data type."""
    tensor = numpy_helper.from_array(array)
    assert tensor.data_type == dtype
    return bytes(tensor.raw_data)


def tensors_of(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield initialisers and the values of Constant nodes, in subgraphs too, as onnx sees them."""
    yield from _in_graph(model.graph, "")


def _in_graph(graph: onnx.GraphProto, scope: str) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield scope + tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            label = scope + node.output[0]
            if attribute.type == onnx.AttributeProto.TENSOR:
                constant = node.op_type == "Constant"
                yield label if constant else f"{label}::{attribute.name}", attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _in_graph(attribute.g, f"{label}::{attribute.name}::")
