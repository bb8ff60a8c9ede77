"""Bounded reads: what does not fit is refused, and no other exception escapes."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.checked import LIMIT, Reader, product
from weighbridge.errors import InvalidFile
from weighbridge.metadata import LazyStrings, Value, array, scalar, string

INTEGERS = "bBhHiIqQ"


def reader(content: bytes, order: str = "<") -> Reader:
    return Reader(memoryview(content), "a file", order=order)


def rule_of(read: object, *arguments: object) -> str:
    with pytest.raises(InvalidFile) as caught:
        read(*arguments)
    assert caught.value.path == "a file"
    return caught.value.rule


@given(st.binary(max_size=40), st.text(INTEGERS + "fd?", max_size=5), st.sampled_from("<>"))
def test_numbers_are_those_of_struct(content: bytes, codes: str, order: str) -> None:
    layout = order + codes
    size = struct.calcsize(layout)
    if size > len(content):
        assert rule_of(reader(content, order).numbers, codes) == "truncated"
        return
    cursor = reader(content, order)
    assert repr(cursor.numbers(codes)) == repr(struct.unpack(layout, content[:size]))
    assert cursor.remaining == len(content) - size


@given(st.text(max_size=20), st.sampled_from("<>"), st.binary(max_size=4))
def test_text_comes_back(text: str, order: str, more: bytes) -> None:
    raw = text.encode()
    cursor = reader(struct.pack(f"{order}Q", len(raw)) + raw + more, order)
    assert cursor.text("Q") == text
    assert bytes(cursor.take(len(more))) == more


@given(st.binary(max_size=30), st.sampled_from(INTEGERS), st.sampled_from("<>"))
def test_any_bytes_are_text_or_refused(content: bytes, code: str, order: str) -> None:
    with suppress(InvalidFile):
        assert isinstance(reader(content, order).text(code), str)


@pytest.mark.parametrize(
    ("content", "code", "smallest", "rule"),
    [
        (b"\x02aaaa", "B", 2, None),
        (b"\x03aaaa", "B", 2, "count"),
        (b"\xffaaaa", "b", 1, "count"),
        (b"\xff" * 8 + b"a", "Q", 1, "count"),
        (b"\xff" * 7, "Q", 1, "truncated"),
        (b"\x00", "B", 8, None),
    ],
)
def test_a_count_fits_what_follows(
    content: bytes, code: str, smallest: int, rule: str | None
) -> None:
    if rule:
        assert rule_of(reader(content).count, code, smallest) == rule
    else:
        assert reader(content).count(code, smallest) == content[0]


@pytest.mark.parametrize("length", [-1, 6, 1 << 70])
def test_more_than_there_is_cannot_be_taken(length: int) -> None:
    assert rule_of(reader(b"12345").take, length) == "truncated"


@pytest.mark.parametrize(
    ("factors", "expected"),
    [([], 1), ([2, 3], 6), ([0, 5], 0), ([LIMIT], LIMIT), ([1 << 58, 0], 0)],
)
def test_products(factors: list[int], expected: int) -> None:
    assert product(factors, path="a file") == expected


@pytest.mark.parametrize(
    "factors",
    [
        [-1],
        [2, -3],
        [-1, -1],
        [1 << 32, 1 << 31],
        [1 << 64] * 60,
        [0, 1 << 60],
        [-1, 0],
        [1 << 60, 0],
    ],
)
def test_products_that_nothing_can_hold(factors: list[int]) -> None:
    def multiply() -> None:
        product(factors, path="a file", tensor="x")

    assert rule_of(multiply) == "shape-overflow"


STRINGS = ["", "a", "重み", "b" * 300]


def test_lazy_strings_are_a_sequence() -> None:
    raw = [text.encode() for text in STRINGS]
    offsets = [sum(map(len, raw[:n])) for n in range(len(raw))]
    lazy = LazyStrings(memoryview(b"".join(raw)), offsets, list(map(len, raw)))
    assert list(lazy) == [lazy[n] for n in range(4)] == lazy[:] == STRINGS
    assert (lazy[-1], lazy[1:3], lazy[::-2]) == (STRINGS[-1], STRINGS[1:3], STRINGS[::-2])
    assert lazy.raw(2) == raw[2]
    assert array("string", lazy).plain() == STRINGS
    with pytest.raises(IndexError):
        lazy[4]


def test_values_know_their_type() -> None:
    assert scalar("u32", 1) != scalar("i32", 1)
    nested = array("array", [array("u8", [1]), array("string", [])])
    assert nested.plain() == [[1], []]
    assert string("") == Value("string", "")
