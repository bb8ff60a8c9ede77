"""What exporters note, made by hand: what is believed, what is not, and what hostile files hold."""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.exported import named

import weighbridge as wb
from weighbridge.converters.onnx.notes import (
    FOLDED,
    FX_NODE,
    SCOPES,
    SIGNATURE,
    STACK,
    signature_of,
)
from weighbridge.errors import Error
from weighbridge.graph import Structure

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

RNG = np.random.default_rng(7)
A, B, C = (RNG.standard_normal((size, 4)).astype(np.float32) for size in (6, 2, 3))


def parameter(name: str) -> str:
    return f"p_{name.replace('.', '_')}: PARAMETER target='{name}'"


def call(target: str, *arguments: str) -> str:
    listed = ", ".join(f"%{argument}" for argument in arguments)
    called = f"call_function[target=torch.ops.{target}]"
    return f"%out : [num_users=1] = {called}(args = ({listed}), kwargs = {{}})"


def node(operator: str, inputs: list[str], outputs: list[str], **kinds: Any) -> onnx.NodeProto:
    """Return a node with notes: its call, its modules, its lines of Python."""
    domain = kinds.pop("domain", "")
    notes = {FX_NODE: kinds.pop("fx", ""), STACK: "\n".join(kinds.pop("lines", ()))}
    notes[SCOPES] = repr([*kinds.pop("modules", [""]), "op"])
    made = helper.make_node(operator, inputs, outputs, domain=domain, **kinds)
    for key, text in notes.items():
        made.metadata_props.add(key=key, value=text)
    return made


def graph(
    names: list[str],
    tensors: dict[str, NDArray[Any]],
    nodes: list[onnx.NodeProto],
    folded: dict[str, list[str]] | None = None,
) -> onnx.ModelProto:
    """Return a graph with the state dict `names`."""
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    made = helper.make_graph(nodes, "graph", [], outputs, weights)
    made.metadata_props.add(
        key=SIGNATURE, value="\n".join(["", "# inputs", *map(parameter, names)])
    )
    for value, sources in (folded or {}).items():
        info = helper.make_tensor_value_info(value, TensorProto.FLOAT, None)
        info.metadata_props.add(key=FOLDED, value=repr(sources))
        made.value_info.append(info)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, ir_version=10, opset_imports=opsets)


