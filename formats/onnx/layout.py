"""Where every byte of an ONNX file of weights goes.

Such a file is a model whose graph has initialisers and no nodes. Its initialisers are the graph's
outputs as well, where ONNX Runtime knows their type: it refuses a graph without outputs, and so
it loads the file, and hands out each weight by its name.

``opset_import`` comes last. Readers take the fields of a message in any order, and a file that was
cut short anywhere lacks it and is refused by all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from weighbridge.encoding import DATA
from weighbridge.errors import Unsupported
from weighbridge.formats.onnx.dtypes import BASE_IR, BASE_OPSET, BY_ENCODING, DataType
from weighbridge.formats.onnx.entries import entry
from weighbridge.formats.onnx.props import props_of
from weighbridge.formats.onnx.schema import (
    GraphProto,
    ModelProto,
    OperatorSetId,
    TensorProto,
    TypeProto,
    ValueInfo,
)
from weighbridge.layout import Layout, LayoutOptions, OutputFile, Slot, align
from weighbridge.protobuf import bytes_field, bytes_head, number_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from weighbridge.model import Model
    from weighbridge.region import Shape
    from weighbridge.tensor import Lazy

PRODUCER = "weighbridge"

PROTOBUF_LIMIT = (1 << 31) - 1
"""The most bytes of a message that protobuf reads: its sizes are signed 32-bit numbers."""

SMALLEST_EXTERNAL = 1024
"""The fewest bytes that are kept in another file, as in ``onnx.save_model``: smaller tensors are
shapes and constants, which shape inference reads from the model itself."""

LARGE, PAGE, CACHE_LINE = 1 << 20, 4096, 64
"""External tensors of `LARGE` bytes begin on a page, so that they can be mapped on their own and
read past the page cache (``onnx.proto``: offsets should be multiples of 4096). For smaller ones
that would mostly be padding, and a cache line is all that vector loads want."""


@dataclass(frozen=True)
class Hole:
    """Room for a tensor's bytes.

    Attributes:
        name: the tensor's name.
        length: how many bytes it has.
    """

    name: str
    length: int


Chunk = bytes | Hole


def lay_out(model: Model, name: str, options: LayoutOptions) -> Layout:
    """Return the files of `model`: one, or with external data two, of which the model is the last.

    Raises:
        Unsupported: (rule ``protobuf-limit``) for more than protobuf can hold in one file; (rules
            ``encoding``, ``empty-name``, ``utf-8``, ``metadata-type``) for what ONNX cannot store.
    """
    types = {key: _type_of(key, tensor) for key, tensor in model.tensors.items()}
    chunks = list(_model(model, types, name, {}))
    if options.external or (options.external is None and _size(chunks) > PROTOBUF_LIMIT):
        slots, data = _external(model)
        chunks = list(_model(model, types, name, slots))
    else:
        slots, data = {}, 0
    _check_limit(_size(chunks), options)
    pieces, embedded = _placed(chunks, 1 if data else 0)
    files = (OutputFile(f"{name}.data", data, ()),) if data else ()
    where = {key: slots[key] if key in slots else embedded[key] for key in model.tensors}
    return Layout(
        (*files, OutputFile(name, _size(chunks), pieces)),
        {(key, DATA): slot for key, slot in where.items()},
    )


def _type_of(name: str, tensor: Lazy) -> DataType:
    dtype = BY_ENCODING.get(tensor.encoding.name)
    if dtype is None:
        raise Unsupported(f"ONNX cannot store {tensor.encoding}", rule="encoding", tensor=name)
    if not name:
        raise Unsupported("a tensor needs a name in ONNX", rule="empty-name")
    return dtype


def _check_limit(size: int, options: LayoutOptions) -> None:
    if size > PROTOBUF_LIMIT:
        raise Unsupported(
            "the file would be larger than protobuf can read",
            rule="protobuf-limit",
            got=f"{size} bytes",
            expected=f"at most {PROTOBUF_LIMIT} bytes",
            hint="allow external data" if options.external is False else None,
        )


def _external(model: Model) -> tuple[dict[str, Slot], int]:
    """Return where the tensors go that are kept in another file, and that file's size."""
    slots: dict[str, Slot] = {}
    end = 0
    for name, tensor in model.tensors.items():
        length = tensor.nbytes
        if length >= SMALLEST_EXTERNAL:
            start = align(end, PAGE if length >= LARGE else CACHE_LINE)
            slots[name] = Slot(0, start, length)
            end = start + length
    return slots, end


