"""Whether a file is an ONNX model: protobuf has no magic number, so its whole head is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.errors import Error
from weighbridge.file import File
from weighbridge.formats.onnx.schema import GraphProto, ModelProto
from weighbridge.protobuf import BYTES, Message

if TYPE_CHECKING:
    from pathlib import Path

NEWEST_IR = 63
"""An IR version above this is not believed; the newest known one is 14."""

MAX_FIELDS = 1000
"""How many fields may come before the graph."""

LONGEST_NAME = 1000
"""The most bytes of a producer's name or version, or of a domain, that are believed."""

FIRST_BYTE = ModelProto.IR_VERSION << 3


def is_onnx(path: Path, head: bytes) -> bool:
    """Tell whether a file is an ONNX model, cut short or not.

    It is when it begins with an IR version and everything up to the graph is what a model's
    definition allows there, and the graph begins as a graph does. Other protobuf files that begin
    with a version (TensorFlow's saved_model.pb, Core ML) have no graph there.
    """
    if head[:1] != bytes([FIRST_BYTE]):
        return False
    try:
        if _begins_as_model(Message(memoryview(head), path)):
            return True
        # A long description may lie between the head and the graph.
        file = File(path)
        try:
            return _begins_as_model(Message(file.view(), path))
        finally:
            file.close()
    except Error:
        return False


def _begins_as_model(message: Message) -> bool:
    for index, field in enumerate(message.fields(cut=True)):
        spec = ModelProto.SINGLES.get(field.number)
        wire = spec.wire if spec else BYTES
        known = spec is not None or field.number in ModelProto.REPEATED
        if not known or field.wire != wire or index > MAX_FIELDS:
            return False
        if spec and spec.name == "graph":
            return _begins_as_graph(message.message(field))
        if spec and spec.name == "ir_version" and not 1 <= field.value <= NEWEST_IR:
            return False
        named = spec and spec.wire == BYTES and spec.name != "doc_string"
        if named and field.end - field.start > LONGEST_NAME:
            return False
    return False


def _begins_as_graph(graph: Message) -> bool:
    first = next(iter(graph.fields(cut=True)), None)
    return first is None or (first.wire == BYTES and first.number in GraphProto.KNOWN)