def read(path: Path, model: onnx.ModelProto) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the tensors of a graph by their names in the checkpoint, and the rules it breaks."""
    path.write_bytes(model.SerializeToString())
    with wb.open(path) as opened:
        found, report = named(opened)
        values = {name: tensor.values() for name, tensor in found.tensors.items()}
        return values, [problem.rule for problem in report.problems]


def packed(*readers: onnx.NodeProto) -> onnx.ModelProto:
    """Return a graph that multiplies by `a` and `b` of the module `m` at once."""
    nodes = [
        node("MatMul", ["x", "ab"], ["all"]),
        node("Split", ["all", "sizes"], ["first", "second"], axis=-1),
        *readers,
    ]
    tensors = {"ab": np.concatenate([A.T, B.T], 1), "sizes": np.array([6, 2])}
    return graph(["m.a.weight", "m.b.weight"], tensors, nodes)


def reader(part: str, line: str, *arguments: str, modules: tuple[str, ...] = ("", "m")) -> Any:
    fx = call("aten.view.default", *(arguments or ("linear", "sym_size_int_3")))
    return node(
        "Reshape", [part, "s"], [f"{part}_seen"], fx=fx, modules=list(modules), lines=[line]
    )


FIRST = reader("first", "q = self.a(h).view(shape)")


class Module(torch.nn.Module):
    """A module with each kind of tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("made", torch.ones(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.kept + self.made


@pytest.mark.parametrize("written", [str, repr])
def test_signatures_of_now_and_before(written: Any) -> None:
    program = torch.export.export(Module(), (torch.ones(1, 2),))
    noted = {SIGNATURE: written(program.graph_signature)}
    found = signature_of(Structure((), {}, noted))
    assert found is not None
    assert found.kept == {"layer.weight", "layer.bias", "kept"} == set(Module().state_dict())
    assert found.made == {"made"}
    assert found.names["p_layer_weight"] == "layer.weight"


BELIEVED = {
    "the line of each": [FIRST, reader("second", "k = self.b(h).view(shape).transpose(1, 2)")],
    "a norm around it": [FIRST, reader("second", "k = self.norm(self.b(h).view(*shape)).t()")],
    "the module that is called with it": [
        reader("first", "y = self.act(self.a(x)) * self.b(x)", modules=("", "m", "m.act")),
        reader("second", "y = self.act(self.a(x)) * self.b(x)", "mul", "linear_1"),
    ],
    "the one that is left over": [FIRST, reader("second", "k = linear.view(shape)")],
}

DOUBTED = {
    "no line": [reader("first", "q = x"), reader("second", "k = x")],
    "two values": [reader("first", "q = self.a(h).add(z) + k.view(s)", "linear", "z"),
                   reader("second", "q = self.a(h).add(z) + k.view(s)")],
    "one layer for both": [FIRST, reader("second", "k = self.a(h).view(shape)")],
    "a layer of another module": [
        FIRST, reader("second", "k = self.b(h).view(s)", modules=("", "n")),
    ],
    "no notes at all": [
        node("Reshape", ["first", "s"], ["f"]), node("Reshape", ["second", "s"], ["g"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", BELIEVED)
def test_parts_that_are_told(case: str, tmp_path: Path) -> None:
    found, rules = read(tmp_path / "m.onnx", packed(*BELIEVED[case]))
    assert not rules
    assert np.array_equal(found["m.a.weight"], A)
    assert np.array_equal(found["m.b.weight"], B)


@pytest.mark.parametrize("case", DOUBTED)
def test_parts_that_are_not(case: str, tmp_path: Path) -> None:
    found, rules = read(tmp_path / "m.onnx", packed(*DOUBTED[case]))
    assert not found
    assert sorted(rules) == ["missing-tensor", "missing-tensor", "unresolved-initializer"]


def attention(*names: str) -> onnx.ModelProto:
    """Return a graph whose attention takes queries, keys and values as one."""
    nodes = [
        node("MatMul", ["x", "qkv"], ["all"]),
        node("GroupQueryAttention", ["all", "", ""], ["out"], domain="com.microsoft",
             num_heads=3, kv_num_heads=1),
        node("Reshape", ["out", "s"], ["y"], modules=["", "m"]),
    ]  # fmt: skip
    packed = {"qkv": np.concatenate([A.T, B.T, B.T + 1], 1)}
    return graph([f"m.{name}.weight" for name in names], packed, nodes)


def test_attention_says_what_its_parts_are(tmp_path: Path) -> None:
    found, rules = read(tmp_path / "m.onnx", attention("k_proj", "v_proj", "q_proj"))
    assert not rules
    assert np.array_equal(found["m.q_proj.weight"], A)
    assert np.array_equal(found["m.v_proj.weight"], B + 1)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("q", "query", "k", "v"), ("q_proj", "k_proj")])
def test_layers_that_are_not_called_so(names: tuple[str, ...], tmp_path: Path) -> None:
    found, rules = read(tmp_path / "m.onnx", attention(*names))
    assert not found
    assert set(rules) == {"missing-tensor", "unresolved-initializer"}


def test_equal_tensors_are_kept_once(tmp_path: Path) -> None:
    norm, linear = "aten.layer_norm.default", "aten.linear.default"
    nodes = [
        node("LayerNormalization", ["x", "a.weight", "a.bias"], ["u"],
             fx=call(norm, "x", "p_a_weight", "p_a_bias")),
        node("LayerNormalization", ["u", "a.weight", "a.bias"], ["v"],
             fx=call(norm, "u", "p_b_weight", "p_b_bias")),
        node("MatMul", ["v", "w"], ["t"], fx=call(linear, "v", "p_m_weight", "p_m_bias")),
        node("SkipLayerNormalization", ["t", "u", "a.weight", "a.bias", "a.bias"], ["y"],
             domain="com.microsoft", fx=call(norm, "add", "p_c_weight", "p_c_bias")),
    ]  # fmt: skip
    tensors = {
        "a.weight": np.ones(4, np.float32),
        "a.bias": np.zeros(4, np.float32),
        "w": np.full((4, 4), 2, np.float32),
    }
    names = [f"{module}.{part}" for module in "abcm" for part in ("weight", "bias")]
    found, rules = read(tmp_path / "m.onnx", graph(names, tensors, nodes))
    assert not rules
    assert {name: value.max() for name, value in found.items()} == {
        "a.weight": 1, "b.weight": 1, "c.weight": 1, "m.weight": 2,
        "a.bias": 0, "b.bias": 0, "c.bias": 0, "m.bias": 0,
    }  # fmt: skip


def test_equal_tensors_that_nothing_tells_apart(tmp_path: Path) -> None:
    sums = [node("Add", ["x", "a"], ["u"]), node("Add", ["u", "a"], ["y"])]
    made = graph(["a", "b"], {"a": np.ones(4, np.float32)}, sums)
    found, rules = read(tmp_path / "m.onnx", made)
    assert list(found) == ["a"]
    assert rules == ["missing-tensor"]


def test_a_bias_is_not_taken_for_its_weight(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "m.bias"], ["y"],
                  fx=call("aten.linear.default", "h", "p_m_weight", "p_m_bias"))]  # fmt: skip
    bias = {"m.bias": np.ones(4, np.float32)}
    found, rules = read(tmp_path / "m.onnx", graph(["m.weight", "m.bias"], bias, nodes))
    assert list(found) == ["m.bias"]
    assert rules == ["missing-tensor"]


def test_what_was_computed_from_a_weight_is_not_it(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "made"], ["y"])]
    made = graph(["m.weight"], {"made": A}, nodes, {"made": ["m.weight"]})
    found, rules = read(tmp_path / "m.onnx", made)
    assert not found
    assert rules == ["unresolved-initializer", "missing-tensor"]


