"""Every tensor of a model, wherever it is, by a name of its own.

Names, where ``::`` joins scopes:

- an initialiser of the main graph has its own name;
- the value of a Constant node has the name of the node's output, which is unique in its graph;
- a tensor in another attribute is ``<first output of the node>::<attribute>``, with ``::<number>``
  where the attribute holds several;
- what is in a subgraph has the prefix ``<first output of the node>::<attribute>::``;
- what is in a function has the prefix ``function::<domain>::<name>::``, and in a training graph
  ``training::<number>::initialization::`` or ``::algorithm::``;
- a sparse tensor is two, ``<name>::values`` and ``<name>::indices``, and its shape is metadata;
- should two come out alike, the later ones get ``#2``, ``#3``, ...

Texts are no tensors here: they are metadata. Initialisers must have names that differ.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from weighbridge import metadata
from weighbridge.encoding import DATA, DENSE
from weighbridge.errors import InvalidFile
from weighbridge.formats.onnx import props
from weighbridge.formats.onnx.plain import Plain, Run
from weighbridge.formats.onnx.schema import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensor,
    TrainingInfo,
)
from weighbridge.formats.onnx.tensors import Content, Source, Texts
from weighbridge.formats.onnx.values import Numbers
from weighbridge.protobuf import FIXED32, VARINT, Field, Message, signed
from weighbridge.tensor import Extent, Part, Tensor, stored

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from numpy.typing import NDArray

    from weighbridge.encoding import Dense
    from weighbridge.metadata import LazyStrings, Value
    from weighbridge.region import Shape

MAX_DEPTH = 32
"""The most graphs that may be inside each other; protobuf's own limit allows about as many."""

LONGEST_PREFIX = 2048
"""The most characters that come before the names of several tensors: every one of them has them."""


