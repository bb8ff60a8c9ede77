"""Where every byte of a directory of ONNX graphs goes.

``<name>.onnx`` holds a component's graph, ``<name>.onnx.data`` the weights that it is the first to
read; components that share weights point into one file. transformers looks for the second file
beside every component, so one that has no weights of its own has an empty one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.encoding import DATA
from weighbridge.formats.onnx.dtypes import BY_ENCODING
from weighbridge.formats.onnx.layout import CACHE_LINE, LARGE, PAGE, initialiser
from weighbridge.formats.onnx.schema import GraphProto, ModelProto
from weighbridge.layout import Layout, OutputFile, Slot, align, plain_file
from weighbridge.protobuf import Message, bytes_field
from weighbridge.sidefiles import CONFIG, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weighbridge.model import Component, Model

SUFFIX, DATA_SUFFIX = ".onnx", ".onnx.data"


def lay_out_components(model: Model) -> Layout:
    """Return the files of a directory of graphs: config, side files, weights, graphs.

    Raises:
        Unsupported: (rules ``encoding``, ``utf-8``) for what ONNX cannot store.
    """
    beside = dict(model.files)
    if model.config is not None and not model.linked:
        beside[CONFIG] = dump_json(model.config)
    files = [plain_file(name, content) for name, content in beside.items()]
    slots, sizes = _places(model, len(files))
    files += [
        OutputFile(f"{each.name}{DATA_SUFFIX}", sizes[number], ())
        for number, each in enumerate(model.components)
    ]
    names = [file.name for file in files]
    files += [
        plain_file(f"{each.name}{SUFFIX}", _graph(each, model, slots, names))
        for each in model.components
    ]
    return Layout(tuple(files), {(name, DATA): slot for name, slot in slots.items()})


def _places(model: Model, before: int) -> tuple[dict[str, Slot], list[int]]:
    """Return where tensors go, in the file of the first component that reads them, and its size.

    Args:
        model: the model.
        before: how many files come before the first of the components'.
    """
    slots: dict[str, Slot] = {}
    sizes: list[int] = []
    for number, component in enumerate(model.components):
        end = 0
        for reading in component.weights.values():
            if reading.tensor not in slots:
                length = model.tensors[reading.tensor].nbytes
                start = align(end, PAGE if length >= LARGE else CACHE_LINE)
                slots[reading.tensor] = Slot(before + number, start, length)
                end = start + length
        sizes.append(end)
    return slots, sizes


def _graph(
    component: Component, model: Model, slots: Mapping[str, Slot], names: Sequence[str]
) -> bytes:
    """Return a graph with the addresses of its weights.

    Operator sets come last, as in every file of ours: one that is cut short lacks them.
    """
    weights = b"".join(_weights(component, model, slots, names))
    whole = Message(memoryview(component.graph), component.name)
    last = b""
    parts = []
    for field in whole:
        raw = component.graph[field.tag : field.end]
        if field.number == ModelProto.GRAPH:
            raw = bytes_field(field.number, component.graph[field.start : field.end] + weights)
        if field.number == ModelProto.OPSET_IMPORT:
            last += raw
        else:
            parts.append(raw)
    return b"".join([*parts, last])


def _weights(
    component: Component, model: Model, slots: Mapping[str, Slot], names: Sequence[str]
) -> Iterator[bytes]:
    for name, reading in component.weights.items():
        slot = slots[reading.tensor]
        dtype = BY_ENCODING[model.tensors[reading.tensor].encoding.name]
        body = initialiser(name, reading.shape, dtype, names[slot.file], slot)
        yield bytes_field(GraphProto.INITIALIZER, body)