ODD: dict[str, list[onnx.NodeProto]] = {
    "no outputs": [node("MatMul", ["x", "w"], [])],
    "no inputs": [node("Split", [], ["y"]), node("MatMulNBits", [], ["z"], domain="com.microsoft")],
    "a split into nothing": [node("MatMul", ["x", "w"], ["all"]), node("Split", ["all"], [])],
    "no heads": [
        node("MatMul", ["x", "w"], ["all"]),
        node("GroupQueryAttention", ["all"], ["y"], num_heads=0, kv_num_heads=0),
    ],
    "negative heads": [
        node("MatMul", ["x", "w"], ["all"]),
        node("GroupQueryAttention", ["all"], ["y"], num_heads=-4, kv_num_heads=2),
    ],
    "a scalar in blocks": [
        node("MatMulNBits", ["x", "scalar", "scalar"], ["y"], domain="com.microsoft",
             bits=4, block_size=16, K=4, N=1),
    ],
    "blocks of nothing": [
        node("MatMulNBits", ["x", "bytes", "w"], ["y"], domain="com.microsoft",
             bits=4, block_size=0, K=0, N=0),
    ],
    "texts for numbers": [
        node("MatMulNBits", ["x", "bytes", "w"], ["y"], domain="com.microsoft",
             bits="4", block_size="a", K="b", N="c"),
    ],
    "very many inputs": [node("Concat", ["w"] * 20_000, ["y"], axis=0)],
    "notes that are none": [
        node("MatMul", ["x", "w"], ["y"], fx="[target=torch.ops.](args = (" * 2_000,
             modules=["'" * 5_000], lines=["self.a(" * 5_000, "y = " + "self.a(x).b()" * 3_000]),
    ],
    "a node of its own": [node("Split", ["y"], ["y"]), node("MatMul", ["y", "w"], ["y"])],
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_graphs_are_read_all_the_same(case: str, tmp_path: Path) -> None:
    tensors = {
        "w": A,
        "scalar": np.array(1, np.uint8),
        "bytes": np.ones((1, 2, 8), np.uint8),
    }
    started = time.monotonic()
    found, rules = read(tmp_path / "m.onnx", graph(["m.weight"], tensors, ODD[case]))
    assert not found
    assert set(rules) == {"missing-tensor", "unresolved-initializer"}
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("seed", range(8))
def test_damaged_graphs_break_a_rule_or_none(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    whole = packed(*BELIEVED["the line of each"]).SerializeToString()
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "m.onnx").write_bytes(damaged)
        with contextlib.suppress(Error), wb.open(tmp_path / "m.onnx") as opened:
            named(opened)
