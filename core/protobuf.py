"""The protobuf wire format, walked in place: nothing is copied, what is not asked for is skipped.

Source: "Encoding" in the Protocol Buffers documentation. A message is a run of fields; each begins
with a varint ``number << 3 | wire type``.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from weighbridge.errors import InvalidFile

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping
    from pathlib import Path

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIDTHS: Mapping[int, int] = {FIXED32: 4, FIXED64: 8}
"""The payload's bytes of the wire types that have a fixed number of them."""

FEW = 1 << 14
"""Messages of at most so many fields are walked once, and their fields kept."""

MAX_TAG = (1 << 32) - 1
ALL = range(1, (MAX_TAG >> 3) + 1)
"""The numbers that a field may have."""

MAX_VARINT_BYTES = 10
MAX_VALUE = (1 << 64) - 1
MAX_SHIFT = 7 * MAX_VARINT_BYTES - 7


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: which field it is.
        wire: its wire type.
        value: the number where the wire type is `VARINT`, as unsigned 64 bits; otherwise 0.
        tag: the offset of the field's first byte.
        start: the offset of its payload.
        end: the offset of the byte after it.
    """

    number: int
    wire: int
    value: int
    tag: int
    start: int
    end: int


class Spec(NamedTuple):
    """What a message's definition says of one field that occurs at most once.

    Attributes:
        name: as the definition has it.
        wire: its wire type.
    """

    name: str
    wire: int


class Message:
    """The bytes of one message in an untrusted file.

    Attributes:
        buffer: the whole file.
        path: the file's path, for messages.
        start: the offset of its first byte.
        end: the offset of the byte after it.

    Example:
        >>> message = Message(memoryview(bytes.fromhex("0896011203616263")), "x")
        >>> [(field.number, field.value) for field in message]
        [(1, 150), (2, 0)]
    """

    __slots__ = ("_kept", "_runs", "buffer", "end", "path", "start")

    def __init__(
        self, buffer: memoryview, path: Path | str, start: int = 0, end: int | None = None
    ) -> None:
        """Take the range ``start:end`` of `buffer`."""
        self.buffer = buffer
        self.path = path
        self.start = start
        self.end = len(buffer) if end is None else end
        self._kept: list[Field] | None = None
        self._runs: list[Field] | None = None

    def __iter__(self) -> Iterator[Field]:
        """Yield the fields in the order of the file; see `fields`."""
        return self.of(ALL)

    def of(self, numbers: Container[int]) -> Iterator[Field]:
        """Yield the fields of some numbers in the order of the file; see `fields`."""
        if self._runs is not None:
            return self._of_runs(numbers)
        if self._kept is None:
            self._kept = list(islice(self.fields(), FEW + 1))
        if len(self._kept) > FEW:
            return self.fields(numbers)
        return (field for field in self._kept if field.number in numbers)

    def _of_runs(self, numbers: Container[int]) -> Iterator[Field]:
        for run in self._runs or ():
            if run.number in numbers:
                yield from Message(self.buffer, self.path, run.tag, run.end).fields()

    def hold(self, runs: list[Field]) -> None:
        """Take the runs that `of` shall look through, if they are few; see `run`."""
        if len(runs) <= FEW:
            self._runs = runs

    def run(self, first: Field) -> Field:
        """Return a field as one with those of its kind that follow it: `end` is that of the last.

        To step over a field like the first takes a quarter of the time of `fields`. Fields of 16
        KiB or more, and whatever is malformed, end a run.
        """
        buffer, at, tag = self.buffer, first.end, first.number << 3 | BYTES
        if first.wire != BYTES or tag >= 0x80:
            return first
        while at + 3 < self.end and buffer[at] == tag:
            length, start = buffer[at + 1], at + 2
            if length >= 0x80:
                length, start = length & 0x7F | buffer[at + 2] << 7, at + 3
            if length >= 1 << 14 or start + length > self.end:
                break
            at = start + length
        return first._replace(end=at)

    def fields(self, only: Container[int] = ALL, *, cut: bool = False) -> Iterator[Field]:
        """Yield the fields in the order of the file.

        Args:
            only: the numbers of those that are wanted.
            cut: whether the last field may be cut short by the end of the message.

        Raises:
            InvalidFile: (rules ``field-tag``, ``wire-type``, ``varint``; ``truncated`` where the
                file ends inside a field, ``overrun`` where only the message around it does).
        """
        buffer, at, end = self.buffer, self.start, self.end
        # What a NamedTuple's own constructor calls, without a call in between.
        made = tuple.__new__
        while at < end:
            first = at
            tag = buffer[at]
            if 1 << 3 <= tag < 0x80:
                at += 1
            else:
                tag, at = self._tag(at)
            number, wire = tag >> 3, tag & 7
            value, start = 0, at
            if wire == BYTES:
                length = buffer[at] if at < end else 0x80
                if length < 0x80:
                    start = at + 1
                else:
                    length, start = self._varint(at)
                at = start + length
            elif wire == VARINT:
                value, at = self._varint(at)
            elif wire in WIDTHS:
                at += WIDTHS[wire]
            else:
                self.fail("a field has a wire type that is not used", "wire-type", first, got=wire)
            if at > end:
                if not cut:
                    self._overrun(first, at)
                at = end
            if number in only:
                yield made(Field, (number, wire, value, first, start, at))

    def _tag(self, at: int) -> tuple[int, int]:
        """Return the tag at `at`, which has several bytes or is none, and where it ends."""
        tag, end = self._varint(at)
        if not 1 << 3 <= tag <= MAX_TAG:
            self.fail("a field's number is out of range", "field-tag", at, got=tag >> 3)
        return tag, end

    def _varint(self, at: int) -> tuple[int, int]:
        """Return the varint at `at` and where it ends."""
        buffer, end = self.buffer, self.end
        value = shift = 0
        start, byte = at, 0x80
        while byte >= 0x80:
            if at >= end:
                self._overrun(start, end + 1)
            byte = buffer[at]
            value |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if value > MAX_VALUE or (shift > MAX_SHIFT and byte >= 0x80):
                self.fail("a number has more than 64 bits", "varint", start)
        return value, at

    def _overrun(self, at: int, expected: int) -> NoReturn:
        if self.end == len(self.buffer):
            self.fail("the file ends inside its header", "truncated", at, expected=expected)
        self.fail("a field is longer than the message around it", "overrun", at, expected=expected)

    def fail(
        self, problem: str, rule: str, at: int, *, got: object = None, expected: int | None = None
    ) -> NoReturn:
        """Reject the file for what is at offset `at`.

        Raises:
            InvalidFile: always, with `rule`.
        """
        raise InvalidFile(
            f"{problem} at byte {at}",
            rule=rule,
            path=self.path,
            got=got if expected is None else f"{self.end} bytes",
            expected=None if expected is None else f"at least {expected} bytes",
        )

    def message(self, field: Field) -> Message:
        """Return the message that a field holds."""
        self.expect(field, BYTES)
        return Message(self.buffer, self.path, field.start, field.end)

    def content(self, field: Field) -> bytes:
        """Return a copy of the bytes that a field holds."""
        self.expect(field, BYTES)
        return bytes(self.buffer[field.start : field.end])

    def text(self, field: Field) -> str:
        """Return the text that a field holds.

        Raises:
            InvalidFile: (rule ``utf-8``) when it is not text.
        """
        if field.wire != BYTES:
            self.expect(field, BYTES)
        raw = self.buffer[field.start : field.end]
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            self.fail("a string is not UTF-8", "utf-8", field.start, got=bytes(raw[:40]))

    def integers(self, field: Field) -> Iterable[int]:
        """Return the int64 that a field holds: one, or packed ones.

        Raises:
            InvalidFile: (rule ``wire-type``) when it cannot hold any.
        """
        if field.wire == VARINT:
            return (signed(field.value),)
        self.expect(field, BYTES)
        return self._packed(field)

    def _packed(self, field: Field) -> Iterator[int]:
        packed = Message(self.buffer, self.path, field.start, field.end)
        at = field.start
        while at < field.end:
            value, at = packed._varint(at)
            yield signed(value)

    def expect(self, field: Field, wire: int) -> None:
        """Refuse a field whose wire type is not `wire`.

        Raises:
            InvalidFile: (rule ``wire-type``).
        """
        if field.wire != wire:
            self.fail(
                "a field has another type's wire type", "wire-type", field.tag, got=field.wire
            )

    def singles(self, specs: Mapping[int, Spec]) -> dict[str, Field]:
        """Return the fields that occur at most once, by name; others are passed over.

        Raises:
            InvalidFile: (rule ``duplicate-field``) when one of them occurs twice: protobuf would
                take the last or merge them, so that readers could differ; (rule ``wire-type``).
        """
        found: dict[str, Field] = {}
        for field in self.of(specs):
            self.keep(found, specs[field.number], field)
        return found

    def keep(self, found: dict[str, Field], spec: Spec, field: Field) -> None:
        """Add a field to those found that occur at most once; see `singles`."""
        name, wire = spec
        if field.wire != wire:
            self.expect(field, wire)
        if name in found:
            self._repeated(spec, field)
        found[name] = field

    def _repeated(self, spec: Spec, field: Field) -> NoReturn:
        self.fail(f"the field '{spec.name}' is repeated", "duplicate-field", field.tag)

    def each(self, number: int) -> Iterator[Field]:
        """Yield the fields of one number that hold bytes.

        Raises:
            InvalidFile: (rule ``wire-type``) when one does not hold bytes.
        """
        for field in self.of((number,)):
            self.expect(field, BYTES)
            yield field

    def texts(self, specs: Mapping[int, Spec]) -> dict[str, str]:
        """Return those of the fields of `specs` that are there, as text."""
        found: dict[str, str] = {}
        for field in self.of(specs):
            spec = specs[field.number]
            if spec.name in found:
                self._repeated(spec, field)
            found[spec.name] = self.text(field)
        return found


def signed(value: int) -> int:
    """Return an unsigned 64-bit value as the int64 with the same bits.

    Example:
        >>> signed(2**64 - 1)
        -1
    """
    return value - (1 << 64) if value >> 63 else value


def varint(value: int) -> bytes:
    """Return a number of at most 64 bits as a varint; a negative one has ten bytes.

    Example:
        >>> varint(300).hex(), varint(-1).hex()
        ('ac02', 'ffffffffffffffffff01')
    """
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """Return a field that holds an integer.

    Example:
        >>> number_field(1, 150).hex()
        '089601'
    """
    return varint(number << 3 | VARINT) + varint(value)


def bytes_head(number: int, length: int) -> bytes:
    """Return what comes before the `length` bytes of a field that holds bytes."""
    return varint(number << 3 | BYTES) + varint(length)


def bytes_field(number: int, content: bytes | str) -> bytes:
    """Return a field that holds bytes, a text or a message.

    Example:
        >>> bytes_field(2, "abc").hex()
        '1203616263'
    """
    raw = content.encode() if isinstance(content, str) else content
    return bytes_head(number, len(raw)) + raw
