"""The wire format and the numbers in it, against Google's own implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from weighbridge.errors import InvalidFile
from weighbridge.formats.onnx import values
from weighbridge.formats.onnx.values import Numbers, decode_varints
from weighbridge.protobuf import (
    FIXED32,
    VARINT,
    Message,
    bytes_field,
    number_field,
    signed,
    varint,
)

if TYPE_CHECKING:
    from collections.abc import Callable

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def message(content: bytes) -> Message:
    return Message(memoryview(content), "x.onnx")


def numbers(content: bytes, number: int, wire: int) -> Numbers:
    outer = message(content)
    found = Numbers(outer, wire)
    for field in outer:
        if field.number == number:
            found.add(field)
    return found


@given(INT64)
def test_a_varint_is_what_protobuf_writes(value: int) -> None:
    expected = onnx.OperatorSetIdProto(version=value).SerializeToString()
    assert number_field(2, value) == expected
    (field,) = message(expected)
    assert signed(field.value) == value


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=50))
def test_packed_varints_decode(expected: list[int]) -> None:
    content = b"".join(map(varint, expected))
    decoded, used = decode_varints(np.frombuffer(content, np.uint8))
    assert decoded is not None
    assert (decoded.tolist(), used) == (expected, len(content))


@pytest.mark.parametrize("chunk", [10, 11, 64])
@given(st.lists(INT64, max_size=60), st.data())
def test_numbers_are_found_however_they_are_written(
    chunk: int, expected: list[int], data: st.DataObject
) -> None:
    """In packed fields, in fields of one number, and in turns; over the borders of chunks."""
    content, rest = b"", list(expected)
    while rest:
        many = data.draw(st.integers(1, len(rest)))
        packed = b"".join(map(varint, rest[:many]))
        single = b"".join(number_field(7, value) for value in rest[:many])
        content += data.draw(st.sampled_from([bytes_field(7, packed), single]))
        content += data.draw(st.sampled_from([b"", number_field(2, 7), bytes_field(7, b"")]))
        rest = rest[many:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "CHUNK", chunk)
        found = numbers(content, 7, VARINT)
        assert found.count() == len(expected)
        decoded = [int(v) for piece in found.varints() for v in piece.view(np.int64)]
    assert decoded == expected == list(onnx.TensorProto.FromString(content).int64_data)


@given(st.lists(st.floats(width=32), max_size=20), st.booleans())
def test_fixed_numbers_lose_their_tags(expected: list[float], split: bool) -> None:
    raw = np.array(expected, "<f4")
    single = b"".join(b"\x25" + value.tobytes() for value in raw)
    content = single if split else bytes_field(4, raw.tobytes())
    assert numbers(content, 4, FIXED32).fixed().tobytes() == raw.tobytes()


def test_many_numbers_in_fields_of_their_own_are_one_run() -> None:
    found = numbers(number_field(7, 300) * 1000, 7, VARINT)
    assert len(found.runs) == 1
    assert found.count() == 1000


def test_numbers_in_too_many_pieces_are_refused() -> None:
    pieces = bytes_field(7, b"\x01") * 5000
    with pytest.raises(InvalidFile) as caught:
        numbers(pieces, 7, VARINT)
    assert caught.value.rule == "fragments"
    assert numbers(pieces[: 3 * 4000], 7, VARINT).count() == 4000


MALFORMED: dict[str, tuple[bytes, str]] = {
    "field number 0": (b"\x00\x01", "field-tag"),
    "field number too large": (varint(1 << 35 | VARINT) + b"\x01", "field-tag"),
    "group begins": (b"\x0b", "wire-type"),
    "group ends": (b"\x0c", "wire-type"),
    "wire type 6": (b"\x0e", "wire-type"),
    "wire type 7": (b"\x0f", "wire-type"),
    "varint of eleven bytes": (b"\x08" + b"\x80" * 10 + b"\x01", "varint"),
    "varint of 65 bits": (b"\x08" + b"\xff" * 9 + b"\x02", "varint"),
    "tag of eleven bytes": (b"\xff" * 11, "varint"),
    "ends in a tag": (b"\x88", "truncated"),
    "ends after a tag": (b"\x08", "truncated"),
    "ends in a varint": (b"\x08\x80", "truncated"),
    "ends in a fixed32": (b"\x0d\x00\x00\x00", "truncated"),
    "ends in a fixed64": (b"\x09" + bytes(7), "truncated"),
    "ends before a length": (b"\x0a", "truncated"),
    "ends in bytes": (b"\x0a\x05abcd", "truncated"),
    "length of 2**64 - 1": (b"\x0a" + varint(-1), "truncated"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_messages_are_refused_by_rule(case: str) -> None:
    content, rule = MALFORMED[case]
    with pytest.raises(InvalidFile) as caught:
        list(message(content))
    assert caught.value.rule == rule
    with pytest.raises(InvalidFile) as caught:
        list(Message(memoryview(content + bytes(50)), "x.onnx", 0, len(content)))
    assert caught.value.rule == rule.replace("truncated", "overrun")


REFUSED: dict[str, tuple[bytes, Callable[[Message], Any], str]] = {
    "text that is none": (b"\x0a\x01\xff", lambda m: m.text(next(iter(m))), "utf-8"),
    "text that is a number": (b"\x08\x01", lambda m: m.text(next(iter(m))), "wire-type"),
    "message that is a number": (b"\x08\x01", lambda m: m.message(next(iter(m))), "wire-type"),
    "integers that are a fixed32": (
        b"\x0d\x00\x00\x00\x00",
        lambda m: list(m.integers(next(iter(m)))),
        "wire-type",
    ),
    "packed integers that end inside one": (
        b"\x0a\x02\x01\x80",
        lambda m: list(m.integers(next(iter(m)))),
        "truncated",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_fields_of_the_wrong_kind_are_refused(case: str) -> None:
    content, use, rule = REFUSED[case]
    with pytest.raises(InvalidFile) as caught:
        use(message(content))
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (bytes_field(7, b"\x01\x80"), "overrun"),
        (b"\x3d" + bytes(4), "wire-type"),
        (bytes_field(7, b"\xff" * 9 + b"\x02"), "varint"),
        (bytes_field(7, b"\xff" * 30 + b"\x01"), "varint"),
    ],
)
def test_packed_numbers_are_checked(content: bytes, rule: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        list(numbers(content, 7, VARINT).varints())
    assert caught.value.rule == rule


def test_packed_fixed_numbers_are_whole() -> None:
    with pytest.raises(InvalidFile) as caught:
        numbers(bytes_field(4, bytes(7)), 4, FIXED32)
    assert caught.value.rule == "overrun"


@given(st.binary(max_size=60))
def test_what_is_accepted_protobuf_accepts(content: bytes) -> None:
    try:
        fields = list(message(content))
    except InvalidFile:
        return
    assume(all(field.number > 2 for field in fields))  # these would have to be text
    onnx.StringStringEntryProto.FromString(content)
