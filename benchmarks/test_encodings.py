"""The table of encodings can be made, and all sides make the same."""

from __future__ import annotations

import numpy as np
import pytest

from weighbridge.benchmarks.encodings import (
    CASTS,
    encodable,
    measure_cast,
    measure_decode,
    measure_encode,
)

VALUES = np.random.default_rng(0).standard_normal((4, 1024)).astype(np.float32)


@pytest.mark.parametrize("name", ["q4_k", "q8_0", "iq3_s", "nvfp4"])
def test_measures_the_same_results(name: str) -> None:
    assert name in encodable()
    for measure in (measure_encode, measure_decode):
        speed = measure(name, VALUES, rounds=1)
        assert speed.same
        assert speed.ours > 0


@pytest.mark.parametrize(("source", "to"), CASTS)
def test_measures_the_same_casts(source: str, to: str) -> None:
    assert measure_cast(source, to, VALUES, rounds=1).same
