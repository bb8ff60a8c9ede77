"""Weights in a graph: initialisers without values that carry what they stand for.

What a graph does to a weight alone, turn it or join it with others, is done to the expression.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

from weighbridge.converters.graphs.expressions import Made, transposed
from weighbridge.ops import Concat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir

    from weighbridge.converters.graphs.expressions import Named

TAG = "weighbridge.expression"


class Turn(Enum):
    """Which weights are turned where a graph would turn them."""

    NEVER = "never"
    """None: they are to stay as the checkpoint has them."""
    ALONE = "alone"
    """Those that are not read unturned as well, as an embedding that is also the output layer."""
    ALWAYS = "always"
    """All: such an embedding becomes two weights."""


@dataclass(frozen=True)
class Style:
    """What a graph is to look like.

    Attributes:
        fuse: the execution provider whose own operators are used, None for ONNX's alone.
        turn: which weights are turned.
        pack: whether matrices that multiply the same states become one.
    """

    fuse: str | None = None
    turn: Turn = Turn.ALONE
    pack: bool = False


def tag(value: onnx_ir.Value, expression: Named | Made) -> None:
    """Say of a value what it stands for."""
    value.meta[TAG] = expression


def expression_of(value: onnx_ir.Value | None) -> Named | Made | None:
    """Return what a value stands for, None for one that is no weight."""
    return None if value is None else cast("Named | Made | None", value.meta.get(TAG))


def weights(program: onnx_ir.Model) -> dict[str, Named | Made]:
    """Return the weights of a graph: initialiser -> what it stands for."""
    found = {name: expression_of(value) for name, value in program.graph.initializers.items()}
    return {name: each for name, each in found.items() if each is not None}


def fold_transposes(program: onnx_ir.Model, turn: Turn) -> None:
    """Turn weights instead of having the graph turn them."""
    for node in list(program.graph.all_nodes()) if turn is not Turn.NEVER else ():
        if node.op_type != "Transpose" or expression_of(node.inputs[0]) is None:
            continue
        source = cast("onnx_ir.Value", node.inputs[0])
        if turn is Turn.ALWAYS or all(_turns(user, node) for user, _ in source.uses()):
            _fold(program.graph, node, source)


def _turns(user: onnx_ir.Node, node: onnx_ir.Node) -> bool:
    return user.op_type == "Transpose" and _axes(user) == _axes(node)


def _axes(node: onnx_ir.Node) -> tuple[int, ...]:
    rank = len(cast("onnx_ir.Shape", cast("onnx_ir.Value", node.inputs[0]).shape))
    return tuple(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))


def _fold(graph: onnx_ir.Graph, node: onnx_ir.Node, source: onnx_ir.Value) -> None:
    axes = _axes(node)
    expression = transposed(cast("Named | Made", expression_of(source)), axes)
    shape = [cast("onnx_ir.Shape", source.shape)[axis] for axis in axes]
    name = f"{source.name}.{'T' if axes == (1, 0) else '_'.join(map(str, axes))}"
    turned = graph.initializers.get(name) or _weight(graph, name, expression, shape, source)
    _take_over(node, turned)
    _forget(graph, source)


def _weight(
    graph: onnx_ir.Graph,
    name: str,
    expression: Named | Made,
    shape: Sequence[int | onnx_ir.SymbolicDim],
    like: onnx_ir.Value,
) -> onnx_ir.Value:
    """Return a new weight of the graph."""
    import onnx_ir

    made = onnx_ir.Value(name=name, shape=onnx_ir.Shape(shape), type=like.type)
    tag(made, expression)
    graph.initializers[name] = made
    return made


def _take_over(node: onnx_ir.Node, value: onnx_ir.Value) -> None:
    """Have a value read where a node's output was, and remove the node."""
    node.outputs[0].replace_all_uses_with(value)
    cast("onnx_ir.Graph", node.graph).remove(node, safe=True)


def _forget(graph: onnx_ir.Graph, value: onnx_ir.Value) -> None:
    """Remove an initialiser that nobody reads."""
    if not value.uses() and not value.is_graph_output():
        del graph.initializers[cast("str", value.name)]


