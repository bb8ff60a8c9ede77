"""What the first bytes of a plain initialiser say, looked at once for each text of them.

protobuf leaves the order of fields open, and its libraries write them by their numbers; so nearly
every ``TensorProto`` begins with its axes, type and name, and with the same few bytes as others of
its shape, type and length of the name.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from weighbridge.checked import LIMIT
from weighbridge.formats.onnx.dtypes import BY_NUMBER
from weighbridge.formats.onnx.entries import entry
from weighbridge.formats.onnx.schema import TensorProto
from weighbridge.protobuf import Message, bytes_field, bytes_head

if TYPE_CHECKING:
    from weighbridge.encoding import Dense
    from weighbridge.region import Shape

_FIELD = re.compile(
    rb"\x2a([\x80-\xff]{0,8}[\x00-\x7f])"  # the length of the tensor
    rb"((?:\x08[\x80-\xff]{0,8}[\x00-\x7f]){0,64}"  # dims: at most 63 bits each
    rb"\x10[\x01-\x7f])"  # data_type
    rb"\x42([\x01-\x7f])"  # the length of the name
)

_ENOUGH = 20
"""Bytes that tell two forms apart where their names begin alike: no matrix has more before its
name."""


class Kind(NamedTuple):
    """What the axes and the type of a tensor say.

    Attributes:
        shape: its shape.
        encoding: how its numbers are stored.
        nbytes: the bytes of its numbers.
        raw: what comes before these numbers where they are ``raw_data``.
        beside: what the tensor ends with where they are in another file, and it says how many.
    """

    shape: Shape
    encoding: Dense
    nbytes: int
    raw: bytes
    beside: bytes


class Form(NamedTuple):
    """Where everything is in a field that holds a tensor.

    Attributes:
        kind: what comes before the name says.
        name: where the name begins, counted from the field's first byte,
        stop: where it ends,
        numbers: where the numbers begin, if the field holds them and nothing after them,
        end: and where the field ends.
        inside: whether it has the length that it has then.
    """

    kind: Kind
    name: int
    stop: int
    numbers: int
    end: int
    inside: bool


class Forms:
    """The kinds and the forms that occurred before."""

    def __init__(self) -> None:
        """Know none yet."""
        self._kinds: dict[bytes, Kind | None] = {}
        self._forms: dict[bytes, Form] = {}

    def form(self, head: bytes) -> Form | None:
        """Return the form of the field that begins with `head`; None where it is not plain."""
        key = head[:_ENOUGH]
        form = self._forms.get(key)
        if form is None:
            form = self._look(head)
            if form is not None and form.name <= _ENOUGH:
                self._forms[key] = form
        return form

    def _look(self, head: bytes) -> Form | None:
        found = _FIELD.match(head)
        kind = self._kind(found[2]) if found else None
        if found is None or kind is None:
            return None
        size, _, (length,) = found.groups()
        stop = found.end() + length
        numbers, end = stop + len(kind.raw), 1 + len(size) + _number(size)
        return Form(kind, found.end(), stop, numbers, end, numbers + kind.nbytes == end)

    def _kind(self, first: bytes) -> Kind | None:
        if first not in self._kinds:
            self._kinds[first] = _kind(first)
        return self._kinds[first]


def _number(varint: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint))


def _kind(first: bytes) -> Kind | None:
    *dims, data_type = Message(memoryview(first), "").fields()
    shape = tuple(field.value for field in dims)
    dtype = BY_NUMBER.get(data_type.value)
    # No axis is 0, so that none is longer than the whole.
    if dtype is None or not 0 < math.prod(shape) * dtype.encoding.bits <= LIMIT:
        return None
    nbytes = dtype.encoding.nbytes(shape)
    raw = bytes_head(TensorProto.RAW_DATA, nbytes)
    beside = beside_entry("length", b"%d" % nbytes) + b"p\x01"
    return Kind(shape, dtype.encoding, nbytes, raw, beside)


def beside_entry(key: str, value: bytes) -> bytes:
    r"""Return an entry of ``external_data``, as a field.

    Example:
        >>> beside_entry("offset", b"64")
        b'j\x0c\n\x06offset\x12\x0264'
    """
    return bytes_field(TensorProto.EXTERNAL_DATA, entry(key, value))
