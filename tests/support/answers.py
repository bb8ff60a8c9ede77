"""Answers of pipelines, compared: words exactly, numbers closely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

CLOSE = 1e-4


def assert_same(got: Any, expected: Any, *, close: float = CLOSE) -> None:
    """Assert that two answers say the same."""
    if isinstance(expected, dict):
        assert set(got) == set(expected)
        for name, value in expected.items():
            assert_same(got[name], value, close=close)
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other, close=close)
    elif isinstance(expected, float | np.floating):
        assert got == pytest.approx(expected, abs=close)
    else:
        assert got == expected