class Walk:
    """A way through all graphs of a model, which collects tensors.

    Attributes:
        source: where their bytes are.
        tensors: by the names that the module's docstring describes.
        metadata: the texts, and the shapes of sparse tensors.
        nodes: how often each operator occurs.
    """

    def __init__(self, source: Source) -> None:
        """Start without tensors."""
        self.source = source
        self.tensors: dict[str, Tensor] = {}
        self.metadata: dict[str, Value] = {}
        self.nodes: Counter[str] = Counter()
        self._copies: Counter[str] = Counter()
        self._plain = Plain(source)

    def graph(self, graph: Message, scope: str, depth: int) -> None:
        """Collect the initialisers of a graph, then what its nodes hold.

        Raises:
            InvalidFile: (rules ``empty-name``, ``duplicate-name``) for an initialiser that nothing
                can refer to; (rule ``depth``).
        """
        check_depth(graph, depth)
        names: set[str] = set()
        for found in self._plain.initialisers(graph, scope):
            if isinstance(found, Run):
                self._run(found, scope, names, graph)
            elif found.number == GraphProto.INITIALIZER:
                content = Content(graph.message(found))
                self._tensor(content, scope + _new(content, names))
            else:
                values, indices = _halves(graph.message(found))
                name = scope + _new(values, names)
                self._sparse(graph.message(found), values, indices, name)
        self._nodes(graph, GraphProto.NODE, scope, depth)

    def _run(self, run: Run, scope: str, names: set[str], graph: Message) -> None:
        """Collect initialisers of which all is known."""
        for row in run.rows:
            name = row[0]
            if name in names:
                raise _twice(graph, name)
            names.add(name)
        if not scope and names.isdisjoint(self.tensors):
            self.tensors |= stored(run.file, run.rows)
            return
        for name, shape, encoding, offset, length in run.rows:
            free = self._free(scope + name, self.tensors)
            self.tensors |= stored(run.file, [(free, shape, encoding, offset, length)])

    def elsewhere(self, model: Message) -> None:
        """Collect what functions and training graphs hold."""
        for field in model.each(ModelProto.FUNCTIONS):
            function = model.message(field)
            labels = function.texts(FunctionProto.SINGLES)
            parts = ("function", *(labels.get(key, "") for key in ("domain", "name", "overload")))
            scope = scope_of(function, *filter(None, parts))
            self._nodes(function, FunctionProto.NODE, scope, 0)
        for index, field in enumerate(model.each(ModelProto.TRAINING_INFO)):
            training = model.message(field)
            for name, graph in training.singles(TrainingInfo.SINGLES).items():
                self.graph(training.message(graph), f"training::{index}::{name}::", 0)

    def _nodes(self, owner: Message, number: int, scope: str, depth: int) -> None:
        for index, field in enumerate(owner.each(number)):
            self._node(owner.message(field), scope, index, depth)

    def _node(self, node: Message, scope: str, index: int, depth: int) -> None:
        kind = node.texts(NodeProto.SINGLES)
        domain, operator = domain_of(kind), kind.get("op_type", "")
        self.nodes[f"{domain}.{operator}" if domain else operator] += 1
        label = label_of(node, scope, index)
        constant = operator == "Constant" and not domain
        for field in node.each(NodeProto.ATTRIBUTE):
            self._attribute(node.message(field), label, depth, constant=constant)

    def _attribute(self, attribute: Message, label: str, depth: int, *, constant: bool) -> None:
        fields = attribute.singles(AttributeProto.SINGLES)
        own = attribute.text(fields["name"]) if "name" in fields else ""
        name = label if constant else f"{label}::{own}"
        if "t" in fields:
            self._tensor(Content(attribute.message(fields["t"])), name)
        if "sparse_tensor" in fields:
            self._sparse_attribute(attribute.message(fields["sparse_tensor"]), name)
        if "g" in fields:
            scope = scope_of(attribute, label, own)
            self.graph(attribute.message(fields["g"]), scope, depth + 1)
        if constant:
            self._constant(attribute, fields, own, name)
        self._lists(attribute, label, own, depth)

    def _lists(self, attribute: Message, label: str, own: str, depth: int) -> None:
        seen: Counter[int] = Counter()
        for field in attribute.of(AttributeProto.LISTS):
            each = f"{scope_of(attribute, label, own)}{seen[field.number]}"
            seen[field.number] += 1
            item = attribute.message(field)
            if field.number == AttributeProto.TENSORS:
                self._tensor(Content(item), each)
            elif field.number == AttributeProto.GRAPHS:
                self.graph(item, f"{each}::", depth + 1)
            else:
                self._sparse_attribute(item, each)

    def _constant(self, attribute: Message, fields: dict[str, Field], kind: str, name: str) -> None:
        """Collect what a Constant node holds in another form than a tensor.

        Source: the operator's documentation, attributes ``value_float`` and so on.
        """
        if kind == "value_float" and "f" in fields:
            where = Extent(self.source.file, fields["f"].start, 4)
            self._add(name, (), DENSE["f32"], where)
        elif kind == "value_int" and "i" in fields:
            self._add(name, (), DENSE["i64"], _bytes([signed(fields["i"].value)], "<i8"))
        elif kind == "value_string" and "s" in fields:
            self._texts(name, [fields["s"]], attribute)
        elif kind == "value_strings":
            self._texts(name, attribute.each(AttributeProto.STRINGS), attribute)
        elif kind == "value_floats":
            data = _numbers(attribute, AttributeProto.FLOATS, FIXED32).fixed()
            self._add(name, (data.size // 4,), DENSE["f32"], data)
        elif kind == "value_ints":
            pieces = _numbers(attribute, AttributeProto.INTS, VARINT).varints()
            data = np.concatenate([np.empty(0, "<u8"), *pieces]).view(np.uint8)
            self._add(name, (data.size // 8,), DENSE["i64"], data)

    def _texts(self, name: str, fields: Iterable[Field], message: Message) -> None:
        texts = Texts(message)
        for field in fields:
            texts.add(field)
        self._keep_texts(name, texts.lazy())

    def _keep_texts(self, name: str, texts: LazyStrings) -> None:
        self.metadata[self._free(props.STRINGS + name, self.metadata)] = metadata.array(
            "string", texts
        )

    def _sparse_attribute(self, sparse: Message, name: str) -> None:
        self._sparse(sparse, *_halves(sparse), name)

    def _sparse(self, sparse: Message, values: Content, indices: Content, name: str) -> None:
        dims = (sparse.integers(field) for field in sparse if field.number == SparseTensor.DIMS)
        shape = metadata.array("i64", tuple(chain.from_iterable(dims)))
        self.metadata[self._free(props.SPARSE + name, self.metadata)] = shape
        self._tensor(values, f"{name}::values")
        self._tensor(indices, f"{name}::indices")

    def _tensor(self, content: Content, name: str) -> None:
        if content.is_text:
            self._keep_texts(name, content.texts(name))
        else:
            name = self._free(name, self.tensors)
            self.tensors[name] = content.tensor(name, self.source)

    def _add(self, name: str, shape: Shape, encoding: Dense, where: Part) -> None:
        name = self._free(name, self.tensors)
        self.tensors[name] = Tensor(name, shape, encoding, {DATA: where})

    def _free(self, name: str, taken: Container[str]) -> str:
        """Return `name`, or the first name derived from it that is not taken."""
        free = name
        while free in taken:
            self._copies[name] += 1
            free = f"{name}#{self._copies[name] + 1}"
        return free


def check_depth(graph: Message, depth: int) -> None:
    """Refuse a graph that is inside too many others.

    Raises:
        InvalidFile: (rule ``depth``).
    """
    if depth > MAX_DEPTH:
        graph.fail("graphs are inside each other too deeply", "depth", graph.start, got=depth)


def domain_of(names: Mapping[str, str]) -> str:
    """Return the domain of a node's operator, empty for ONNX's own."""
    domain = names.get("domain", "")
    return "" if domain == "ai.onnx" else domain


def label_of(node: Message, scope: str, index: int) -> str:
    """Return what a node is called after: its first output, or its place where that has no name."""
    output = next(node.each(NodeProto.OUTPUT), None)
    return scope + ((node.text(output) if output else "") or f"#{index}")


def scope_of(message: Message, *labels: str) -> str:
    """Return what comes before the names of the tensors in a scope.

    Raises:
        InvalidFile: (rule ``name-length``) when it would be too long.
    """
    prefix = "".join(f"{label}::" for label in labels)
    if len(prefix) > LONGEST_PREFIX:
        message.fail("names of scopes are too long", "name-length", message.start)
    return prefix


def _new(content: Content, names: set[str]) -> str:
    """Return the name of an initialiser, which must be new among `names`."""
    name = content.own_name()
    message = content.message
    if not name:
        message.fail("an initialiser has no name", "empty-name", message.start)
    if name in names:
        raise _twice(message, name)
    names.add(name)
    return name


def _twice(message: Message, name: str) -> InvalidFile:
    problem = "two initialisers have one name"
    return InvalidFile(problem, rule="duplicate-name", path=message.path, tensor=name)


def _halves(sparse: Message) -> tuple[Content, Content]:
    """Return the values and the indices of a sparse tensor.

    Raises:
        InvalidFile: (rule ``sparse``) when one is missing.
    """
    fields = sparse.singles(SparseTensor.SINGLES)
    if len(fields) != 2:
        sparse.fail("a sparse tensor lacks its values or indices", "sparse", sparse.start)
    return Content(sparse.message(fields["values"])), Content(sparse.message(fields["indices"]))


def _numbers(attribute: Message, number: int, wire: int) -> Numbers:
    numbers = Numbers(attribute, wire)
    for field in attribute:
        if field.number == number:
            numbers.add(field)
    return numbers


def _bytes(values: list[int], dtype: str) -> NDArray[np.uint8]:
    return np.array(values, dtype).view(np.uint8)
