"""Names of tensors in graphs that torch made by TorchScript, as Optimum does; or of unknown origin.

Parameters have their names of the state dict. Those of linear layers without a Gemm were transposed
beforehand and are called ``onnx::MatMul_12``; the node that reads one is named for the module that
it is in: ``/bert/encoder/layer.0/attention/self/query/MatMul``. That is a linear layer where

- a family's rules have its weight, or
- the bias that is added to the product has the module's name, or
- nothing else in the graph is in that module.

Source: ``torch.onnx.export(dynamo=False)`` of torch 2.13.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

from weighbridge.converters.onnx.claims import Claim, Findings, Scene
from weighbridge.converters.onnx.constants import is_constant
from weighbridge.encoding import is_float
from weighbridge.ops import Transpose, apply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.graph import Node
    from weighbridge.tensor import Lazy

NAMED = re.compile(r"(?:.*::)?([A-Za-z_]\w*(?:\.\w+)+)")
"""A name as state dicts have it, with at least one dot; what a graph is inside of comes before."""

MADE_UP = re.compile(r"(?:.*::)?onnx::\w+_\d+")

MADE_IN = re.compile(r"(?:^|::)/(?:[^:]*/)?rotary_emb/Constant\w*$")
"""A constant in a module that has none but those that it makes itself."""

LONGEST = 1024
"""The most characters of a node's name that is taken apart."""

MADE_BY_CLASS = (".inv_freq", ".original_inv_freq", ".position_ids", ".token_type_ids")
"""Ends the names of buffers that the classes of transformers make themselves."""


def findings(scene: Scene) -> Findings:
    """Return what names and nodes say of a graph's tensors."""
    found = Findings()
    plain = _plain_names(scene)
    for source, name in plain.items():
        if name.endswith(MADE_BY_CLASS) and name not in scene.expected:
            found.constants[source] = "the class makes it itself"
        else:
            looked_up = any(
                use.node.operator == "Gather" and use.position == 0 for use in scene.uses(source)
            )
            tensor = scene.tensors[source]
            found.claims.append(Claim(name, tensor, source, looked_up=looked_up))
    found.claims += _products(scene)
    _sort_rest(scene, found)
    return found


def _plain_names(scene: Scene) -> dict[str, str]:
    """Return the names of a state dict that tensors have: without what their graph is inside of.

    Two that would be alike keep the whole.
    """
    names: dict[str, str] = {}
    for source, tensor in scene.tensors.items():
        named = NAMED.fullmatch(source)
        if source in scene.expected or (named and not _is_constant(source, tensor)):
            names[source] = named[1] if named else source
    count = Counter(names.values())
    return {source: name if count[name] == 1 else source for source, name in names.items()}


def _is_constant(source: str, tensor: Lazy) -> bool:
    """Tell whether a tensor with a name of a state dict is a constant all the same."""
    return MADE_UP.fullmatch(source) is not None or not is_float(tensor.encoding)


def _products(scene: Scene) -> Iterator[Claim]:
    """Yield the weights of linear layers that were transposed beforehand."""
    turned = [
        source
        for source, tensor in scene.tensors.items()
        if tensor.ndim == 2 and MADE_UP.fullmatch(source)
    ]
    for source, module in linear_modules(scene, turned, "MatMul").items():
        (tensor,) = apply(Transpose(), [scene.tensors[source]])
        yield Claim(f"{module}.weight", tensor, source, copied=True)


def linear_modules(scene: Scene, sources: Sequence[str], operator: str) -> dict[str, str]:
    """Return those of some matrices that are the weights of linear layers -> the layers.

    Args:
        scene: the graph.
        sources: the matrices' names in it.
        operator: what makes a product with a matrix, its second input.
    """
    modules = {source: _multiplied_in(scene, source, operator) for source in sources}
    members = _members(scene, set(filter(None, modules.values())))
    return {
        source: module
        for source, module in modules.items()
        if module and _is_linear(scene, source, module, members)
    }


def _multiplied_in(scene: Scene, source: str, operator: str) -> str | None:
    """Return the only module in which products with a matrix are made."""
    modules = {
        _module(use.node) if (use.node.operator, use.position) == (operator, 1) else None
        for use in scene.uses(source)
    }
    return modules.pop() if len(modules) == 1 else None


def _members(scene: Scene, modules: set[str]) -> Counter[str]:
    """Return how many nodes are in each of some modules, those of modules inside it included."""
    count: Counter[str] = Counter()
    for node in scene.structure.nodes:
        around = accumulate(_parts(node)[:-1], "{}.{}".format)
        count.update(module for module in around if module in modules)
    return count


def _is_linear(scene: Scene, source: str, module: str, members: Counter[str]) -> bool:
    if f"{module}.weight" in scene.expected:
        return True
    products = [use.node for use in scene.uses(source)]
    following = [
        use.node for node in products for output in node.outputs for use in scene.uses(output)
    ]
    biased = any(node.operator == "Add" and f"{module}.bias" in node.inputs for node in following)
    return biased or members[module] == len(products)


def _parts(node: Node) -> list[str]:
    """Return the modules that a node's name leads through, and its own last name."""
    if not node.name.startswith("/") or len(node.name) > LONGEST:
        return []
    return node.name[1:].split("/")


def _module(node: Node) -> str | None:
    """Return the module that a node's name says it is in.

    Example:
        >>> from weighbridge.graph import Node
        >>> _module(Node("MatMul", "", "/encoder/layer.0/query/MatMul", (), ()))
        'encoder.layer.0.query'
    """
    return ".".join(_parts(node)[:-1]) or None


def _sort_rest(scene: Scene, found: Findings) -> None:
    """Tell what the other tensors are: where a family's rules want no more, none is a weight."""
    lost = scene.required - found.names
    complete = bool(scene.required) and not lost
    for source in scene.tensors.keys() - found.used:
        if complete or is_constant(scene.tensors[source]) or MADE_IN.search(source):
            found.constants[source] = "belongs to the graph"
        else:
            found.unresolved[source] = "neither its name nor a node that reads it says which it is"
    found.lost |= dict.fromkeys(lost, "the graph does not have it")