def _placed(
    chunks: Iterable[Chunk], file: int
) -> tuple[tuple[tuple[int, bytes], ...], dict[str, Slot]]:
    """Return the known bytes of a file with their offsets, and where its tensors go."""
    pieces: list[tuple[int, bytes]] = []
    slots: dict[str, Slot] = {}
    known: list[bytes] = []
    at = start = 0
    for chunk in (*chunks, None):
        if isinstance(chunk, bytes):
            known.append(chunk)
            at += len(chunk)
            continue
        if known:
            pieces.append((start, b"".join(known)))
            known = []
        if chunk is not None:
            slots[chunk.name] = Slot(file, at, chunk.length)
            at += chunk.length
        start = at
    return tuple(pieces), slots


def _size(chunks: Iterable[Chunk]) -> int:
    return sum(len(chunk) if isinstance(chunk, bytes) else chunk.length for chunk in chunks)


def _nested(number: int, body: Sequence[Chunk]) -> Iterator[Chunk]:
    """Yield a field that holds the message with this `body`."""
    yield bytes_head(number, _size(body))
    yield from body


def _model(
    model: Model, types: Mapping[str, DataType], name: str, external: Mapping[str, Slot]
) -> Iterator[Chunk]:
    """Yield the model: known bytes and room for the tensors that are not `external`."""
    plain = (BASE_IR, BASE_OPSET)
    ir, opset = max(((dtype.ir, dtype.opset) for dtype in types.values()), default=plain)
    yield number_field(ModelProto.IR_VERSION, ir)
    yield bytes_field(ModelProto.PRODUCER_NAME, PRODUCER)
    yield from _nested(ModelProto.GRAPH, list(_graph(model, types, name, external)))
    for key, value in props_of(model):
        yield bytes_field(ModelProto.METADATA_PROPS, _entry(key, value))
    version = number_field(OperatorSetId.VERSION, opset)
    yield bytes_field(ModelProto.OPSET_IMPORT, bytes_field(OperatorSetId.DOMAIN, "") + version)


def _graph(
    model: Model, types: Mapping[str, DataType], name: str, external: Mapping[str, Slot]
) -> Iterator[Chunk]:
    yield bytes_field(GraphProto.NAME, _encoded(PurePath(name).stem or PRODUCER))
    for key, tensor in model.tensors.items():
        if key in external:
            body = initialiser(key, tensor.shape, types[key], f"{name}.data", external[key])
            yield bytes_field(GraphProto.INITIALIZER, body)
        else:
            room = Hole(key, tensor.nbytes)
            head = _about(key, tensor.shape, types[key])
            raw = bytes_head(TensorProto.RAW_DATA, room.length)
            yield from _nested(GraphProto.INITIALIZER, (head + raw, room))
    for key, tensor in model.tensors.items():
        if types[key].runtime:
            yield bytes_field(GraphProto.OUTPUT, _value_info(key, tensor, types[key]))


def initialiser(name: str, shape: Shape, dtype: DataType, location: str, slot: Slot) -> bytes:
    """Return an initialiser whose data are in another file.

    Raises:
        Unsupported: (rule ``utf-8``) for a name that is no text.
    """
    return _about(name, shape, dtype) + _address(location, slot)


def _about(name: str, shape: Shape, dtype: DataType) -> bytes:
    """Return what an initialiser says before its data."""
    dims = b"".join(number_field(TensorProto.DIMS, length) for length in shape)
    number = number_field(TensorProto.DATA_TYPE, dtype.number)
    return dims + number + bytes_field(TensorProto.NAME, _encoded(name))


def _address(location: str, slot: Slot) -> bytes:
    """Return what an initialiser says about its external data."""
    entries = {"location": location, "offset": str(slot.offset), "length": str(slot.length)}
    where = (bytes_field(TensorProto.EXTERNAL_DATA, _entry(*entry)) for entry in entries.items())
    return b"".join(where) + number_field(TensorProto.DATA_LOCATION, TensorProto.EXTERNAL)


def _value_info(name: str, tensor: Lazy, dtype: DataType) -> bytes:
    dims = (number_field(TypeProto.DIM_VALUE, length) for length in tensor.shape)
    shape = b"".join(bytes_field(TypeProto.DIM, dim) for dim in dims)
    number = number_field(TypeProto.ELEM_TYPE, dtype.number)
    described = bytes_field(TypeProto.TENSOR_TYPE, number + bytes_field(TypeProto.SHAPE, shape))
    return bytes_field(ValueInfo.NAME, _encoded(name)) + bytes_field(ValueInfo.TYPE, described)


def _entry(key: str, value: str) -> bytes:
    return entry(_encoded(key), _encoded(value))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unsupported("ONNX stores only valid text", rule="utf-8", got=ascii(text)) from None
