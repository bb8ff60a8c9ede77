"""The compiled encoders: the same bytes as NumPy's, no fused arithmetic, a cache that is right."""

from __future__ import annotations

import importlib.util
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.tree import run_python

from weighbridge.errors import InvalidInput
from weighbridge.kernels import encode, simd, target
from weighbridge.kernels.ggml import BLOCKED, iencoders, kencoders, mencoders

if TYPE_CHECKING:
    from weighbridge.encoding import Blocked

BODIES = {
    "q2_k": kencoders.q2_k,
    "q3_k": kencoders.q3_k,
    "q4_k": kencoders.q4_k,
    "q5_k": kencoders.q5_k,
    "q6_k": kencoders.q6_k,
    "iq4_nl": iencoders.iq4_nl,
    "iq4_xs": iencoders.iq4_xs,
    "iq2_s": iencoders.iq2_s,
    "iq3_xxs": iencoders.iq3_xxs,
    "iq3_s": iencoders.iq3_s,
    "nvfp4": mencoders.nvfp4,
}
GRIDS = ("iq2_s", "iq3_xxs", "iq3_s")


def in_numpy(name: str, values: np.ndarray) -> bytes:
    data = np.zeros((len(values), BLOCKED[name].grain_bytes), np.uint8)
    assert not target.in_numpy(BODIES[name], values, data, name if name in GRIDS else "")
    return data.tobytes()


def values_of(encoding: Blocked, count: int) -> np.ndarray:
    """Return blocks of all magnitudes, among them zeros, denormals and huge values."""
    random = np.random.default_rng(count)
    values = random.standard_normal((count, encoding.grain))
    powers = (-45, 10 if encoding.name in GRIDS else 38)
    values *= 10.0 ** random.integers(*powers, (count, encoding.grain // 16)).repeat(16, axis=1)
    values[: count // 3] = random.standard_normal((count // 3, encoding.grain))
    values[::7] *= random.uniform(0, 1, values[::7].shape) < 0.1
    return values.astype(np.float32)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 500])
@pytest.mark.parametrize("name", BODIES)
def test_compiled_as_in_numpy(name: str, count: int) -> None:
    encoding = BLOCKED[name]
    values = values_of(encoding, count)
    assert encode(encoding, values).tobytes() == in_numpy(name, values)
    assert target._kernels[name]


@pytest.mark.parametrize("name", BODIES)
def test_no_blocks(name: str) -> None:
    assert encode(BLOCKED[name], np.empty((0, 256), np.float32)).size == 0


@pytest.mark.parametrize("name", ["q3_k", "q4_k", "q6_k", "iq4_nl"])
def test_multiplies_and_adds_are_not_fused(monkeypatch, tmp_path, name: str) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path))
    encoding = BLOCKED[name]
    kernel = simd.Kernel(BODIES[name], encoding.grain, encoding.grain_bytes)
    code = "".join(kernel.dispatcher.inspect_asm().values())
    assert "mulps" in code or "fmul" in code
    assert not re.search(r"\bv?fn?m(add|sub)|\bfml[as]\b", code)


@pytest.mark.parametrize("name", ["q4_k", "iq4_nl"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finds_what_is_not_finite(name: str, bad: float) -> None:
    encoding = BLOCKED[name]
    values = values_of(encoding, 40)
    for at in [(0, 0), (17, 3), (39, encoding.grain - 1)]:
        spoilt = values.copy()
        spoilt[at] = bad
        with pytest.raises(InvalidInput) as raised:
            encode(encoding, spoilt)
        assert raised.value.rule == "not-finite"


@pytest.mark.parametrize("kernels", ["compiled", "numpy"])
def test_refuses_what_ggml_stops_on(monkeypatch, kernels: str) -> None:
    # No point of the grid is nearest when all distances are infinite: ggml aborts.
    if kernels == "numpy":
        monkeypatch.setattr(target, "_kernels", {"iq3_s": None})
    values = np.random.default_rng(0).standard_normal((20, 256)).astype(np.float32)
    encode(BLOCKED["iq3_s"], values)
    values[17] *= 1e25
    with pytest.raises(InvalidInput) as raised:
        encode(BLOCKED["iq3_s"], values)
    assert raised.value.rule == "overflow"


def test_threads_share_a_kernel() -> None:
    values = values_of(BLOCKED["q6_k"], 400)
    expected = encode(BLOCKED["q6_k"], values).tobytes()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: encode(BLOCKED["q6_k"], values).tobytes(), range(8)))
    assert set(results) == {expected}


def test_the_cache_folder_is_named_for_the_sources(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path))
    folder = simd.cache_folder()
    assert folder.is_relative_to(tmp_path)
    monkeypatch.setattr(simd, "source_hash", lambda: "other")
    assert simd.cache_folder() == folder.parent / "other"


def test_later_processes_load_what_was_compiled(tmp_path) -> None:
    script = f"""
import os
os.environ["WEIGHBRIDGE_CACHE"] = {str(tmp_path)!r}
import numpy as np
from weighbridge.kernels import encode, target
from weighbridge.kernels.ggml import BLOCKED, iencoders
encode(BLOCKED["iq4_nl"], np.ones((1, 32), np.float32))
stats = target.compiled(BLOCKED["iq4_nl"], iencoders.iq4_nl).dispatcher.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    assert run_python(script).split() == ["0", "1"]
    assert run_python(script).split() == ["1", "0"]


def test_a_cache_that_cannot_be_written_is_none(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "file"))
    encode_blocks = simd.Kernel(iencoders.iq4_nl, 32, 18)
    data, none = np.empty((1, 18), np.uint8), np.empty(0, np.float32)
    assert not encode_blocks(np.ones((1, 32), np.float32), data, none, none)
    assert data.tobytes() == encode(BLOCKED["iq4_nl"], np.ones((1, 32), np.float32)).tobytes()


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_kernels", {})


@pytest.mark.usefixtures("no_kernels")
def test_without_numba_numpy_does_it_and_says_so_once(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "weighbridge.kernels.simd", None)
    monkeypatch.delattr("weighbridge.kernels.simd", raising=False)
    values = values_of(BLOCKED["iq4_nl"], 3)
    with pytest.warns(target.SlowKernelsWarning, match=r"weighbridge\[fast\]"):
        data = encode(BLOCKED["iq4_nl"], values)
    assert encode(BLOCKED["iq4_xs"], np.ones((1, 256), np.float32)).size == 136
    assert data.tobytes() == in_numpy("iq4_nl", values)


@pytest.mark.usefixtures("no_kernels")
def test_numpy_may_be_asked_for(monkeypatch) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_KERNELS", "numpy")
    assert encode(BLOCKED["iq4_nl"], np.ones((1, 32), np.float32)).size == 18
    assert target._kernels == {"iq4_nl": None}
    with pytest.raises(InvalidInput):
        encode(BLOCKED["iq4_nl"], np.full((1, 32), np.nan, np.float32))


def test_casts_and_simple_encoders_wait_for_no_compiler() -> None:
    script = """
import sys
import numpy as np
import weighbridge
from weighbridge.encoding import DENSE
from weighbridge.kernels import encode
from weighbridge.kernels.ggml import BLOCKED
values = np.ones((4, 256), np.float32)
for encoding in (DENSE["f16"], DENSE["bf16"], BLOCKED["q8_0"], BLOCKED["q4_0"]):
    encode(encoding, values)
print("numba" in sys.modules, "llvmlite" in sys.modules)
"""
    assert importlib.util.find_spec("numba")
    assert run_python(script).split() == ["False", "False"]
