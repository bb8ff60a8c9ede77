"""Weights of linear layers that read one input, joined to one matrix.

ONNX Runtime's fusions, as transformers.exporters applies them, make one product of those with
sibling matrices and cut it apart again. The nodes that were are gone, and with them their notes;
what reads a part of the product still tells which layer it was:

- the addition of its bias comes from the same ``aten.linear``;
- an operation on this part alone comes from a line of Python that calls a layer of the module that
  it is in, and does nothing else but go on with the result (``q = self.q_proj(x).view(shape)``), or
  from inside a module that is called with the result (``self.act(self.gate_proj(x))``);
- a part that is left over is the one weight that is left over in the module that reads it.

An attention that takes queries, keys and values as one reads the parts itself: in the module that
goes on with the result, they are the layers that are called so.

Source: ``_pack_matmuls`` of transformers 5.23, ``exporters/onnxruntime_fusions.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from weighbridge.converters.onnx.claims import Claim, Findings, Scene
from weighbridge.converters.onnx.notes import Signature, call_of, lines_of, scopes_of
from weighbridge.converters.onnx.splits import split_after
from weighbridge.ops import Split, Transpose, apply

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from weighbridge.graph import Node

    Layers = Mapping[str, Mapping[str, str]]
    """Module -> the attribute of each of its linear layers -> the layer's weight."""

LINEAR = "aten.linear.default"
WEIGHT = ".weight"

SIZE = "sym_size"
"""Begins the name of a value of the traced program that is the length of an axis."""

CALL = r"self\.(?P<layer>\w+)\([^()]*\)"
METHOD = r"(?:\.\w+\([^()]*\))"
"""A call of a layer, and of a method of its result, on values that have names, in Python."""

ATTENTION = "GroupQueryAttention"

ROLES = (
    ("q", "q_proj", "query", "q_lin"),
    ("k", "k_proj", "key", "k_lin"),
    ("v", "v_proj", "value", "v_lin"),
)
"""What the classes of transformers call the layers of queries, keys and values."""

MOST_READERS = 16
"""The most nodes that are asked which part of a product they read."""


def add(scene: Scene, signature: Signature, found: Findings) -> None:
    """Add the parts of joined matrices to what is found."""
    free = set(signature.kept - found.names)
    layers = _layers(free)
    known = found.used
    for source, tensor in scene.tensors.items():
        cut = split_after(scene, source) if tensor.ndim == 2 and source not in known else None
        if cut is None:
            continue
        names = _names(scene, signature, cut[0], layers, free)
        if len(names) != len(cut[1]) or len(set(names)) != len(names):
            continue
        free.difference_update(names)
        for name, piece in zip(names, apply(Split(1, cut[1]), [tensor]), strict=True):
            (turned,) = apply(Transpose(), [piece])
            found.claims.append(Claim(name, turned, source, copied=True))


def _layers(names: Iterable[str]) -> Layers:
    found: dict[str, dict[str, str]] = {}
    for name in names:
        module, _, layer = name.removesuffix(WEIGHT).rpartition(".")
        if name.endswith(WEIGHT):
            found.setdefault(module, {})[layer] = name
    return found


def _names(
    scene: Scene, signature: Signature, split: Node, layers: Layers, free: set[str]
) -> list[str]:
    """Return the weight that each part is, fewer where it is not certain which."""
    if split.operator == ATTENTION:
        return _attended(_readers(scene, split.outputs[0]), layers, free) if split.outputs else []
    parts = [_readers(scene, output) for output in split.outputs]
    told = [
        {_by_bias(signature, node) or _by_line(node, layers) for node in nodes} for nodes in parts
    ]
    named = {part: name for part, names in enumerate(told) if (name := _only(names, free))}
    left = [part for part in range(len(parts)) if part not in named]
    if len(left) == 1:
        rest = _left_over(parts[left[0]], layers, free.difference(named.values()))
        named |= {left[0]: rest} if rest else {}
    return [named[part] for part in sorted(named)]


def _attended(readers: list[Node], layers: Layers, free: set[str]) -> list[str]:
    """Return the weights of queries, keys and values in the module that reads their attention."""
    modules = {scope for node in readers for scope in scopes_of(node)[-1:]}
    if len(modules) != 1:
        return []
    (inside,) = (layers.get(module, {}) for module in modules)
    named = [[inside[name] for name in role if inside.get(name) in free] for role in ROLES]
    return [found[0] for found in named if len(found) == 1]


def _only(names: set[str | None], free: set[str]) -> str | None:
    left = [name for name in names if name in free]
    return left[0] if len(left) == 1 else None


def _readers(scene: Scene, value: str) -> list[Node]:
    return [use.node for use in scene.structure.uses.get(value, [])[:MOST_READERS]]


def _by_bias(signature: Signature, node: Node) -> str | None:
    call = call_of(node)
    if node.operator != "Add" or call.target != LINEAR or len(call.arguments) != 3:
        return None
    return signature.names.get(call.arguments[1])


def _by_line(node: Node, layers: Layers) -> str | None:
    """Return the weight of the layer whose result a node takes, where its line says which."""
    data = [name for name in call_of(node).arguments if not name.startswith(SIZE)]
    if len(data) != 1:
        return None
    lines = lines_of(node)
    for module, pattern in _patterns(scopes_of(node)):
        called = [found["layer"] for line in lines if (found := re.search(pattern, line))]
        if called and called[-1] in layers.get(module, {}):
            return layers[module][called[-1]]
    return None


def _patterns(scopes: list[str]) -> Iterator[tuple[str, str]]:
    """Yield modules, each with what a call of one of its layers looks like in a line."""
    if scopes:
        yield scopes[-1], rf"^\w+ = (?:self\.\w+\()?{CALL}{METHOD}+\)?{METHOD}*$"
    if len(scopes) > 1:
        inner = re.escape(scopes[-1].rpartition(".")[2])
        yield scopes[-2], rf"self\.{inner}\({CALL}\)"


def _left_over(nodes: list[Node], layers: Layers, free: set[str]) -> str | None:
    modules = {scope for node in nodes for scope in scopes_of(node)[-1:]}
    left = [name for module in modules for name in layers.get(module, {}).values() if name in free]
    return left[0] if len(left) == 1 else None
