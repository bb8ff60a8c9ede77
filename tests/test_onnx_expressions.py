"""Graphs that name their tensors themselves, as expressions over the checkpoint's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from support.exported import named

import weighbridge as wb
from weighbridge.converters.onnx.expressions import DEEPEST
from weighbridge.graph import PROPERTY

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RNG = np.random.default_rng(5)
Q, K, V, EMBED = (RNG.standard_normal(shape).astype(np.float32)
                  for shape in ((6, 4), (2, 4), (2, 4), (9, 4)))  # fmt: skip

Array = Any


def graph(
    tensors: dict[str, Array], table: object, nodes: tuple[Any, ...] = (), **properties: str
) -> onnx.ModelProto:
    """Return a graph with initialisers and a table of what they are."""
    made = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    text = table if isinstance(table, str) else json.dumps(table)
    helper.set_model_props(model, {PROPERTY: text, **properties})
    return model


def opened(path: Path, model: onnx.ModelProto) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """Return the checkpoint's tensors that a graph is read as, and the problems."""
    path.write_bytes(model.SerializeToString())
    with wb.open(path) as found:
        canonical, report = named(found)
        return {
            name: tensor.values() for name, tensor in canonical.tensors.items()
        }, report.problems


def packed(sizes: list[int]) -> tuple[Any, ...]:
    """Return the nodes that multiply by `qkv` and cut the product apart."""
    return (
        helper.make_node("MatMul", ["x", "qkv"], ["all"]),
        helper.make_node(
            "Split", ["all", "sizes"], [f"part{n}" for n in range(len(sizes))], axis=-1
        ),
    )


def transposed(name: str) -> list[Any]:
    return ["transpose", [1, 0], name]


def test_names_transposes_and_concatenations_are_undone(tmp_path: Path) -> None:
    tensors = {
        "embedding": EMBED,
        "head": EMBED.T.copy(),
        "qkv": np.concatenate([Q.T, K.T, V.T], 1),
        "sizes": np.array([6, 2, 2]),
        "mask": np.zeros((3, 3), np.float32),
    }
    table = {
        "embedding": "embed.weight",
        "head": transposed("embed.weight"),
        "qkv": ["concat", 1, [transposed(f"{part}.weight") for part in "qkv"]],
    }
    found, problems = opened(tmp_path / "m.onnx", graph(tensors, table, packed([6, 2, 2])))
    assert not problems
    expected = {"embed.weight": EMBED, "q.weight": Q, "k.weight": K, "v.weight": V}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


def test_lengths_may_be_in_the_expression(tmp_path: Path) -> None:
    table = {"kv": ["concat", 0, ["k.weight", "v.weight"], [2, 2]]}
    found, problems = opened(tmp_path / "m.onnx", graph({"kv": np.concatenate([K, V])}, table))
    assert not problems
    assert np.array_equal(found["v.weight"], V)


def test_lengths_follow_from_packed_attention(tmp_path: Path) -> None:
    nodes = (
        helper.make_node("MatMul", ["x", "qkv"], ["all"]),
        helper.make_node(
            "GroupQueryAttention", ["all", "", ""], ["out"], domain="com.microsoft",
            num_heads=3, kv_num_heads=1,
        ),
    )  # fmt: skip
    tensors = {"qkv": np.concatenate([Q.T, K.T, V.T], 1)}
    table = {"qkv": ["concat", 1, [transposed(f"{part}.weight") for part in "qkv"]]}
    found, problems = opened(tmp_path / "m.onnx", graph(tensors, table, nodes))
    assert not problems
    assert [found[f"{part}.weight"].shape for part in "qkv"] == [(6, 4), (2, 4), (2, 4)]


def test_the_table_is_no_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(graph({"a": Q}, {"a": "q"}, own="kept").SerializeToString())
    with wb.open(path) as model:
        assert model.graph is not None
        assert model.graph.programs[0].properties == {PROPERTY: '{"a": "q"}'}
        assert PROPERTY not in model.metadata
        assert model.metadata["own"].plain() == "kept"


def deep(depth: int) -> object:
    expression: object = "q"
    for _ in range(depth):
        expression = transposed(expression)  # type: ignore[arg-type]
    return expression


ONE = {"a": Q}

