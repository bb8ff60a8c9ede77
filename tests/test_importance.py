"""Encoding with importance weights: ggml's bytes, from NumPy and from compiled code; refusals."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from support import ggml, packages
from support.encoders import MINILM
from support.gguf_files import smollm2
from test_kernels_compiled import assert_not_fused
from test_kernels_ggml import DISTRIBUTIONS, GRIDS, NEGATIVE_ZEROS, assert_same_bytes

import weighbridge as wb
from weighbridge import coding
from weighbridge.encoding import DENSE
from weighbridge.kernels import encode, simd, target
from weighbridge.kernels.ggml import BLOCKED, GGML, iq4encoders, kweighted

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHTED = [name for name, codec in GGML.items() if codec.weighted]
IGNORED = ["q8_0", "mxfp4", "nvfp4", "tq1_0", "tq2_0"]
BODIES = {
    "q2_k": kweighted.weighted_q2_k,
    "q3_k": kweighted.weighted_q3_k,
    "q4_k": kweighted.weighted_q4_k,
    "iq4_xs": iq4encoders.weighted_iq4_xs,
}

KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "random": lambda uniform: uniform,
    "ones": np.ones_like,
    "zeros": np.zeros_like,
    "groups of zeros": lambda uniform: uniform * (np.arange(uniform.size) // 16 % 3 > 0),
    "many zeros": lambda uniform: uniform * (uniform < 0.2),
    "tiny": lambda uniform: uniform * 1e-38,
    "huge": lambda uniform: uniform * 1e38,
    "spiky": lambda uniform: uniform**40,
}


def weights(count: int, kind: str = "random") -> np.ndarray:
    """Return importance weights for `count` columns."""
    return KINDS[kind](np.random.default_rng(count).uniform(0, 1, count)).astype(np.float32)


@pytest.fixture(params=["compiled", "numpy"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have compiled code or NumPy run the bodies written in lanes."""
    if request.param == "numpy":
        monkeypatch.setattr(target, "_kernels", {})
        monkeypatch.setenv("WEIGHBRIDGE_KERNELS", "numpy")


def in_range(rows: np.ndarray, importance: np.ndarray) -> bool:
    """Tell whether sums of weighted squares are finite: where there is a grid, ggml stops else."""
    largest = float(np.abs(rows).max())
    return largest < 1e14 and 2 * largest * float(importance.max()) * 15**2 * 32 < 3e38


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WEIGHTED)
def test_encodes_as_c_does(name: str, kind: str) -> None:
    importance = weights(256, kind)
    kinds = {**DISTRIBUTIONS, **NEGATIVE_ZEROS}
    if name in GRIDS:
        kinds = {each: rows for each, rows in kinds.items() if in_range(rows, importance)}
    kinds = {each: rows[:16] for each, rows in kinds.items()}
    values = np.concatenate(list(kinds.values()))
    data = encode(BLOCKED[name], values, importance)
    assert_same_bytes(data, ggml.encode(name, values, data.size, importance), kinds)


@functools.cache
def real_rows(model: str) -> np.ndarray:
    if model == "SmolLM2":
        tensors = gguf.GGUFReader(smollm2()).tensors
        found = next(tensor for tensor in tensors if tensor.name == "blk.3.ffn_down.weight")
        return quants.dequantize(found.data[:100], found.tensor_type)
    tensors = wb.open(packages.folder(MINILM) / "model").tensors
    return tensors["encoder.layer.3.output.dense.weight"].values()[:100]


@pytest.mark.parametrize("kind", ["random", "spiky"])
@pytest.mark.parametrize("model", ["SmolLM2", "MiniLM"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_encodes_real_rows_as_c_does(name: str, model: str, kind: str) -> None:
    values = real_rows(model)
    importance = weights(values.shape[1], kind)
    packed = wb.encode(values, name, importance)
    assert packed.tobytes() == ggml.encode(name, values, packed.size, importance).tobytes()


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (3, 5), (40, 1), (7, 16), (2, 31)])
@pytest.mark.parametrize("name", WEIGHTED)
def test_rows_of_any_number_of_blocks(name: str, shape: tuple[int, int]) -> None:
    rows, blocks = shape
    length = blocks * BLOCKED[name].grain
    values = np.random.default_rng(blocks).standard_normal((rows, length)).astype(np.float32)
    data = encode(BLOCKED[name], values, weights(length))
    assert data.tobytes() == ggml.encode(name, values, data.size, weights(length)).tobytes()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["Q4_K", "IQ4_NL"])
