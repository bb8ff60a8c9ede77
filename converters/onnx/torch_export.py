"""Names of tensors in graphs that torch traced as programs (``dynamo=True``, ``OnnxExporter``).

Such a graph lists the state dict of its module, and notes at each node which operation of the
traced program it comes from, with the parameters that this takes. So a tensor is

- the parameter whose name it has, and every other one that a node reads in its place: the exporter
  keeps tensors of equal numbers once;
- the weight of the ``aten.linear`` that a matrix product comes from, transposed;
- several such, where one product was made of several (see `packed`).

Parameters that no tensor is were not used by the traced program, or computed with beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.converters.onnx import packed
from weighbridge.converters.onnx.claims import Claim, Findings, Scene
from weighbridge.converters.onnx.constants import is_constant
from weighbridge.converters.onnx.notes import (
    Signature,
    call_of,
    folded_from,
    scopes_of,
    signature_of,
)
from weighbridge.ops import Transpose, apply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.graph import Use

LINEAR = "aten.linear.default"
EMBEDDING = "aten.embedding.default"

LOOK_UPS = {"Gather": 0}
"""Operators that look rows of a tensor up -> which of their inputs that is."""


OWN_INPUTS = {"SkipLayerNormalization": (2, 3), "SkipSimplifiedLayerNormalization": (2,)}
"""Operators of ONNX Runtime that read a bias of the layer before them -> which inputs are own."""

BIAS_BEFORE = {
    "SkipLayerNormalization": 4,
    "SkipSimplifiedLayerNormalization": 3,
    "BiasGelu": 1,
    "FastGelu": 1,
}
"""Operators of ONNX Runtime -> which of their inputs is the bias of the layer before them."""


def findings(scene: Scene) -> Findings | None:
    """Return what a graph says of its tensors, None for one that does not list a state dict."""
    signature = signature_of(scene.structure)
    if signature is None:
        return None
    found = Findings()
    direct = scene.tensors.keys() & signature.names.values()
    for source in direct & signature.made:
        found.constants[source] = "the class makes it itself"
    found.claims += _own(scene, signature, direct)
    found.claims += _read_in_place_of_others(scene, signature, direct)
    found.claims += _linear(scene, signature)
    packed.add(scene, signature, found)
    _sort_rest(scene, signature, found)
    return found


def _own(scene: Scene, signature: Signature, direct: set[str]) -> Iterator[Claim]:
    kept = direct & signature.kept
    for source, tensor in scene.tensors.items():
        if source in kept:
            looked_up = any(map(_looks_up, scene.uses(source)))
            yield Claim(source, tensor, source, looked_up=looked_up)


def _looks_up(use: Use) -> bool:
    return LOOK_UPS.get(use.node.operator) == use.position


def _read_in_place_of_others(
    scene: Scene, signature: Signature, direct: set[str]
) -> Iterator[Claim]:
    """Yield the parameters that are not in the graph and whose place another one takes."""
    gone = signature.kept - direct - _folded(scene, signature)
    for source in sorted(direct):
        for use in scene.uses(source):
            name = _replaced(scene, signature, use, gone) or _tied(source, use, gone)
            name = name or _bias_before(scene, signature, use, gone)
            if name is not None:
                yield Claim(name, scene.tensors[source], source, looked_up=_looks_up(use))


def _folded(scene: Scene, signature: Signature) -> set[str]:
    """Return the parameters of which the graph has what was computed from them."""
    names = {name for value in scene.tensors for name in folded_from(scene.structure, value)}
    return names & signature.kept


def _replaced(scene: Scene, signature: Signature, use: Use, gone: frozenset[str]) -> str | None:
    """Return the parameter that a node would read here, None where it is not certain which.

    It is where the operation takes as many parameters as the node reads, or one alone is gone.
    """
    called = call_of(use.node).arguments
    wanted = [signature.names[name] for name in called if name in signature.names]
    own = OWN_INPUTS.get(use.node.operator, range(len(use.node.inputs)))
    read = {
        place: name
        for place, name in enumerate(use.node.inputs)
        if place in own and name in scene.tensors and name in signature.kept
    }
    if read.get(use.position) in {None, *wanted}:
        return None
    if len(wanted) == len(read):
        name = wanted[list(read).index(use.position)]
        return name if name in gone else None
    missing = [name for name in wanted if name in gone]
    return missing[0] if len(missing) == 1 and len(read) == 1 else None


def _bias_before(scene: Scene, signature: Signature, use: Use, gone: frozenset[str]) -> str | None:
    """Return the bias of the only linear layer whose result a node reads, if it is read here."""
    if BIAS_BEFORE.get(use.node.operator) != use.position:
        return None
    makers = scene.structure.makers
    calls = [call_of(makers[value]) for value in use.node.inputs[:2] if value in makers]
    linear = [call.arguments for call in calls if call.target == LINEAR]
    if len(linear) != 1 or len(linear[0]) != 3:
        return None
    name = signature.names.get(linear[0][2])
    return name if name in gone else None


def _tied(source: str, use: Use, gone: frozenset[str]) -> str | None:
    """Return the parameter of the module that a node is in, where another module's is read."""
    scopes, attribute = scopes_of(use.node), source.rpartition(".")[2]
    if call_of(use.node).target not in (LINEAR, EMBEDDING) or not scopes:
        return None
    name = f"{scopes[-1]}.{attribute}"
    return name if name in gone else None


def _linear(scene: Scene, signature: Signature) -> Iterator[Claim]:
    known = signature.kept | signature.made
    for source, tensor in scene.tensors.items():
        if source in known or tensor.ndim != 2:
            continue
        for use in scene.uses(source):
            name = linear_weight(signature, use)
            if name is not None:
                yield Claim(name, apply(Transpose(), [tensor])[0], source, copied=True)


def linear_weight(signature: Signature, use: Use) -> str | None:
    """Return the weight of the linear layer whose product with its transpose a node makes."""
    node = use.node
    straight = node.operator == "MatMul" or (
        node.operator == "Gemm" and not node.attributes.get("transB")
    )
    if use.position != 1 or not straight:
        return None
    call = call_of(node)
    if call.target != LINEAR or len(call.arguments) < 2:
        return None
    name = signature.names.get(call.arguments[1])
    return name if name in signature.kept else None


def _sort_rest(scene: Scene, signature: Signature, found: Findings) -> None:
    """Tell what the other tensors are: the state dict says whether any of them can be a weight."""
    lost = signature.kept - found.names
    for source in sorted(scene.tensors.keys() - found.used):
        parts = [name for name in folded_from(scene.structure, source) if name in lost]
        for name in parts:
            found.lost[name] = f"it was computed with when '{source}' was made"
        tensor = scene.tensors[source]
        if not lost or (is_constant(tensor) and not parts):
            found.constants[source] = "belongs to the graph"
        else:
            found.unresolved[source] = _why(parts)
    for name in lost - found.lost.keys():
        found.lost[name] = "the graph does not use it"


def _why(parts: list[str]) -> str:
    if parts:
        return f"was computed from {', '.join(parts)}"
    return "no node that reads it says which weights it is"