def fold_concats(program: onnx_ir.Model) -> None:
    """Join weights instead of having the graph join them."""
    for node in list(program.graph.all_nodes()):
        parts = [expression_of(value) for value in node.inputs]
        if node.op_type != "Concat" or None in parts or node.outputs[0].is_graph_output():
            continue
        values = [cast("onnx_ir.Value", value) for value in node.inputs]
        axis = node.attributes.get_int("axis", 0)
        joined = _joined(program.graph, cast("str", node.outputs[0].name), values, axis)
        _take_over(node, joined)
        for value in values:
            _forget(program.graph, value)


def _lengths(value: onnx_ir.Value) -> list[int]:
    """Return the shape of a weight, all of which is known."""
    return [cast("int", length) for length in cast("onnx_ir.Shape", value.shape)]


def _joined(
    graph: onnx_ir.Graph, name: str, values: Sequence[onnx_ir.Value], axis: int
) -> onnx_ir.Value:
    """Return a new weight that is several along an axis."""
    shapes = [_lengths(value) for value in values]
    axis %= len(shapes[0])
    sizes = tuple(shape[axis] for shape in shapes)
    inputs = tuple(cast("Named | Made", expression_of(value)) for value in values)
    shape = [*shapes[0][:axis], sum(sizes), *shapes[0][axis + 1 :]]
    return _weight(graph, name, Made(Concat(axis, sizes), inputs), shape, values[0])


def pack_siblings(program: onnx_ir.Model) -> None:
    """Make one of the matrices that multiply the same states: queries, keys and values.

    The product is cut afterwards. Other than transformers' own step of that purpose, this one does
    not look at the matrices' numbers.
    """
    graph = program.graph
    values = [*graph.inputs, *(out for node in graph.all_nodes() for out in node.outputs)]
    for number, states in enumerate(values):
        siblings = list(_siblings(states))
        if len(siblings) > 1 and all(node.graph is graph for node in siblings):
            _pack(graph, f"packed_{number}", states, siblings)


def _siblings(states: onnx_ir.Value) -> Iterator[onnx_ir.Node]:
    """Yield the products of some states with weight matrices."""
    for node, place in states.uses():
        weight = node.inputs[1] if node.op_type == "MatMul" and place == 0 else None
        if weight is not None and expression_of(weight) and len(weight.uses()) == 1:
            yield node


def _pack(
    graph: onnx_ir.Graph, name: str, states: onnx_ir.Value, siblings: Sequence[onnx_ir.Node]
) -> None:
    import onnx_ir

    parts = [cast("onnx_ir.Value", node.inputs[1]) for node in siblings]
    packed = _joined(graph, f"{name}.weight", parts, 1)
    widths = [_lengths(part)[1] for part in parts]
    product = onnx_ir.node("MatMul", [states, packed], name=name)
    sizes = onnx_ir.node("Constant", [], attributes={"value_ints": widths})
    cut = onnx_ir.node(
        "Split", [product.outputs[0], sizes.outputs[0]], {"axis": -1}, num_outputs=len(parts)
    )
    if states.shape is not None:
        product.outputs[0].shape = onnx_ir.Shape([*states.shape[:-1], sum(widths)])
    product.outputs[0].type = siblings[0].outputs[0].type
    order = {id(node): place for place, node in enumerate(graph)}
    graph.insert_before(min(siblings, key=lambda node: order[id(node)]), [product, sizes, cut])
    for node, part, output in zip(siblings, parts, cut.outputs, strict=True):
        output.type, output.shape = node.outputs[0].type, node.outputs[0].shape
        _renamed(node.outputs[0], output)
        _take_over(node, output)
        _forget(graph, part)


def _renamed(old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    """Have the graph give the new value under the old one's name, where it gives the old one."""
    for graph in [old.graph] if old.is_graph_output() else []:
        outputs = cast("onnx_ir.Graph", graph).outputs
        outputs[list(outputs).index(old)] = new
        old.name, new.name = f"{old.name}.apart", old.name
