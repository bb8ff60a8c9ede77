"""Amounts of bytes: read as people write them, and written so."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.errors import InvalidInput
from weighbridge.sizes import human, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("500MB", 500_000_000),
        ("5GB", 5_000_000_000),
        ("5g", 5_000_000_000),
        ("1.5 kB", 1500),
        (" 64 MiB ", 64 << 20),
        ("2Ti", 2 << 40),
        ("0.3kb", 300),
        (2**60 + 1, 2**60 + 1),
    ],
)
def test_amounts_are_understood(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "0.0GB", "GB", "1 XB", "1e9", "1,5GB", "nan", "inf", "5 GB B", "9" * 400],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_size(text)
    assert caught.value.rule == "size"


@given(st.integers(0, 10**15))
def test_amounts_are_written_to_three_digits_or_more(size: int) -> None:
    text = human(size)
    assert len(text) <= 9
    assert size < 1 or abs(parse_size(text) - size) <= size * 0.05 + 0.5


@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        assert parse_size(text) > 0
