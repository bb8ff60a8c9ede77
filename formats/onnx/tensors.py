"""One ``TensorProto``: its shape and type, and where its numbers are.

Source: ``onnx.proto``, message ``TensorProto``. Numbers are in one of four places: ``raw_data``,
the field of their type, another file, or nowhere where there are none.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from weighbridge.checked import MAX_DIMENSIONS, product
from weighbridge.encoding import DATA
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.formats.onnx.dtypes import BY_NUMBER, STRING, DataType, Typed
from weighbridge.formats.onnx.entries import key_value
from weighbridge.formats.onnx.external import KEYS
from weighbridge.formats.onnx.schema import TensorProto
from weighbridge.formats.onnx.values import Numbers, typed_bytes
from weighbridge.metadata import LazyStrings
from weighbridge.protobuf import BYTES, Field, Message
from weighbridge.tensor import Extent, Part, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.file import File
    from weighbridge.formats.onnx.external import ExternalFiles
    from weighbridge.region import Shape


@dataclass(frozen=True)
class Source:
    """Where the bytes of a model's tensors are.

    Attributes:
        file: the model's own file.
        external: the files beside it.
    """

    file: File
    external: ExternalFiles


class Texts:
    """Texts that lie in fields of a message, as addresses.

    Attributes:
        message: the message.
        offsets: where each text is, int64.
        lengths: how many bytes it has, int64.
    """

    def __init__(self, message: Message) -> None:
        """Start without texts."""
        self.message = message
        self.offsets, self.lengths = array("q"), array("q")

    def add(self, field: Field) -> None:
        """Take a field that holds a text."""
        self.message.expect(field, BYTES)
        self.offsets.append(field.start)
        self.lengths.append(field.end - field.start)

    def lazy(self) -> LazyStrings:
        """Return the texts, which stay in the file until they are looked at."""
        return LazyStrings(self.message.buffer, self.offsets, self.lengths)


class Content:
    """The fields of one tensor.

    Attributes:
        message: the tensor.
        name: what it is called here, for messages.
        singles: the fields that occur once, by name.
        dims: the lengths of its axes.
        numbers: the typed fields, by name; only those that hold anything.
        strings: its texts, None where it has none.
        entries: what it says about external data.
    """

    def __init__(self, message: Message) -> None:
        """Sort the fields of `message`; what they mean together is not looked at yet.

        Raises:
            InvalidFile: when the message is malformed, (rule ``duplicate-key``) when it says
                something about its external data twice.
        """
        self.message = message
        self.singles: dict[str, Field] = {}
        self.name = ""
        self.dims: list[int] = []
        self.numbers: dict[str, Numbers] = {}
        self.strings: Texts | None = None
        self.entries: dict[str, str] = {}
        for field in message.fields():
            spec = TensorProto.SINGLES.get(field.number)
            if spec is None:
                self._sort(field)
            else:
                message.keep(self.singles, spec, field)

    def _sort(self, field: Field) -> None:
        typed = TensorProto.NUMBERS.get(field.number)
        if typed is not None:
            if field.end > field.start:
                self.numbers.setdefault(typed.name, Numbers(self.message, typed.wire)).add(field)
        elif field.number == TensorProto.DIMS:
            self.add_dims(self.message.integers(field))
        elif field.number == TensorProto.STRING_DATA:
            self.strings = self.strings or Texts(self.message)
            self.strings.add(field)
        elif field.number == TensorProto.EXTERNAL_DATA:
            self._add_entry(*key_value(self.message, field))

    def add_dims(self, lengths: Iterable[int]) -> None:
        """Take the lengths of more axes.

        Raises:
            InvalidFile: (rule ``rank``) when they are too many.
        """
        for length in lengths:
            self.dims.append(length)
            if len(self.dims) > MAX_DIMENSIONS:
                self.fail("it has too many axes", "rank", expected=f"at most {MAX_DIMENSIONS}")

    def _add_entry(self, key: str, value: str) -> None:
        if key in self.entries:
            self.fail("its external data say something twice", "duplicate-key", got=key)
        if key in KEYS:
            self.entries[key] = value

    def own_name(self) -> str:
        """Return the name that the tensor gives itself, which may be empty."""
        field = self.singles.get("name")
        return self.message.text(field) if field else ""

    def integer(self, name: str) -> int:
        """Return the value of a field that holds a number, 0 where it is missing."""
        field = self.singles.get(name)
        return field.value if field else 0

    @property
    def is_text(self) -> bool:
        """Whether the tensor holds texts instead of numbers."""
        return self.integer("data_type") == STRING

    def texts(self, name: str) -> LazyStrings:
        """Return its texts, called `name` here.

        Raises:
            InvalidFile: (rules ``two-payloads``, ``wrong-field``, ``data-length``).
        """
        self.name = name
        place = _place(self)
        if place not in {None, "string_data"}:
            self.fail("texts are in a field of numbers", "wrong-field", got=place)
        texts = (self.strings or Texts(self.message)).lazy()
        expected = product(self.shape(), path=self.message.path)
        if len(texts) != expected:
            self.fail(
                "it does not have as many texts as its shape",
                "data-length",
                got=len(texts),
                expected=expected,
            )
        return texts

    def shape(self) -> Shape:
        """Return the tensor's shape.

        Raises:
            InvalidFile: (rule ``shape-overflow``) for a negative axis or a product that no file
                can hold.
        """
        product(self.dims, path=self.message.path, tensor=self.name)
        return tuple(self.dims)

    def tensor(self, name: str, source: Source) -> Tensor:
        """Return the tensor under the name that it has here.

        Raises:
            InvalidFile: with the rule that it breaks.
            NotFound: when its external data do not exist.
            Unsupported: (rule ``segment``) for a piece of a tensor.
        """
        self.name = name
        if "segment" in self.singles:
            raise Unsupported(
                "is a piece of a tensor", rule="segment", path=self.message.path, tensor=name
            )
        number = self.integer("data_type")
        dtype = BY_NUMBER.get(number)
        if dtype is None:
            self.fail("its data type is unknown", "dtype", got=number)
        shape = self.shape()
        return Tensor(name, shape, dtype.encoding, {DATA: _part(self, dtype, shape, source)})

    def fail(
        self, problem: str, rule: str, *, got: object = None, expected: object = None
    ) -> NoReturn:
        """Reject the tensor.

        Raises:
            InvalidFile: always, with `rule`.
        """
        raise InvalidFile(
            problem,
            rule=rule,
            path=self.message.path,
            tensor=self.name or self.own_name(),
            got=got,
            expected=expected,
        )


def _part(content: Content, dtype: DataType, shape: Shape, source: Source) -> Part:
    place = _place(content)
    if place == "external_data":
        return source.external.extent(content.entries, content.name, dtype.encoding, shape)
    if place == "raw_data":
        raw = content.singles["raw_data"]
        return _extent(content, raw.start, raw.end, dtype, shape, source)
    if place is None:
        _check_length(content, 0, dtype, shape)
        return np.empty(0, np.uint8)
    if place != dtype.field:
        content.fail(
            "its numbers are in the field of another type",
            "wrong-field",
            got=place,
            expected=dtype.field,
        )
    return _typed(content, dtype, shape, source)


def _place(content: Content) -> str | None:
    """Return the field that holds the numbers, None where there are none.

    Raises:
        InvalidFile: (rule ``two-payloads``) when there are several; (rule ``data-location``) when
            it is not clear whether they are in this file.
    """
    places = list(content.numbers)
    raw = content.singles.get("raw_data")
    # Readers look no further than raw data, even where these are empty; except for external data.
    if raw is not None and (raw.end > raw.start or not content.entries):
        places.append("raw_data")
    if content.strings:
        places.append("string_data")
    location = content.integer("data_location")
    if location > TensorProto.EXTERNAL or bool(location) != bool(content.entries):
        content.fail(
            "it is not clear whether its numbers are in another file",
            "data-location",
            got=f"location {location} and {len(content.entries)} entries of external data",
        )
    if content.entries:
        places.append("external_data")
    if len(places) > 1:
        content.fail("it has its numbers twice", "two-payloads", got=", ".join(places))
    return places[0] if places else None


def _typed(content: Content, dtype: DataType, shape: Shape, source: Source) -> Part:
    numbers = content.numbers[dtype.field]
    count = product(shape, path=content.message.path)
    if dtype.typed is not Typed.RAW:
        return typed_bytes(numbers, dtype, count, content.message, content.name)
    if len(numbers.runs) == 1 and numbers.runs[0].packed:
        (run,) = numbers.runs
        return _extent(content, run.start, run.end, dtype, shape, source)
    fixed = numbers.fixed()
    _check_length(content, fixed.size, dtype, shape)
    return fixed


def _extent(
    content: Content, start: int, end: int, dtype: DataType, shape: Shape, source: Source
) -> Extent:
    _check_length(content, end - start, dtype, shape)
    return Extent(source.file, start, end - start)


def _check_length(content: Content, length: int, dtype: DataType, shape: Shape) -> None:
    expected = dtype.encoding.nbytes(shape)
    if length != expected:
        content.fail(
            "its data do not have the length of its shape",
            "data-length",
            got=f"{length} bytes",
            expected=f"{expected} bytes",
        )
