"""Initialisers as writers write them: axes, type, name, then the numbers or where they are.

protobuf leaves the order of fields open, and its libraries write them by their numbers; so nearly
every ``TensorProto`` begins with the same few bytes as others of its shape and type, which are
looked at once. What is of another form, or breaks a rule, is left to
`weighbridge.formats.onnx.tensors`, which says what is wrong with it.
"""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from weighbridge.checked import LIMIT
from weighbridge.formats.onnx.dtypes import BY_NUMBER
from weighbridge.formats.onnx.schema import GraphProto, TensorProto
from weighbridge.protobuf import BYTES, FEW, Message, bytes_head
from weighbridge.tensor import stored

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from weighbridge.encoding import Dense
    from weighbridge.formats.onnx.tensors import Source
    from weighbridge.protobuf import Field
    from weighbridge.region import Shape
    from weighbridge.tensor import Tensor

_BEGIN = (
    rb"((?:\x08[\x80-\xff]{0,8}[\x00-\x7f]){0,64}"  # dims: at most 63 bits each
    rb"\x10[\x01-\x7f])"  # data_type
    rb"\x42([\x01-\x7f])"  # the length of the name
)
_HEAD = re.compile(_BEGIN)
_FIELD = re.compile(rb"\x2a([\x80-\xff]{0,8}[\x00-\x7f])" + _BEGIN)  # and the tensor's length

_ELSEWHERE = re.compile(
    rb"j.\n\x08location\x12.([ -~]{1,100})"
    rb"j.\n\x06offset\x12.([0-9]{1,19})"
    rb"j.\n\x06length\x12.([0-9]{1,19})p\x01",
    re.DOTALL,
)

_WRITTEN = (
    b"j%c\n\x08location\x12%c%b"
    b"j%c\n\x06offset\x12%c%b"
    b"j%c\n\x06length\x12%c%bp\x01"
)  # fmt: skip
"""Three entries of ``external_data`` and the location, of texts whose lengths are a byte each."""


class Kind(NamedTuple):
    """What the first bytes of a tensor say.

    Attributes:
        encoding: how its numbers are stored.
        shape: its shape.
        nbytes: the bytes of its numbers.
        raw: what comes before these numbers where they are ``raw_data``.
    """

    encoding: Dense
    shape: Shape
    nbytes: int
    raw: bytes


class Plain:
    """Makes tensors of plain initialisers."""

    def __init__(self, source: Source) -> None:
        """Take the files that their numbers are in."""
        self._source = source
        self._kinds: dict[bytes, Kind | None] = {}
        self._lengths: dict[bytes, int] = {}

    def initialisers(self, graph: Message, scope: str) -> Iterator[Field | Tensor]:
        """Yield the initialisers of a graph: as tensors where they are plain, else as fields.

        The other fields are kept in `graph`, so that it is not walked again.

        Args:
            graph: the graph.
            scope: what comes before names.
        """
        others: list[Field] = []
        at = graph.start
        while at < graph.end:
            tensor = None
            for field in Message(graph.buffer, graph.path, at, graph.end).fields():
                at = field.end
                if field.number in _INITIALISERS:
                    tensor = self._of_field(graph, field, scope)
                    yield tensor or field
                    if tensor is not None and field.end - field.start > _LARGE:
                        break
                elif len(others) <= FEW:
                    others.append(field)
            if tensor is not None:
                at = yield from self._read(graph, scope, at)
        graph.hold(others)

    def _read(self, graph: Message, scope: str, at: int) -> Generator[Field | Tensor, None, int]:
        """Yield plain initialisers from `at` on, and return where there is something else.

        Between numbers that fill pages, to read some bytes costs less than to map two pages.
        """
        file = self._source.file
        while at < graph.end:
            head = os.pread(file.descriptor, _WINDOW, at)
            found = self._in_window(head, at, graph.end, scope)
            if found is None:
                break
            tensor, at = found
            yield tensor
        return at

    def _in_window(self, head: bytes, at: int, end: int, scope: str) -> tuple[Tensor, int] | None:
        """Return the initialiser whose field begins with `head`, and where it ends."""
        found = _FIELD.match(head)
        named = self._named(found, head, scope) if found else None
        if found is None or named is None:
            return None
        name, (encoding, shape, nbytes, raw), stop = named
        size, start = found[1], stop + len(raw)
        whole = self._length(size) == start + nbytes - 1 - len(size)
        if head[stop:start] != raw or not whole or at + start + nbytes > end:
            return None
        tensor = stored(name, shape, encoding, self._source.file, at + start, nbytes)
        return tensor, at + start + nbytes

    def _named(
        self, found: re.Match[bytes], head: bytes, scope: str
    ) -> tuple[str, Kind, int] | None:
        """Return an initialiser's name, its kind, and where the name ends in `head`."""
        first, (length,) = found.groups()[-2:]
        kind = self._kinds[first] if first in self._kinds else self._look(first)
        stop = found.end() + length
        if kind is None:
            return None
        try:
            return scope + head[found.end() : stop].decode(), kind, stop
        except UnicodeDecodeError:
            return None

    def _length(self, size: bytes) -> int:
        if size not in self._lengths:
            self._lengths[size] = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(size))
        return self._lengths[size]

    def _of_field(self, graph: Message, field: Field, scope: str) -> Tensor | None:
        """Return an initialiser; None where it is not plain, or not valid."""
        if field.number != GraphProto.INITIALIZER or field.wire != BYTES:
            return None
        head = bytes(graph.buffer[field.start : min(field.end, field.start + _WINDOW)])
        found = _HEAD.match(head)
        named = self._named(found, head, scope) if found else None
        if named is None:
            return None
        name, kind, stop = named
        begin = stop + len(kind.raw)
        start = field.start + begin
        if start + kind.nbytes == field.end and head[stop:begin] == kind.raw:
            file = self._source.file
            return stored(name, kind.shape, kind.encoding, file, start, kind.nbytes)
        return self._elsewhere(name, kind, head[stop:])

    def _look(self, first: bytes) -> Kind | None:
        self._kinds[first] = kind = _kind(first)
        return kind

    def _elsewhere(self, name: str, kind: Kind, rest: bytes) -> Tensor | None:
        found = _ELSEWHERE.fullmatch(rest)
        if found is None:
            return None
        location, offset, length = found.groups()
        written = _WRITTEN % (
            len(location) + 12, len(location), location,
            len(offset) + 10, len(offset), offset,
            len(length) + 10, len(length), length,
        )  # fmt: skip
        if rest != written or int(length) != kind.nbytes:
            return None
        file = self._source.external.file(location.decode(), name)
        if int(offset) + kind.nbytes > file.size:
            return None
        return stored(name, kind.shape, kind.encoding, file, int(offset), kind.nbytes)


def _kind(first: bytes) -> Kind | None:
    *dims, data_type = Message(memoryview(first), "").fields()
    shape = tuple(field.value for field in dims)
    dtype = BY_NUMBER.get(data_type.value)
    # No axis is 0, so that none is longer than the whole.
    if dtype is None or not 0 < math.prod(shape) * dtype.encoding.bits <= LIMIT:
        return None
    nbytes = dtype.encoding.nbytes(shape)
    return Kind(dtype.encoding, shape, nbytes, bytes_head(TensorProto.RAW_DATA, nbytes))


_WINDOW = 384
"""Bytes that are read at once, more than come before the numbers of a plain initialiser."""

_LARGE = 4096
"""Bytes of an initialiser behind which the next one is on another page."""

_INITIALISERS = (GraphProto.INITIALIZER, GraphProto.SPARSE_INITIALIZER)
