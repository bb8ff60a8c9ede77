"""Computation graphs as plain data: what they consist of, and where a walk through them starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...]

MANIFEST = "export.json"
"""The file that names the components of a directory of graphs, as transformers' exporters call it.
"""

OURS = "weighbridge"
"""The key of the manifest under which an export of ours says more, such as its task."""

PROPERTY = "weighbridge.tensors"
"""The property in which a graph of ours says of each initialiser what it is made of."""

PARTS_OF = "parts of"
"""Begins what that property says of a part of a weight that is stored quantised."""


@dataclass(frozen=True)
class Node:
    """An operator at its place in a graph.

    Attributes:
        operator: its name.
        domain: whose operator it is, empty for ONNX's own.
        name: the node's own name, which may be empty.
        inputs: the values that it reads; one that is left out is empty.
        outputs: the values that it makes.
        attributes: those of its attributes that are numbers or texts.
        metadata: what the exporter noted of it.
    """

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Use:
    """A place where a value is read.

    Attributes:
        node: the operator that reads it.
        position: which of its inputs it is.
    """

    node: Node
    position: int


@dataclass(frozen=True)
class Structure:
    """The nodes of a graph and of those inside it, as one list.

    Values have the names of the main graph; inside another graph, a tensor has the name that
    `Model.tensors` gives it, and any other value the number of its graph before its name.

    Attributes:
        nodes: in the order of the file, those of an inner graph before the node that holds it.
        values: what the exporter noted of values.
        metadata: what the exporter noted of the main graph.

    Example:
        >>> add = Node("Add", "", "add", ("x", "bias"), ("y",))
        >>> [use.position for use in Structure((add,)).uses["bias"]]
        [1]
    """

    nodes: tuple[Node, ...]
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def uses(self) -> Mapping[str, list[Use]]:
        """Where each value is read."""
        found: dict[str, list[Use]] = {}
        for node in self.nodes:
            for position, value in enumerate(node.inputs):
                if value:
                    found.setdefault(value, []).append(Use(node, position))
        return found

    @cached_property
    def makers(self) -> Mapping[str, Node]:
        """The node that makes each value."""
        return {value: node for node in self.nodes for value in node.outputs if value}


@dataclass(frozen=True)
class Program:
    """A graph that can be walked: a model's only one, or one of its components.

    Attributes:
        name: the component's, ``model`` where there is one alone.
        tensors: the name of each tensor in the graph -> its name in `Model.tensors`.
        properties: the key-values that are the graph's own, not the model's.
        read: parses the nodes.
    """

    name: str
    tensors: Mapping[str, str]
    properties: Mapping[str, str]
    read: Callable[[], Structure]

    @cached_property
    def structure(self) -> Structure:
        """The nodes, parsed when they are first looked at.

        Raises:
            InvalidFile: with the rule that the graph breaks.
        """
        return self.read()


@dataclass(frozen=True)
class Graph:
    """A summary of a computation graph, or of those of all components.

    Attributes:
        nodes: operator, with its domain where it has one, -> how many nodes have it.
        inputs: the names of the graph's inputs.
        outputs: the names of its outputs.
        programs: the graphs themselves.
    """

    nodes: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    programs: tuple[Program, ...] = ()
