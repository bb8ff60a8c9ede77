"""What torch's exporter notes of a graph, its nodes and its values.

Source: ``torch.onnx.export(dynamo=True)`` of torch 2.13 and the optimiser of onnxscript 0.7. All of
it is text out of a file: what does not read as expected says nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.graph import Node, Structure

SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
FX_NODE = "pkg.torch.onnx.fx_node"
SCOPES = "pkg.torch.onnx.name_scopes"
STACK = "pkg.torch.onnx.stack_trace"
FOLDED = "pkg.onnxscript.optimizer.folded_from"

LONGEST = 1 << 15
"""The most characters of a node's note that are looked at."""

LONGEST_LINE = 256
"""The most characters of a line of Python that is looked at."""

_ENTRIES = (
    re.compile(
        r"^(?P<name>\w+): (?:PARAMETER|BUFFER) target='(?P<target>[^'\n]+)'"
        r"(?: persistent=(?P<persistent>True|False))?$",
        re.MULTILINE,
    ),
    re.compile(
        r"InputSpec\(kind=<InputKind\.(?:PARAMETER|BUFFER): \d+>, "
        r"arg=TensorArgument\(name='(?P<name>\w+)'\), target='(?P<target>[^'\n]+)', "
        r"persistent=(?P<persistent>\w+)\)"
    ),
)
"""A tensor of the module in a signature: as torch writes it now, and as older versions did."""

_ARGUMENT = re.compile(r"%(\w+)")
_QUOTED = re.compile(r"'([^'\\]*)'")


@dataclass(frozen=True)
class Signature:
    """The tensors of the module that was exported.

    Attributes:
        names: what each is called in the traced program -> in the state dict.
        kept: those of the state dict.
        made: buffers that are not in it, as the class makes them itself.
    """

    names: Mapping[str, str]
    kept: frozenset[str]
    made: frozenset[str]


@dataclass(frozen=True)
class Call:
    """The operation of the traced program that a node comes from.

    Attributes:
        target: ``aten.linear.default``.
        arguments: the values that it takes, by their names in the traced program.
    """

    target: str
    arguments: tuple[str, ...]


def signature_of(structure: Structure) -> Signature | None:
    r"""Return what a graph says of the module that it was made from, None where it does not.

    Example:
        >>> from weighbridge.graph import Structure
        >>> noted = {SIGNATURE: "\n# inputs\np_a: PARAMETER target='a.weight'\n"}
        >>> signature_of(Structure((), {}, noted)).names
        {'p_a': 'a.weight'}
    """
    text = structure.metadata.get(SIGNATURE, "")
    entries = [entry for pattern in _ENTRIES for entry in pattern.finditer(text)]
    if not entries:
        return None
    names = {entry["name"]: entry["target"] for entry in entries}
    made = frozenset(entry["target"] for entry in entries if entry["persistent"] == "False")
    return Signature(names, frozenset(names.values()) - made, made)


def call_of(node: Node) -> Call:
    """Return the operation that a node comes from.

    Example:
        >>> from weighbridge.graph import Node
        >>> text = "%a : [num_users=1] = call_function[target=torch.ops.aten.linear.default]"
        >>> noted = {FX_NODE: text + "(args = (%x, %p_w, %p_b), kwargs = {})"}
        >>> call_of(Node("MatMul", "", "", (), (), metadata=noted))
        Call(target='aten.linear.default', arguments=('x', 'p_w', 'p_b'))
    """
    text = node.metadata.get(FX_NODE, "")[:LONGEST].partition("[target=torch.ops.")[2]
    target, _, rest = text.partition("](args = (")
    arguments = rest.rpartition("), kwargs")[0]
    return Call(target, tuple(_ARGUMENT.findall(arguments)))


def scopes_of(node: Node) -> list[str]:
    """Return the modules that a node is in, the innermost last; the operation's own name is not."""
    return _QUOTED.findall(node.metadata.get(SCOPES, "")[:LONGEST])[:-1]


def lines_of(node: Node) -> list[str]:
    """Return the lines of Python that a node comes from, the innermost last."""
    trace = (line.strip() for line in node.metadata.get(STACK, "")[:LONGEST].splitlines())
    return [line for line in trace if len(line) <= LONGEST_LINE and not line.startswith("File ")]


def folded_from(structure: Structure, value: str) -> list[str]:
    """Return the values that a value was computed from when the graph was made."""
    return _QUOTED.findall(structure.values.get(value, {}).get(FOLDED, ""))
