"""Every tensor of an ONNX file is found, and has the values that the ``onnx`` package gives it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnx_files import (
    DATA_TYPES,
    model_of,
    numbers,
    opened,
    package_file,
    stored_bytes,
    tensors_of,
)

from weighbridge.formats.onnx import FORMAT
from weighbridge.metadata import array, scalar, string
from weighbridge.protobuf import bytes_field
from weighbridge.tensor import Extent, Tensor
from weighbridge.testing import part_bytes

SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (3, 5),
    "scalar": (),
    "empty": (2, 0),
    "long": (4096,),
}

FIELDS = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}

REAL = sorted(package_file("silero_vad", "silero_vad.onnx").parent.glob("*.onnx")) + sorted(
    (Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx")
)


def check(model: Any, name: str, expected: TensorProto) -> None:
    """Check that a tensor is bit for bit the one that onnx reads."""
    found = model.tensors[name]
    value = numpy_helper.to_array(expected)
    assert found.shape == value.shape
    assert part_bytes(found)["data"] == stored_bytes(value, expected.data_type)
    decoded = found.values()
    assert decoded.dtype == value.dtype
    assert decoded.tobytes() == value.tobytes()


def written_typed(dtype: Any, value: Any) -> TensorProto:
    """Return a tensor whose numbers are in the field of its type."""
    tensor = TensorProto(data_type=dtype.number, dims=value.shape, name="x")
    if dtype.encoding.bits < 8 and not dtype.name.startswith("FLOAT6"):
        tensor.int32_data.extend(stored_bytes(value, dtype.number))
    elif dtype.field == "int32_data" and value.dtype.kind not in "iu":
        tensor.int32_data.extend(value.reshape(-1).view(f"u{value.itemsize}").tolist())
    elif dtype.field in {"float_data", "double_data"}:
        # As Python floats signalling NaN would become quiet.
        tensor.MergeFromString(bytes_field(FIELDS[dtype.field], value.tobytes()))
    else:
        getattr(tensor, dtype.field).extend(value.reshape(-1).tolist())
    return tensor


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DATA_TYPES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_every_data_type_is_read_from_every_place(name: str, shape: str, tmp_path: Path) -> None:
    dtype = DATA_TYPES[name]
    value = numbers(dtype, SHAPES[shape])
    raw = numpy_helper.from_array(value, "raw")
    typed = written_typed(dtype, value)
    model = model_of(raw, typed)
    with opened(tmp_path / "m.onnx", model) as found:
        check(found, "raw", raw)
        assert part_bytes(found.tensors["x"]) == part_bytes(found.tensors["raw"])
        check(found, "x", typed)
    onnx.save_model(model, tmp_path / "e.onnx", save_as_external_data=True, size_threshold=0)
    with FORMAT.open(tmp_path / "e.onnx") as found:
        check(found, "raw", raw)


@pytest.mark.parametrize("name", ["FLOAT", "DOUBLE", "COMPLEX64", "COMPLEX128"])
def test_packed_numbers_of_fixed_width_stay_in_the_file(name: str, tmp_path: Path) -> None:
    typed = written_typed(DATA_TYPES[name], np.ones((3, 5), DATA_TYPES[name].encoding.dtype))
    with opened(tmp_path / "m.onnx", model_of(typed)) as found:
        tensor = found.tensors["x"]
        assert isinstance(tensor, Tensor)
        assert isinstance(tensor.parts["data"], Extent)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_models_are_read_as_onnx_reads_them(path: Path) -> None:
    reference = onnx.load(path)
    expected = dict(tensors_of(reference))
    with FORMAT.open(path) as found:
        assert set(found.tensors) == set(expected)
        for name, tensor in expected.items():
            check(found, name, tensor)
        assert found.graph is not None
        kinds: Counter[str] = Counter()
        own = {tensor.name for tensor in reference.graph.initializer}
        assert found.graph.inputs == tuple(
            i.name for i in reference.graph.input if i.name not in own
        )
        assert found.graph.outputs == tuple(o.name for o in reference.graph.output)
        _count(reference.graph, kinds)
        assert found.graph.nodes == kinds
        assert found.metadata["onnx.ir_version"] == scalar("i64", reference.ir_version)
        assert found.metadata["onnx.graph_name"] == string(reference.graph.name)
        for opset in reference.opset_import:
            key = f"onnx.opset.{opset.domain or 'ai.onnx'}"
            assert found.metadata[key] == scalar("i64", opset.version)


def _count(graph: onnx.GraphProto, kinds: Counter[str]) -> None:
    for node in graph.node:
        kinds[f"{node.domain}.{node.op_type}" if node.domain else node.op_type] += 1
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _count(attribute.g, kinds)


@pytest.mark.parametrize("path", REAL[:2], ids=lambda path: path.stem)
def test_real_models_are_read_as_onnx_ir_reads_them(path: Path) -> None:
    graph = onnx_ir.load(path).graph
    with FORMAT.open(path) as found:
        for name, value in graph.initializers.items():
            assert value.const_value is not None
            assert part_bytes(found.tensors[name])["data"] == value.const_value.tobytes()


def weight(name: str, value: float = 1.0) -> TensorProto:
    return numpy_helper.from_array(np.full((2,), value, np.float32), name)


def body(name: str, *initializers: TensorProto, nodes: Any = ()) -> onnx.GraphProto:
    made: onnx.GraphProto = helper.make_graph(list(nodes), name, [], [], list(initializers))
    return made


def constant(output: str, **value: Any) -> onnx.NodeProto:
    made: onnx.NodeProto = helper.make_node("Constant", [], [output], **value)
    return made


def test_names_in_subgraphs_say_where_they_are(tmp_path: Path) -> None:
    inner = helper.make_node("Loop", [], ["looped"], body=body("b", weight("w", 3)))
    branch = helper.make_node(
        "If",
        ["c"],
        ["chosen"],
        then_branch=body("t", weight("w", 1), nodes=[inner]),
        else_branch=body("e", weight("w", 2), nodes=[constant("k", value=weight(""))]),
    )
    many = helper.make_node("Custom", [], ["many"], domain="my", graphs=[body("g", weight("w", 4))])
    with opened(tmp_path / "m.onnx", model_of(weight("w", 0), nodes=[branch, many])) as found:
        assert {name: t.values().tolist() for name, t in found.tensors.items()} == {
            "w": [0, 0],
            "chosen::else_branch::w": [2, 2],
            "chosen::else_branch::k": [1, 1],
            "chosen::then_branch::w": [1, 1],
            "chosen::then_branch::looped::body::w": [3, 3],
            "many::graphs::0::w": [4, 4],
        }
        assert found.graph is not None
        assert found.graph.nodes == {"If": 1, "Loop": 1, "Constant": 1, "my.Custom": 1}


def test_constants_of_every_form_are_tensors(tmp_path: Path) -> None:
    nodes = [
        constant("a", value=weight("inner name")),
        constant("b", value_float=0.5),
        constant("c", value_floats=[1.5, 2.5]),
        constant("d", value_int=-7),
        constant("e", value_ints=[1, -(1 << 62)]),
        constant("f", value_string="one"),
        constant("g", value_strings=["one", "two"]),
        helper.make_node("ConstantOfShape", ["s"], ["h"], value=weight("")),
        helper.make_node("Custom", [], ["i"], domain="my", both=[weight(""), weight("", 2)]),
        helper.make_node("Constant", [], ["j"], domain="my", value=weight("")),
    ]
    with opened(tmp_path / "m.onnx", model_of(nodes=nodes)) as found:
        values = {name: (t.values().tolist(), t.encoding.name) for name, t in found.tensors.items()}
        assert values == {
            "a": ([1, 1], "f32"),
            "b": (0.5, "f32"),
            "c": ([1.5, 2.5], "f32"),
            "d": (-7, "i64"),
            "e": ([1, -(1 << 62)], "i64"),
            "h::value": ([1, 1], "f32"),
            "i::both::0": ([1, 1], "f32"),
            "i::both::1": ([2, 2], "f32"),
            "j::value": ([1, 1], "f32"),
        }
        assert found.metadata["onnx.strings.f"].plain() == ["one"]
        assert found.metadata["onnx.strings.g"].plain() == ["one", "two"]


def test_names_that_come_out_alike_are_numbered(tmp_path: Path) -> None:
    nodes = [constant("w", value=weight("", 2)), constant("w", value=weight("", 3))]
    nodes += [constant("", value=weight("", 4)), constant("w", value_float=5.0)]
    with opened(tmp_path / "m.onnx", model_of(weight("w"), weight("w#2"), nodes=nodes)) as found:
        first = {name: float(t.values().flat[0]) for name, t in found.tensors.items()}
        assert first == {"w": 1, "w#2": 1, "w#3": 2, "w#4": 3, "#2": 4, "w#5": 5}


def test_functions_and_training_graphs_are_looked_into(tmp_path: Path) -> None:
    model = model_of(weight("w"))
    for overload in ("", "other"):
        function = helper.make_function("my", "F", [], ["o"], [constant("o", value=weight(""))], [])
        function.overload = overload
        model.functions.append(function)
    model.training_info.add().algorithm.CopyFrom(body("step", weight("rate", 3)))
    with opened(tmp_path / "m.onnx", model) as found:
        assert list(found.tensors) == [
            "w",
            "function::my::F::o",
            "function::my::F::other::o",
            "training::0::algorithm::rate",
        ]
        assert found.graph is None


def test_texts_are_metadata(tmp_path: Path) -> None:
    texts = helper.make_tensor("vocab", TensorProto.STRING, (2, 1), ["a", "größer"])
    with opened(tmp_path / "m.onnx", model_of(texts, weight("w"))) as found:
        assert list(found.tensors) == ["w"]
        assert found.metadata["onnx.strings.vocab"].plain() == ["a", "größer"]


def test_sparse_tensors_are_their_parts(tmp_path: Path) -> None:
    indices = numpy_helper.from_array(np.array([1, 4]), "")
    sparse = helper.make_sparse_tensor(weight("s"), indices, [2, 3])
    model = model_of(nodes=[constant("k", sparse_value=sparse)])
    model.graph.sparse_initializer.append(sparse)
    with opened(tmp_path / "m.onnx", model) as found:
        for name in ("s", "k"):
            assert found.metadata[f"onnx.sparse.{name}"] == array("i64", (2, 3))
            assert found.tensors[f"{name}::values"].values().tolist() == [1, 1]
            assert found.tensors[f"{name}::indices"].values().tolist() == [1, 4]


def test_metadata_are_kept_in_order(tmp_path: Path) -> None:
    model = model_of(weight("w"), producer_name="me", producer_version="2", doc_string="long")
    model.domain, model.model_version, model.graph.doc_string = "my.domain", -3, "graph"
    helper.set_model_props(model, {"z": "1", "a": "", "onnx.infer": "onnxruntime.quant"})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with opened(tmp_path / "m.onnx", model) as found:
        assert dict(found.metadata) == {
            "onnx.ir_version": scalar("i64", 14),
            "onnx.producer_name": string("me"),
            "onnx.producer_version": string("2"),
            "onnx.domain": string("my.domain"),
            "onnx.model_version": scalar("i64", -3),
            "onnx.doc_string": string("long"),
            "onnx.opset.ai.onnx": scalar("i64", 25),
            "onnx.opset.com.microsoft": scalar("i64", 1),
            "onnx.graph_name": string("graph"),
            "onnx.graph_doc_string": string("graph"),
            "z": string("1"),
            "a": string(""),
            "onnx.infer": string("onnxruntime.quant"),
        }
        assert [key for key in found.metadata if "onnx." not in key] == ["z", "a"]


def test_initialisers_are_no_inputs(tmp_path: Path) -> None:
    """Before IR version 4 every initialiser was an input as well."""
    node = helper.make_node("Add", ["x", "w"], ["y"])
    model = model_of(weight("w"), nodes=[node])
    for name in ("x", "w"):
        model.graph.input.add(name=name)
    with opened(tmp_path / "m.onnx", model) as found:
        assert found.graph is not None
        assert found.graph.inputs == ("x",)
        assert found.graph.outputs == ("y",)


def test_weights_outlive_the_model(tmp_path: Path) -> None:
    with opened(tmp_path / "m.onnx", model_of(weight("w"))) as found:
        tensor = found.tensors["w"]
    assert tensor.values().tolist() == [1, 1]