REFUSED: dict[str, tuple[dict[str, Array], object, tuple[Any, ...], str]] = {
    "no JSON": (ONE, "{", (), "json"),
    "no object": (ONE, "[]", (), "json"),
    "nested JSON": (ONE, "[" * 100_000, (), "json"),
    "a tensor that is not there": (ONE, {"b": "q"}, (), "expression"),
    "no expression": (ONE, {"a": 3}, (), "expression"),
    "an empty name": (ONE, {"a": ""}, (), "expression"),
    "an unknown operation": (ONE, {"a": ["add", 1, "q"]}, (), "expression"),
    "a list inside itself": (ONE, {"a": deep(DEEPEST + 1)}, (), "expression"),
    "axes of another rank": (ONE, {"a": ["transpose", [2, 1, 0], "q"]}, (), "expression"),
    "axes twice": (ONE, {"a": ["transpose", [1, 1], "q"]}, (), "expression"),
    "no axes": (ONE, {"a": ["transpose", ["1", True], "q"]}, (), "expression"),
    "an axis that is not there": (ONE, {"a": ["concat", 2, ["q", "k"], [3, 3]]}, (), "expression"),
    "a negative axis": (ONE, {"a": ["concat", -1, ["q", "k"], [2, 2]]}, (), "expression"),
    "lengths that do not add up": (ONE, {"a": ["concat", 0, ["q", "k"], [3, 2]]}, (), "expression"),
    "a negative length": (ONE, {"a": ["concat", 0, ["q", "k"], [7, -1]]}, (), "expression"),
    "lengths that are none": (ONE, {"a": ["concat", 0, ["q", "k"], "66"]}, (), "expression"),
    "no lengths": (ONE, {"a": ["concat", 0, ["q", "k"]]}, (), "expression"),
    "other lengths than the graph's": (
        {"qkv": np.zeros((4, 10), np.float32), "sizes": np.array([5, 5])},
        {"qkv": ["concat", 1, ["q", "k", "v"]]},
        packed([5, 5]),
        "expression",
    ),
    "nothing to join": (ONE, {"a": ["concat", 0, []]}, (), "expression"),
    "one tensor twice in one": (
        ONE, {"a": ["concat", 0, ["q", "q"], [3, 3]]}, (), "duplicate-name",
    ),
    "one tensor as two": (
        {"a": Q, "b": Q + 1}, {"a": "q", "b": "q"}, (), "duplicate-name",
    ),
    "one tensor in two shapes": (
        {"a": Q, "b": Q + 1}, {"a": "q", "b": transposed("q")}, (), "tensor-shape",
    ),
    "a quantised part": (ONE, {"a": {"parts of": "q"}}, (), "unresolved-initializer"),
    "a quantised part inside": (
        ONE, {"a": transposed({"parts of": "q"})}, (), "expression",  # type: ignore[arg-type]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    tensors, table, nodes, rule = REFUSED[case]
    _, problems = opened(tmp_path / "m.onnx", graph(tensors, table, nodes))
    assert [problem.rule for problem in problems] == [rule]
    assert "\n" not in str(problems[0])


def test_components_share_what_is_stored_once(tmp_path: Path) -> None:
    directory = tmp_path / "m"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "shared.data").write_bytes(EMBED.tobytes() + Q.tobytes())
    first = graph({}, {"embedding": "embed.weight", "up": "up.weight"})
    second = graph({}, {"table": "embed.weight", "up": "other.weight"})
    for name, model, tensors in (
        ("prefill", first, {"embedding": (EMBED, 0), "up": (Q, EMBED.nbytes)}),
        ("decode", second, {"table": (EMBED, 0)}),
    ):
        for tensor, (value, offset) in tensors.items():
            proto = TensorProto(name=tensor, dims=value.shape, data_type=TensorProto.FLOAT)
            proto.raw_data = value.tobytes()
            external_data_helper.set_external_data(proto, "shared.data", offset, value.nbytes)
            proto.ClearField("raw_data")
            model.graph.initializer.append(proto)
        (directory / f"{name}.onnx").write_bytes(model.SerializeToString())
    second.graph.initializer.append(numpy_helper.from_array(K, "up"))
    (directory / "decode.onnx").write_bytes(second.SerializeToString())
    components = {name: {"file": f"{name}.onnx"} for name in ("prefill", "decode")}
    (directory / "export.json").write_text(json.dumps({"components": components}))
    with wb.open(directory) as model:
        assert list(model.tensors) == ["embedding", "up", "decode::up"]
        found, report = named(model)
        assert not report.problems
        values = {name: tensor.values() for name, tensor in found.tensors.items()}
    assert np.array_equal(values["embed.weight"], EMBED)
    assert np.array_equal(values["up.weight"], Q)
    assert np.array_equal(values["other.weight"], K)
