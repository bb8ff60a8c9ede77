"""Numbers that are stored one by one as protobuf fields, decoded into a tensor's bytes.

Everything works on bounded chunks: a hostile file costs no more memory than its own numbers take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighbridge.errors import InvalidFile
from weighbridge.formats.onnx.dtypes import DataType, Typed
from weighbridge.kernels.dense import pack
from weighbridge.protobuf import BYTES, MAX_VARINT_BYTES, VARINT, WIDTHS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from weighbridge.protobuf import Field, Message

CHUNK = 1 << 18
"""Bytes that are decoded at once."""


MAX_RUNS = 4096
"""In how many pieces the numbers of a tensor may be; writers make one."""


class Run(NamedTuple):
    """Consecutive numbers of one repeated field.

    Attributes:
        start: the offset of the first byte: of a number where `packed`, of a tag otherwise.
        end: the offset after the last number.
        packed: whether the numbers follow each other without tags.
        tag: the bytes of one tag, 0 where `packed`.
    """

    start: int
    end: int
    packed: bool
    tag: int


class Numbers:
    """The numbers of one repeated field, as the runs in which they lie in the file.

    A packed field is a run. Fields of one number each, as writers before "packed" made them,
    become one run where they follow each other, so that their count costs no memory.

    Attributes:
        wire: the wire type of one number.
        runs: in the order of the file.
    """

    __slots__ = ("_message", "runs", "wire")

    def __init__(self, message: Message, wire: int) -> None:
        """Start without numbers; `message` is where the fields come from."""
        self._message = message
        self.wire = wire
        self.runs: list[Run] = []

    def add(self, field: Field) -> None:
        """Take the numbers of a field.

        Raises:
            InvalidFile: (rule ``wire-type``) when it cannot hold such numbers; (rule ``overrun``)
                when a packed field ends inside one; (rule ``fragments``) for too many runs.
        """
        if len(self.runs) > MAX_RUNS:
            self._message.fail("numbers are in too many pieces", "fragments", field.tag)
        if field.wire == BYTES:
            if field.end > field.start:
                self._check_end(field)
                self.runs.append(Run(field.start, field.end, packed=True, tag=0))
            return
        self._message.expect(field, self.wire)
        tag = field.start - field.tag
        last = self.runs[-1] if self.runs else None
        if last and not last.packed and last.end == field.tag and last.tag == tag:
            self.runs[-1] = last._replace(end=field.end)
        else:
            self.runs.append(Run(field.tag, field.end, packed=False, tag=tag))

    def _check_end(self, field: Field) -> None:
        if self.wire == VARINT:
            whole = self._message.buffer[field.end - 1] < 0x80
        else:
            whole = (field.end - field.start) % WIDTHS[self.wire] == 0
        if not whole:
            self._message.fail("packed numbers end inside one", "overrun", field.tag)

    def fixed(self) -> NDArray[np.uint8]:
        """Return the bytes of fixed-width numbers, without their tags."""
        return np.concatenate([self._untagged(run) for run in self.runs] or [_bytes(b"")])

    def _untagged(self, run: Run) -> NDArray[np.uint8]:
        data = _bytes(self._message.buffer[run.start : run.end])
        if run.packed:
            return data
        return data.reshape(-1, run.tag + WIDTHS[self.wire])[:, run.tag :].reshape(-1)

    def count(self) -> int:
        """Return how many varints there are, without decoding them."""
        total = 0
        for run in self.runs:
            ends = sum(int((chunk < 0x80).sum()) for chunk in self._chunks(run))
            total += ends if run.packed else ends // 2
        return total

    def _chunks(self, run: Run) -> Iterator[NDArray[np.uint8]]:
        for start in range(run.start, run.end, CHUNK):
            yield _bytes(self._message.buffer[start : min(start + CHUNK, run.end)])

    def varints(self) -> Iterator[NDArray[np.uint64]]:
        """Yield the varints, as unsigned 64 bits, in pieces of bounded size.

        Raises:
            InvalidFile: (rule ``varint``) for one of more than 64 bits.
        """
        for run in self.runs:
            start, after_tag = run.start, False
            while start < run.end:
                chunk = _bytes(self._message.buffer[start : min(start + CHUNK, run.end)])
                values, used = decode_varints(chunk)
                if values is None:
                    self._message.fail("a number has more than 64 bits", "varint", start)
                if run.packed:
                    yield values
                else:
                    # Tags and numbers take turns, over the border of chunks too.
                    yield values[0 if after_tag else 1 :: 2]
                    after_tag ^= bool(values.size % 2)
                start += used


def decode_varints(data: NDArray[np.uint8]) -> tuple[NDArray[np.uint64] | None, int]:
    """Return the varints that end in `data`, and how many bytes they take.

    None stands for the varints where one has more than 64 bits.

    Example:
        >>> decode_varints(np.frombuffer(bytes.fromhex("05ac0296"), np.uint8))
        (array([  5, 300], dtype=uint64), 3)
    """
    ends = np.flatnonzero(data < 0x80)
    if data.size - (ends[-1] + 1 if ends.size else 0) >= MAX_VARINT_BYTES:
        return None, 0
    starts = np.concatenate([[0], ends[:-1] + 1])[: ends.size]
    lengths = ends - starts + 1
    longest = int(lengths.max(initial=0))
    overlong = longest == MAX_VARINT_BYTES and (data[ends[lengths == longest]] > 1).any()
    if longest > MAX_VARINT_BYTES or overlong:
        return None, 0
    values = (data[starts] & 0x7F).astype(np.uint64)
    for i in range(1, longest):
        more = np.flatnonzero(lengths > i)
        values[more] |= (data[starts[more] + i] & np.uint64(0x7F)) << np.uint64(7 * i)
    return values, int(ends[-1]) + 1 if ends.size else 0


def typed_bytes(
    numbers: Numbers, dtype: DataType, count: int, message: Message, name: str
) -> NDArray[np.uint8]:
    """Return the bytes of a tensor of `count` numbers that are stored as varints.

    Raises:
        InvalidFile: (rule ``data-length``) when there are more or fewer; (rule ``value-range``)
            when one is no number of that type.
    """
    slots = dtype.encoding.nbytes((count,)) if dtype.typed is Typed.PACKED else count
    _check_count(numbers, slots, message, name)
    store = _store(dtype)
    out = np.empty(slots, store)
    done = 0
    for chunk in numbers.varints():
        out[done : done + chunk.size] = _narrowed(chunk, dtype, store, message, name)
        done += chunk.size
    if dtype.encoding.bits < 8 and dtype.typed is Typed.BITS:
        return pack(out, dtype.encoding)
    return out.view(np.uint8)


def _check_count(numbers: Numbers, expected: int, message: Message, name: str) -> None:
    found = numbers.count()
    if found != expected:
        raise InvalidFile(
            "it does not have as many numbers as its shape",
            rule="data-length",
            path=message.path,
            tensor=name,
            got=found,
            expected=expected,
        )


def _store(dtype: DataType) -> np.dtype[Any]:
    """Return the integers that have the bits of a type's numbers."""
    plain = dtype.encoding.dtype
    if dtype.typed is Typed.INTEGER and plain.kind in "iu":
        return plain
    return np.dtype(f"<u{max(dtype.encoding.bits // 8, 1)}")


