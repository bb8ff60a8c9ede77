"""A graph as nodes: what the ``onnx`` package sees, inner graphs, notes, and hostile files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnx_files import model_of, opened, package_file

import weighbridge as wb
from weighbridge.errors import Error
from weighbridge.formats.onnx.walk import MAX_DEPTH

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.graph import Structure
    from weighbridge.model import Model

SILERO = sorted(package_file("silero_vad", "silero_vad.onnx").parent.glob("*.onnx"))


def structure(model: Model) -> Structure:
    assert model.graph is not None
    (program,) = model.graph.programs
    return program.structure


def noted(owner: Any, **entries: str) -> None:
    for key, value in entries.items():
        owner.metadata_props.add(key=key, value=value)


def nodes_of(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return all nodes, those of inner graphs before the node that holds these."""
    found: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += nodes_of(attribute.g)
        found.append(node)
    return found


@pytest.mark.parametrize("path", SILERO, ids=lambda path: str(path.name))
def test_real_graphs_are_as_onnx_sees_them(path: Path) -> None:
    reference = onnx.load(path)
    with wb.open(path) as model:
        nodes = structure(model).nodes
        expected = nodes_of(reference.graph)
        assert [node.operator for node in nodes] == [node.op_type for node in expected]
        assert [node.name for node in nodes] == [node.name for node in expected]
        for node, other in zip(nodes, expected, strict=True):
            assert len(node.inputs) == len(other.input)
            for attribute in other.attribute:
                if attribute.type == onnx.AttributeProto.INTS and attribute.ints:
                    assert node.attributes[attribute.name] == tuple(attribute.ints)
                if attribute.type == onnx.AttributeProto.INT:
                    assert node.attributes[attribute.name] == attribute.i


def test_inner_graphs_see_tensors_of_those_around_them(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [
            helper.make_node("Add", ["outer", "own"], ["sum"], "add"),
            helper.make_node("Add", ["sum", "shadowed"], ["end"], "last"),
        ],
        "inner", [], [],
        [numpy_helper.from_array(np.ones(2, np.float32), name) for name in ("own", "shadowed")],
    )  # fmt: skip
    nodes = [helper.make_node("If", ["c"], ["y"], "if", then_branch=inner, else_branch=inner)]
    weights = [
        numpy_helper.from_array(np.ones(2, np.float32), name) for name in ("outer", "shadowed")
    ]
    with opened(tmp_path / "m.onnx", model_of(*weights, nodes=nodes)) as model:
        found = structure(model)
        assert [use.node.name for use in found.uses["outer"]] == ["add", "add"]
        assert "shadowed" not in found.uses
        for branch in ("then_branch", "else_branch"):
            assert len(found.uses[f"y::{branch}::own"]) == 1
            assert len(found.uses[f"y::{branch}::shadowed"]) == 1
        assert set(model.tensors) <= {"shadowed", *found.uses}


def test_attributes_and_notes_are_read(tmp_path: Path) -> None:
    node = helper.make_node(
        "Op", ["w", ""], ["y"], "op", domain="some", i=-3, f=0.5, s="é", n=[1, -2]
    )
    noted(node, scope="a.b")
    made = model_of(numpy_helper.from_array(np.ones(2, np.float32), "w"), nodes=[node])
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    noted(value, folded="['w']")
    made.graph.value_info.append(value)
    noted(made.graph, signature="x")
    with opened(tmp_path / "m.onnx", made) as model:
        found = structure(model)
        (read,) = found.nodes
        assert (read.operator, read.domain, read.inputs) == ("Op", "some", ("w", ""))
        assert read.attributes == {"i": -3, "f": 0.5, "s": "é", "n": (1, -2)}
        assert read.metadata == {"scope": "a.b"}
        assert found.values == {"y": {"folded": "['w']"}}
        assert found.metadata == {"signature": "x"}


def test_a_file_of_weights_has_no_program(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones(2, np.float32), "w")
    with opened(tmp_path / "m.onnx", model_of(weights)) as model:
        assert (model.graph, model.dialect) == (None, "huggingface")


def test_a_note_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Op", ["w"], ["y"])
    node.metadata_props.add(key="a", value="1")
    node.metadata_props.add(key="a", value="2")
    with opened(tmp_path / "m.onnx", model_of(nodes=[node])) as model:
        with pytest.raises(Error) as error:
            structure(model)
        assert error.value.rule == "duplicate-key"


def test_what_is_found_late_is_a_problem_of_the_plan(tmp_path: Path) -> None:
    node = helper.make_node("Op", ["w"], ["y"])
    node.metadata_props.add(key="a", value="1")
    node.metadata_props.add(key="a", value="2")
    (tmp_path / "m.onnx").write_bytes(model_of(nodes=[node]).SerializeToString())
    plan = wb.plan(tmp_path / "m.onnx", tmp_path / "m.safetensors")
    assert [problem.rule for problem in plan.problems] == ["duplicate-key"]


def test_graphs_inside_each_other_are_bounded(tmp_path: Path) -> None:
    inner = helper.make_graph([helper.make_node("Op", ["w"], ["y"])], "g", [], [])
    for _ in range(MAX_DEPTH - 1):
        node = helper.make_node("If", ["c"], ["y"], then_branch=inner)
        inner = helper.make_graph([node], "g", [], [])
    with opened(tmp_path / "m.onnx", model_of(nodes=list(inner.node))) as model:
        assert len(structure(model).nodes) == MAX_DEPTH
