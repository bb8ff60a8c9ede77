"""Weights in blocks of small integers, against what ONNX Runtime computes with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.exported import named

import weighbridge as wb
from weighbridge.graph import PROPERTY

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

MICROSOFT = "com.microsoft"
NODE = "/encoder/layer.0/dense/MatMul_Q4"
NAME = "encoder.layer.0.dense.weight"


def model_of(
    node: onnx.NodeProto, inputs: dict[str, Any], tensors: dict[str, NDArray[Any]], **props: str
) -> onnx.ModelProto:
    """Return a graph of one node."""
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    made = helper.make_model(graph, ir_version=10, opset_imports=opsets)
    helper.set_model_props(made, props)
    return made


def computed(path: Path, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return what ONNX Runtime makes of a graph's inputs."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, inputs)[0]
    return result


def product(
    rows: int, columns: int, bits: int, block: int, zero: str | None, node: str = NODE, **props: str
) -> onnx.ModelProto:
    """Return a graph that multiplies by a random quantised matrix."""
    rng = np.random.default_rng([rows, columns, bits, block])
    blocks = -(-columns // block)
    tensors = {
        "b": rng.integers(0, 256, (rows, blocks, block * bits // 8), np.uint8),
        "scales": rng.standard_normal((rows, blocks)).astype(np.float32),
    }
    if zero == "uint8":
        tensors["zeros"] = rng.integers(0, 256, (rows, -(-blocks * bits // 8)), np.uint8)
    if zero == "float":
        tensors["zeros"] = rng.standard_normal((rows, blocks)).astype(np.float32)
    made = helper.make_node(
        "MatMulNBits", ["x", *tensors], ["y"], node, domain=MICROSOFT,
        K=columns, N=rows, bits=bits, block_size=block,
    )  # fmt: skip
    return model_of(made, {"x": TensorProto.FLOAT}, tensors, **props)


@pytest.mark.parametrize("columns", [96, 80])
@pytest.mark.parametrize(
    ("bits", "block", "zero"),
    [
        (4, 32, None),
        (4, 16, "uint8"),
        (4, 32, "float"),
        (8, 32, None),
        (8, 16, "uint8"),
        (2, 32, None),
        (2, 16, "uint8"),
        (2, 16, "float"),
    ],
)
def test_products_are_decoded_as_onnx_runtime_does(
    bits: int, block: int, zero: str | None, columns: int, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(product(7, columns, bits, block, zero).SerializeToString())
    expected = computed(path, {"x": np.eye(columns, dtype=np.float32)}).T
    with wb.open(path) as model:
        found, report = named(model)
        assert not report.problems
        assert [note.subject for note in report.notes if note.kind == "decoded"] == [NAME]
        tensor = found.tensors[NAME]
        # The runtime subtracts a product with a zero point that is no integer, rounded for itself.
        apart = 0 if zero != "float" else 2.0**-22 * np.abs(expected).max()
        assert np.abs(tensor.values() - expected).max() <= apart
        assert np.array_equal(tensor[2:5, 17:40], tensor.values()[2:5, 17:40])


@pytest.mark.parametrize("zero", [True, False])
def test_look_ups_are_decoded_as_onnx_runtime_does(zero: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tensors = {
        "data": rng.integers(0, 256, (11, 32), np.uint8),
        "scales": rng.standard_normal((11, 4)).astype(np.float32),
    }
    if zero:
        tensors["zeros"] = rng.integers(0, 256, (11, 2), np.uint8)
    names = list(tensors)
    node = helper.make_node(
        "GatherBlockQuantized", [names[0], "ids", *names[1:]], ["y"], "look", domain=MICROSOFT,
        bits=4, block_size=16, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    props = {PROPERTY: json.dumps({name: {"parts of": "embed.weight"} for name in names})}
    path = tmp_path / "m.onnx"
    path.write_bytes(
        model_of(node, {"ids": TensorProto.INT64}, tensors, **props).SerializeToString()
    )
    expected = computed(path, {"ids": np.arange(11)})
    with wb.open(path) as model:
        found, report = named(model)
        assert not report.problems
        assert np.array_equal(found.tensors["embed.weight"].values(), expected)


def test_a_quantised_weight_without_a_name_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(product(3, 32, 4, 16, "uint8", node="product").SerializeToString())
    with wb.open(path) as model:
        _, report = named(model)
    assert [problem.tensor for problem in report.problems] == ["b", "scales", "zeros"]
    assert {problem.rule for problem in report.problems} == {"unresolved-initializer"}


def test_parts_that_do_not_fit_are_a_problem(tmp_path: Path) -> None:
    made = product(3, 32, 4, 16, "uint8")
    made.graph.node[0].attribute[0].i = 4096
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with wb.open(path) as model:
        _, report = named(model)
    assert {problem.rule for problem in report.problems} == {"unresolved-initializer"}
    assert "cannot be decoded" in str(report.problems[0])


def test_a_weight_with_parts_beside_those_of_one_node_is_a_problem(tmp_path: Path) -> None:
    made = product(3, 32, 4, 16, "uint8")
    made.graph.initializer.append(numpy_helper.from_array(np.ones((3, 2), np.float32), "minima"))
    parts = ("b", "scales", "zeros", "minima")
    table = json.dumps({part: {"parts of": "a.weight"} for part in parts})
    helper.set_model_props(made, {PROPERTY: table})
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with wb.open(path) as model:
        found, report = named(model)
    assert not found.tensors
    assert {problem.tensor for problem in report.problems} == set(parts)


def test_two_products_of_one_module_are_no_linear_layer(tmp_path: Path) -> None:
    made = product(3, 32, 4, 16, "uint8")
    other = made.graph.node.add()
    other.CopyFrom(made.graph.node[0])
    other.name, other.input[1], other.output[0] = NODE + "_1", "c", "z"
    second = made.graph.initializer.add()
    second.CopyFrom(made.graph.initializer[0])
    second.name = "c"
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with wb.open(path) as model:
        found, report = named(model)
    assert not found.tensors
    assert {problem.tensor for problem in report.problems} == {"b", "c", "scales", "zeros"}


def test_a_weight_that_is_stored_once_and_read_twice_is_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    data = rng.integers(0, 256, (11, 2, 8), np.uint8)
    scales = rng.standard_normal((11, 2)).astype(np.float32)
    (tmp_path / "data").write_bytes(data.tobytes())
    made = product(11, 32, 4, 16, None)
    look = helper.make_node(
        "GatherBlockQuantized", ["table", "ids", "scales"], ["z"], "look", domain=MICROSOFT,
        bits=4, block_size=16, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    made.graph.node.append(look)
    made.graph.ClearField("initializer")
    for name, shape in (("b", (11, 2, 8)), ("table", (11, 16))):
        tensor = made.graph.initializer.add(name=name, dims=shape, data_type=TensorProto.UINT8)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="data")
    made.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
    parts = ("b", "table", "scales")
    table = json.dumps({part: {"parts of": "embed.weight"} for part in parts})
    helper.set_model_props(made, {PROPERTY: table})
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    codes = np.stack([data & 15, data >> 4], -1).reshape(11, 32).astype(np.float32)
    with wb.open(path) as model:
        found, report = named(model)
        assert not report.problems
        expected = (codes - 8) * np.repeat(scales, 16, axis=1)
        assert np.array_equal(found.tensors["embed.weight"].values(), expected)