def _narrowed(
    chunk: NDArray[np.uint64],
    dtype: DataType,
    store: np.dtype[Any],
    message: Message,
    name: str,
) -> NDArray[Any]:
    # An int32 field keeps the low 32 bits of its varint (the documentation's "Updating A Message
    # Type"); its negative numbers come with 64.
    integers: NDArray[Any] = chunk
    if dtype.field == "int32_data":
        integers = chunk.astype(np.uint32).view(np.int32)
    elif dtype.field == "int64_data":
        integers = chunk.view(np.int64)
    low, high = _range(dtype)
    misfits = (integers < low) | (integers > high)
    if misfits.any():
        raise InvalidFile(
            f"a number is none of type {dtype.name}",
            rule="value-range",
            path=message.path,
            tensor=name,
            got=int(integers[misfits][0]),
            expected=f"{low} to {high}",
        )
    return integers.astype(store)


def _range(dtype: DataType) -> tuple[int, int]:
    if dtype.name == "BOOL":
        return 0, 1
    bits = 8 if dtype.typed is Typed.PACKED else dtype.encoding.bits
    # Bits may come as an unsigned or a signed number.
    signed = (dtype.typed is not Typed.INTEGER and bits >= 8) or dtype.encoding.dtype.kind == "i"
    unsigned = dtype.typed is not Typed.INTEGER or dtype.encoding.dtype.kind == "u"
    return -(1 << bits - 1) if signed else 0, (1 << bits) - 1 if unsigned else (1 << bits - 1) - 1


def _bytes(buffer: memoryview | bytes) -> NDArray[np.uint8]:
    return np.frombuffer(buffer, np.uint8)
