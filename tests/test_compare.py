"""Comparing: what differs is found and measured, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighbridge as wb
from weighbridge import compare
from weighbridge.compare import Difference
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.recode import Recoded
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from pathlib import Path

NAN, INF = math.nan, math.inf


def compared(a: np.ndarray, b: np.ndarray) -> Difference:
    return compare._compared("x", from_array("x", a), from_array("x", b))


CASES = [
    ("f4", [1, 2, NAN, INF], [1, 2, NAN, INF], 0.0),
    ("f4", [0.0], [-0.0], 0.0),
    ("f4", [1, 2], [1, 2.5], 0.5),
    ("f4", [NAN, 1], [0, 1], NAN),
    ("f4", [INF, 1], [-INF, 1], INF),
    ("f4", [INF, 1], [3, 1], INF),
    ("f8", [1e200, 1], [-1e200, 1], 2e200),
    ("i8", [2**53, 0], [2**53 + 1, 0], 1.0),
    ("i8", [-(2**63)], [2**63 - 1], float(2**64 - 1)),
    ("u8", [0], [2**64 - 1], float(2**64 - 1)),
    ("u1", [1, 255], [2, 254], 1.0),
    ("?", [True, False], [True, True], 1.0),
    ("c8", [1 + 1j], [1 + 1j], 0.0),
    ("c8", [3 + 4j], [0], 5.0),
    ("f4", [], [], 0.0),
    ("f4", 3, 1, 2.0),
    ("i8", 3, 1, 2.0),
]


@pytest.mark.parametrize(("dtype", "a", "b", "worst"), CASES, ids=str)
def test_the_largest_difference(dtype: str, a: list | int, b: list | int, worst: float) -> None:
    found = compared(np.array(a, dtype), np.array(b, dtype))
    assert found.max_error == worst or (math.isnan(found.max_error) and math.isnan(worst))
    assert found.equal == (worst == 0)
    assert found.within(1.0) == (worst <= 1)
    assert found.snr is not None


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.floats(-1, 1, width=32),
)
def test_figures_are_those_of_numpy(values: list[float], error: float) -> None:
    a = np.array(values, np.float32)
    b = a + np.float32(error)
    found = compared(a, b)
    apart = a.astype(float) - b
    assert found.max_error == np.abs(apart).max()
    assert found.rms_error == pytest.approx(np.sqrt(np.mean(apart**2)))
    if found.rms_error and a.any():
        ratio = 10 * np.log10(np.mean(a.astype(float) ** 2) / np.mean(apart**2))
        assert found.snr == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("signal", "rms", "expected"),
    [(1, 0, INF), (0, 1, -INF), (1, INF, -INF), (1, NAN, NAN), (10, 1, 20.0)],
)
def test_the_ratio_of_signal_to_noise(signal: float, rms: float, expected: float) -> None:
    snr = Difference("x", max_error=rms, rms_error=rms, signal=signal).snr
    assert snr == expected or (math.isnan(snr) and math.isnan(expected))


def test_pieces_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((7, 64), np.float32), rng.random((7, 64), np.float32)
    whole = compared(a, b)
    monkeypatch.setattr(compare, "PIECE", 40)
    pieces = compared(a, b)
    assert pieces == replace(
        whole, rms_error=pytest.approx(whole.rms_error), signal=pytest.approx(whole.signal)
    )
    q8_0 = Recoded(from_array("x", a), BLOCKED["q8_0"])
    assert compare._compared("x", q8_0, from_array("x", a)).snr > 40


def test_every_tensor_of_either_is_told(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    same, zeros = np.ones(3, np.float32), np.zeros((2, 3), np.float32)
    wb.save_file({"same": same, "shape": zeros, "gone": same, "type": same}, one)
    rounded = same.astype(ml_dtypes.bfloat16)
    wb.save_file({"same": same, "shape": zeros.T, "new": same, "type": rounded}, two)
    told: list[tuple[str, int, int]] = []
    found = {d.name: d for d in wb.diff(one, two, progress=lambda *at: told.append(at))}
    assert {name: d.problem for name, d in found.items()} == {
        "gone": "only in A",
        "same": None,
        "shape": "shapes [2, 3] and [3, 2]",
        "type": None,
        "new": "only in B",
    }
    assert (found["type"].encodings, found["type"].equal) == (("F32", "BF16"), True)
    assert [at[1:] for at in told] == [(n, 5) for n in range(5)]
    assert not any(found[name].within(INF) for name in ("gone", "shape", "new"))
    assert math.isnan(found["gone"].snr)


def test_formats_are_compared_by_what_is_in_them(tmp_path: Path) -> None:
    wb.save_file({"x": np.ones((2, 64), np.float32)}, tmp_path / "a.safetensors")
    wb.save_file({"x": np.ones((2, 64), np.float32)}, tmp_path / "b.onnx")
    assert all(difference.equal for difference in wb.diff(*sorted(tmp_path.iterdir())))