def test_a_stack_has_weights_for_each_matrix(
    monkeypatch: pytest.MonkeyPatch, name: str, threads: int
) -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((2, 3, 20, 768)).astype(np.float32)
    importance = random.uniform(0, 1, (2, 3, 768))
    monkeypatch.setattr(coding, "PIECE", 5000)
    packed = wb.encode(values, name, importance, threads=threads)
    for i in np.ndindex(2, 3):
        assert np.array_equal(packed[i], wb.encode(values[i], name, importance[i]))
    shared = wb.encode(values, name, importance[1, 2], threads=threads)
    assert np.array_equal(shared[1, 2], packed[1, 2])
    assert not np.array_equal(shared[0, 0], packed[0, 0])
    assert np.array_equal(encode(BLOCKED[name.lower()], values, importance), packed.reshape(-1))


@pytest.mark.parametrize("shape", [(0, 256), (3, 0), (0,), (0, 4, 256)])
def test_nothing(shape: tuple[int, ...]) -> None:
    importance = np.ones((*shape[:-2], shape[-1]))
    assert wb.encode(np.zeros(shape, np.float32), "Q4_K", importance).size == 0


def test_weights_may_be_a_torch_tensor_and_of_any_dtype() -> None:
    values = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    importance = np.arange(512)
    expected = wb.encode(values, "Q5_K", importance.astype(np.float32))
    assert np.array_equal(wb.encode(values, "Q5_K", importance), expected)
    assert np.array_equal(wb.encode(values, "Q5_K", torch.arange(512).half()), expected)


@pytest.mark.parametrize("name", IGNORED)
def test_ignores_weights_where_ggml_does(name: str) -> None:
    values = np.concatenate(list(DISTRIBUTIONS.values()))
    data = encode(BLOCKED[name], values, weights(256))
    assert data.tobytes() == encode(BLOCKED[name], values).tobytes()
    assert data.tobytes() == ggml.encode(name, values, data.size, weights(256)).tobytes()


def test_casts_ignore_weights() -> None:
    values = np.linspace(-1, 1, 99, dtype=np.float32)
    assert np.array_equal(encode(DENSE["f16"], values, weights(99)), encode(DENSE["f16"], values))


REFUSED = {
    "too few": np.ones(255),
    "a row too many": np.ones((2, 256)),
    "for each value": np.ones((2, 3, 256)),
    "negative": np.where(np.arange(256) == 9, -1e-9, 1),
    "infinite": np.where(np.arange(256) == 9, math.inf, 1),
    "no number": np.where(np.arange(256) == 9, math.nan, 1),
    "no float32": np.full(256, 1e39),
}


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "BF16"])
@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_are_none(case: str, name: str) -> None:
    values = np.ones((4, 3, 256), np.float32)
    with pytest.raises(wb.InvalidInput) as raised:
        wb.encode(values, name, REFUSED[case])
    assert raised.value.rule == "importance"


def test_an_error_says_what_shape_is_wanted() -> None:
    with pytest.raises(wb.InvalidInput, match=r"expected shape \[256\] or shape \[4, 256\]"):
        wb.encode(np.ones((4, 3, 256), np.float32), "Q4_K", np.ones(255))


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("name", WEIGHTED)
def test_values_have_to_be_finite(name: str) -> None:
    values = np.ones((2, 256), np.float32)
    values[1, 77] = math.nan
    with pytest.raises(wb.InvalidInput) as raised:
        encode(BLOCKED[name], values, np.zeros(256))
    assert raised.value.rule == "not-finite"


@pytest.mark.parametrize("name", BODIES)
def test_multiplies_and_adds_are_not_fused(monkeypatch, tmp_path, name: str) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path))
    encoding = BLOCKED[name]
    kernel = simd.Kernel(BODIES[name], encoding.grain, encoding.grain_bytes, weighted=True)
    assert_not_fused("".join(kernel.dispatcher.inspect_asm().values()))


def test_weights_lessen_the_error_of_what_counts() -> None:
    values, importance = real_rows("MiniLM"), weights(1536, "spiky")
    for name in WEIGHTED:
        errors = [
            np.square(wb.decode(wb.encode(values, name, given), name) - values) @ importance
            for given in (importance, np.ones_like(importance))
        ]
        assert errors[0].sum() < errors[1].sum()
