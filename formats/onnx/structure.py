"""A graph as nodes that can be walked: which operator reads which tensor, and what is noted of it.

Source: ``onnx.proto``, messages ``NodeProto``, ``AttributeProto`` and ``ValueInfoProto``. Tensors
have the names that the walk over all tensors gives them (see `weighbridge.formats.onnx.walk`).
"""

from __future__ import annotations

import struct
from collections import ChainMap, Counter
from itertools import chain
from typing import TYPE_CHECKING

from weighbridge.formats.onnx.entries import key_value
from weighbridge.formats.onnx.schema import (
    AttributeProto,
    GraphProto,
    NodeProto,
    TensorProto,
    ValueInfo,
)
from weighbridge.formats.onnx.walk import check_depth, domain_of, label_of, scope_of
from weighbridge.graph import Attribute, Node, Structure
from weighbridge.protobuf import Message, signed

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from weighbridge.protobuf import Field

    Names = MutableMapping[str, str]


def read_structure(graph: Message) -> Structure:
    """Return the nodes of a graph and of those inside it.

    Raises:
        InvalidFile: (rules ``depth``, ``name-length``, ``duplicate-field``, ``duplicate-key`` and
            those of `Message.fields`).
    """
    # The fields that a message keeps may lack the initialisers that opening it has read.
    whole = Message(graph.buffer, graph.path, graph.start, graph.end)
    reader = _Reader()
    reader.graph(whole, "", ChainMap(), 0)
    return Structure(
        tuple(reader.nodes), reader.values, _metadata(whole, GraphProto.METADATA_PROPS)
    )


class _Reader:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.values: dict[str, Mapping[str, str]] = {}
        self._graphs = 0

    def graph(self, graph: Message, scope: str, around: ChainMap[str, str], depth: int) -> None:
        """Collect the nodes of a graph; `around` has the values that it sees of those around it."""
        check_depth(graph, depth)
        number = f"{self._graphs}::" if self._graphs else ""
        self._graphs += 1
        seen = around.new_child()
        for field in graph.each(GraphProto.INITIALIZER):
            name = graph.message(field).texts(TensorProto.NAMES).get("name", "")
            seen[name] = scope + name
        for field in graph.of((GraphProto.INPUT, GraphProto.VALUE_INFO)):
            own = field.number == GraphProto.INPUT
            self._value(graph.message(field), seen.maps[0] if own else seen, number)
        for index, field in enumerate(graph.each(GraphProto.NODE)):
            self._node(graph.message(field), scope, index, seen, number, depth)

    def _value(self, value: Message, seen: Names, number: str) -> None:
        name = value.texts(ValueInfo.SINGLES).get("name", "")
        name = seen.setdefault(name, number + name)
        noted = _metadata(value, ValueInfo.METADATA_PROPS)
        if noted:
            self.values[name] = noted

    def _node(
        self,
        node: Message,
        scope: str,
        index: int,
        seen: ChainMap[str, str],
        number: str,
        depth: int,
    ) -> None:
        names = node.texts(NodeProto.NAMES)
        operator, domain = names.get("op_type", ""), domain_of(names)
        label = label_of(node, scope, index)
        constant = operator == "Constant" and not domain
        own = [node.text(field) for field in node.each(NodeProto.OUTPUT)]
        for name in filter(None, own):
            seen.maps[0].setdefault(name, label if constant else number + name)
        inputs = [node.text(field) for field in node.each(NodeProto.INPUT)]
        attributes = self._attributes(node, label, seen, depth)
        self.nodes.append(
            Node(
                operator,
                domain,
                names.get("name", ""),
                tuple(seen.get(name, number + name) if name else "" for name in inputs),
                tuple(seen.maps[0].get(name, "") for name in own),
                attributes,
                _metadata(node, NodeProto.METADATA_PROPS),
            )
        )

    def _attributes(
        self, node: Message, label: str, seen: ChainMap[str, str], depth: int
    ) -> dict[str, Attribute]:
        found: dict[str, Attribute] = {}
        for field in node.each(NodeProto.ATTRIBUTE):
            attribute = node.message(field)
            fields = attribute.singles(AttributeProto.SINGLES)
            name = attribute.text(fields["name"]) if "name" in fields else ""
            value = _plain(attribute, fields)
            if value is not None:
                found[name] = value
            for graph, scope in _graphs(attribute, fields, label, name):
                self.graph(graph, scope, seen, depth + 1)
        return found


def _graphs(
    attribute: Message, fields: Mapping[str, Field], label: str, name: str
) -> list[tuple[Message, str]]:
    """Return the graphs that an attribute holds, each with what begins the names in it."""
    prefix = scope_of(attribute, label, name)
    found = [(attribute.message(fields["g"]), prefix)] if "g" in fields else []
    for index, field in enumerate(attribute.each(AttributeProto.GRAPHS)):
        found.append((attribute.message(field), f"{prefix}{index}::"))
    return found


def _plain(attribute: Message, fields: Mapping[str, Field]) -> Attribute | None:
    """Return the number, the text or the integers that an attribute holds, None for all else."""
    if "i" in fields:
        return signed(fields["i"].value)
    if "f" in fields:
        raw: tuple[float] = struct.unpack_from("<f", attribute.buffer, fields["f"].start)
        return raw[0]
    if "s" in fields:
        return attribute.content(fields["s"]).decode("utf-8", "replace")
    lists = (attribute.integers(field) for field in attribute.of((AttributeProto.INTS,)))
    return tuple(chain.from_iterable(lists)) or None


def _metadata(owner: Message, number: int) -> dict[str, str]:
    """Return what is noted in the field `number`.

    Raises:
        InvalidFile: (rule ``duplicate-key``) for a key that occurs twice.
    """
    pairs = [key_value(owner, field) for field in owner.each(number)]
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            owner.fail("a key occurs twice", "duplicate-key", owner.start, got=key)
    return dict(pairs)
