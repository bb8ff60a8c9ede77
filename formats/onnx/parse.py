"""From a model file to a `Model`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from weighbridge import metadata
from weighbridge.errors import InvalidFile
from weighbridge.file import File
from weighbridge.formats.onnx import props
from weighbridge.formats.onnx.external import ExternalFiles
from weighbridge.formats.onnx.schema import GraphProto, ModelProto, ValueInfo
from weighbridge.formats.onnx.structure import read_structure
from weighbridge.formats.onnx.tensors import Source
from weighbridge.formats.onnx.walk import Walk
from weighbridge.graph import Graph, Program
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.protobuf import Message, signed

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.metadata import Value

GRAPH = "onnx"
"""The dialect of a model whose tensors have the names that a graph gives them."""


def read_model(path: Path) -> Model:
    """Return the model at `path`; no weights are read, except those that have no address.

    Raises:
        InvalidFile: with the rule that it breaks.
        NotFound: when it or its external data do not exist.
        Unsupported: for what ONNX has and this does not read, by name.
    """
    file = File(path)
    external = ExternalFiles(path)
    try:
        return _model(Message(file.view(), path), Source(file, external))
    except BaseException:
        for opened in (file, *external.files.values()):
            opened.close()
        raise


def _model(message: Message, source: Source) -> Model:
    path = source.file.path
    singles = message.singles(ModelProto.SINGLES)
    ir = signed(singles["ir_version"].value) if "ir_version" in singles else 0
    if ir < 1:
        raise InvalidFile("has no IR version", rule="ir-version", path=path, got=ir)
    if "graph" not in singles:
        raise InvalidFile("has no graph", rule="no-graph", path=path)
    graph = message.message(singles["graph"])
    found = props.facts(message, ir)
    walk = Walk(source)
    walk.graph(graph, "", 0)
    summary = _summary(graph, walk)
    walk.elsewhere(message)
    for name, text in graph.texts(GraphProto.SINGLES).items():
        found[f"onnx.{name}"] = metadata.string(text)
    found |= walk.metadata
    props.read_props(message, found)
    if summary:
        summary = replace(summary, programs=(_program(graph, walk, path, found),))
    plain, config, files = props.split(found, path)
    return Model(
        format="onnx",
        dialect=GRAPH if summary else HUGGING_FACE,
        tensors=walk.tensors,
        metadata=plain,
        config=config,
        files=files,
        graph=summary,
        path=path,
        resources=(source.file, *source.external.files.values()),
    )


def _program(graph: Message, walk: Walk, path: Path, found: dict[str, Value]) -> Program:
    """Return the graph that can be walked; what is said of it alone is taken out of `found`."""
    own = {key: str(found.pop(key).plain()) for key in props.OF_GRAPH & found.keys()}
    tensors = {name: name for name in walk.tensors}
    return Program(path.stem, tensors, own, partial(read_structure, graph))


def _summary(graph: Message, walk: Walk) -> Graph | None:
    """Return what the main graph computes, None where it has no nodes."""
    if not walk.nodes:
        return None
    names: dict[int, list[str]] = {GraphProto.INPUT: [], GraphProto.OUTPUT: []}
    for field in graph.of(names):
        names[field.number].append(graph.message(field).texts(ValueInfo.SINGLES).get("name", ""))
    inputs = (name for name in names[GraphProto.INPUT] if name not in walk.tensors)
    return Graph(dict(walk.nodes), tuple(inputs), tuple(names[GraphProto.OUTPUT]))
