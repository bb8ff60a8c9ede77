"""The table of encodings can be made, and both sides make the same."""

from __future__ import annotations

import numpy as np
import pytest

from weighbridge.benchmarks.encodings import measurable, measure


@pytest.mark.parametrize("name", ["q4_k", "q8_0", "iq3_s", "nvfp4"])
def test_measures_the_same_results(name: str) -> None:
    values = np.random.default_rng(0).standard_normal((4, 1024)).astype(np.float32)
    assert name in measurable()
    for speed in measure(name, values, rounds=1):
        assert speed.same
        assert speed.ours > 0
