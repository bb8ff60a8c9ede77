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

from weighbridge.encoding import DENSE
from weighbridge.errors import InvalidInput
from weighbridge.kernels import (
    cast,
    codec_for,
    decode,
    encode,
    native,
    shortcuts,
    simd,
    simd_blocks,
    target,
)
from weighbridge.kernels import simd_decoders as decoders
from weighbridge.kernels import simd_packers as packers
from weighbridge.kernels.ggml import BLOCKED, iencoders, iq4encoders, kencoders, mencoders

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.encoding import Blocked

BODIES = {
    "q2_k": kencoders.q2_k,
    "q3_k": kencoders.q3_k,
    "q4_k": kencoders.q4_k,
    "q5_k": kencoders.q5_k,
    "q6_k": kencoders.q6_k,
    "iq4_nl": iq4encoders.iq4_nl,
    "iq4_xs": iq4encoders.iq4_xs,
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
    assert_not_fused("".join(kernel.dispatcher.inspect_asm().values()))


@pytest.mark.parametrize("name", ["q4_1", "q2_k", "q5_k", "tq1_0"])
def test_decoders_do_not_fuse_either(name: str) -> None:
    code = code_of_decoder(name)
    linker = native.linker()
    assert_not_fused(linker.machine.emit_assembly(linker.module(code, name)))


def code_of_decoder(name: str) -> native.Code:
    encoding = BLOCKED[name]
    signature = native.Signature("u1", encoding.grain_bytes, "f4", encoding.grain)
    code = simd_blocks.decoder(encoding, "f32", f"decode_{name}_f32", signature)
    assert code is not None
    return code


def assert_not_fused(code: str) -> None:
    assert "mulps" in code or "fmul" in code
    assert not re.search(r"\bv?fn?m(add|sub)|\bfml[as]\b", code)


def test_compiled_code_decodes_all_types() -> None:
    assert set(decoders.BODIES) == set(BLOCKED)
    assert set(packers.BODIES) == shortcuts._PACKED


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("count", [1, 3, 500])
def test_decodes_as_in_numpy(monkeypatch, name: str, count: int) -> None:
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    encoding = BLOCKED[name]
    # Bytes of a file cannot be written, and begin anywhere.
    data = memoryview(np.random.default_rng(count).bytes(1 + count * encoding.grain_bytes))[1:]
    shape = (count * encoding.grain,)
    codec = codec_for(name)
    expected = codec.decode(codec.blocks(data)).reshape(-1)
    got = decode(encoding, {"data": data}, shape)
    same = got.view(np.uint32) == expected.view(np.uint32)
    assert (same | (np.isnan(got) & np.isnan(expected))).all()
    assert shortcuts._ready[f"decode_{name}_f32"]


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_decodes_to_16_bits_as_in_numpy(monkeypatch, name: str, to: str) -> None:
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    data, singles = finite_blocks(name, to, 300)
    expected = in_numpy_only(monkeypatch, lambda: cast(singles, DENSE[to]))
    got = decode(BLOCKED[name], {"data": data}, singles.shape, to)
    assert got.tobytes() == expected.tobytes()
    assert decoded_at_once(name, data, to) == (True, expected.tobytes())


def decoded_at_once(name: str, data: bytes, to: str) -> tuple[bool, bytes]:
    encoding = BLOCKED[name]
    results = np.empty(len(data) // encoding.grain_bytes * encoding.grain, np.uint16)
    run = shortcuts.decoder(encoding, results.size, to)
    assert run is not None
    return run(np.frombuffer(data, np.uint8), results), results.tobytes()


def in_numpy_only(monkeypatch, call: Callable[[], np.ndarray]) -> np.ndarray:
    with monkeypatch.context() as patched:
        patched.setattr(shortcuts, "_in_time", lambda *_: None)
        return call()


def finite_blocks(name: str, to: str, count: int) -> tuple[bytes, np.ndarray]:
    """Return random blocks whose values all have a place in a type of 16 bits."""
    codec = codec_for(name)
    nbytes = codec.encoding.grain_bytes
    data = np.frombuffer(np.random.default_rng(1).bytes(40 * count * nbytes), np.uint8)
    with np.errstate(all="ignore"):
        values = codec.decode(codec.blocks(data))
        fits = (np.abs(values) < {"f16": 65000, "bf16": 3e38}[to]).all(axis=1)
    assert fits.sum() >= count
    return data.reshape(-1, nbytes)[fits][:count].tobytes(), values[fits][:count].reshape(-1)


@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_what_is_not_finite_is_looked_at(monkeypatch, to: str) -> None:
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    good, bad = (np.array([scale], np.float16).tobytes() + bytes([1] * 32) for scale in (1, np.inf))
    assert decoded_at_once("q8_0", good, to)[0]
    assert not decoded_at_once("q8_0", good + bad + good, to)[0]
    values = decode(BLOCKED["q8_0"], {"data": good + bad + good}, (96,), to).astype(np.float32)
    assert values.tolist() == [1] * 32 + [np.inf] * 32 + [1] * 32


def test_what_has_no_place_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    block = np.array([60000], np.float16).tobytes() + bytes([2] * 32)
    with pytest.raises(InvalidInput) as raised:
        decode(BLOCKED["q8_0"], {"data": block}, (32,), "f16")
    assert raised.value.rule == "overflow"


@pytest.mark.parametrize(("source", "to"), sorted(shortcuts._CASTS))
@pytest.mark.parametrize("count", [16, 17, 40_000])
def test_casts_as_in_numpy(monkeypatch, source: str, to: str, count: int) -> None:
    bits = np.random.default_rng(count).integers(0, 1 << 32, count, np.uint32)
    values = (bits if source == "f32" else bits.astype(np.uint16)).view(DENSE[source].dtype)
    with np.errstate(all="ignore"):
        values = values[np.isnan(values) | ~(np.abs(values.astype(np.float32)) > 65000)]
    values = np.resize(values, count)
    monkeypatch.setattr(shortcuts, "_in_time", lambda *_: None)
    expected = cast(values, DENSE[to])
    monkeypatch.undo()
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    values.flags.writeable = False
    assert cast(values, DENSE[to]).tobytes() == expected.tobytes()
    assert cast(values[::-1], DENSE[to]).tobytes() == expected[::-1].tobytes()


def unaligned(values: np.ndarray) -> np.ndarray:
    data = bytes(1) + values.tobytes()
    return np.frombuffer(data, np.uint8)[1:].view(values.dtype)


def test_values_need_not_be_aligned(monkeypatch) -> None:
    values = np.linspace(-1, 1, 320, dtype=np.float32)
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    for encoding in (BLOCKED["q8_0"], DENSE["bf16"]):
        assert encode(encoding, unaligned(values)).tobytes() == encode(encoding, values).tobytes()


def test_compiled_code_waits_until_there_is_enough_to_do(monkeypatch) -> None:
    monkeypatch.setattr(shortcuts, "_ready", {})
    monkeypatch.setattr(shortcuts, "_done", {})
    monkeypatch.setattr(shortcuts, "_enough", lambda: 100)
    values = np.ones((1, 64), np.float32)
    encode(BLOCKED["q8_0"], values)
    assert shortcuts._ready == {}
    encode(BLOCKED["q8_0"], values)
    assert list(shortcuts._ready) == ["pack_q8_0"]


def test_one_thread_waits_for_the_compiler_and_others_do_not(monkeypatch) -> None:
    monkeypatch.setattr(shortcuts, "_ready", {})
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    with shortcuts._loading:
        assert shortcuts.decoder(BLOCKED["q8_0"], 1) is None
    assert shortcuts.decoder(BLOCKED["q8_0"], 1)


@pytest.mark.parametrize("setting", ["numpy", "compiled"])
def test_either_may_be_asked_for(monkeypatch, setting: str) -> None:
    monkeypatch.setattr(shortcuts, "_ready", {})
    done = 1 << 40 if setting == "numpy" else 0
    monkeypatch.setattr(shortcuts, "_done", {"decode_q8_0_f32": done})
    monkeypatch.setenv("WEIGHBRIDGE_KERNELS", setting)
    assert (shortcuts.decoder(BLOCKED["q8_0"], 32) is None) == (setting == "numpy")


def test_without_numba_numpy_goes_on(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(shortcuts, "_ready", {})
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    monkeypatch.setitem(sys.modules, "weighbridge.kernels.simd_blocks", None)
    monkeypatch.delattr("weighbridge.kernels.simd_blocks")
    assert encode(BLOCKED["q8_0"], np.ones((1, 32), np.float32)).size == 34
    assert shortcuts._ready == {"pack_q8_0": None}


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
    folder = native.cache_folder()
    assert folder.is_relative_to(tmp_path)
    monkeypatch.setattr(native, "source_hash", lambda: "other")
    assert native.cache_folder() == folder.parent / "other"


KEPT = """
import os, sys
os.environ |= {"WEIGHBRIDGE_CACHE": sys.argv[1], "WEIGHBRIDGE_KERNELS": "compiled"}
import numpy as np
from weighbridge.kernels import decode, shortcuts
from weighbridge.kernels.ggml import BLOCKED
values = decode(BLOCKED["q8_0"], {"data": b"\\x00\\x3c" + bytes(range(32))}, (32,))
print(values[5], bool(shortcuts._ready["decode_q8_0_f32"]), "numba" in sys.modules)
"""


def test_later_processes_run_what_was_compiled_without_numba(tmp_path) -> None:
    assert run_python(KEPT, str(tmp_path)).split() == ["5.0", "True", "True"]
    assert run_python(KEPT, str(tmp_path)).split() == ["5.0", "True", "False"]
    (made,) = tmp_path.rglob("*.o")
    made.write_bytes(made.read_bytes()[:-1])
    assert run_python(KEPT, str(tmp_path)).split() == ["5.0", "True", "True"]


CALLING = """
declare void @elsewhere()
define i32 @run() {
  call void @elsewhere()
  ret i32 0
}
"""


def test_a_function_that_calls_others_is_not_kept() -> None:
    with pytest.raises(native.NotAlone, match="x calls elsewhere"):
        native.linker().module(native.Code(CALLING, "run"), "x")


def test_a_function_is_kept_under_its_name() -> None:
    module = native.linker().module(code_of_decoder("q4_k"), "q4_k")
    defined = {each.name for each in module.functions if not each.is_declaration}
    assert f"{native.ENTRY}q4_k" in defined


@pytest.mark.parametrize(
    ("source", "results"),
    [
        (np.zeros(34, np.uint8), np.zeros(31, np.float32)),
        (np.zeros(33, np.uint8), np.zeros(32, np.float32)),
        (np.zeros(68, np.uint8)[::2], np.zeros(32, np.float32)),
        (np.zeros(34, np.int8), np.zeros(32, np.float32)),
        (np.zeros(34, np.uint8), np.zeros(32, np.float64)),
    ],
)
def test_a_kernel_refuses_memory_that_does_not_fit(monkeypatch, source, results) -> None:
    monkeypatch.setattr(shortcuts, "_enough", lambda: 0)
    run = shortcuts.decoder(BLOCKED["q8_0"], 32)
    assert run is not None
    with pytest.raises(ValueError, match="a kernel takes"):
        run(source, results)


def test_later_processes_load_what_was_compiled(tmp_path) -> None:
    script = f"""
import os
os.environ["WEIGHBRIDGE_CACHE"] = {str(tmp_path)!r}
import numpy as np
from weighbridge.kernels import encode, target
from weighbridge.kernels.ggml import BLOCKED, iq4encoders
encode(BLOCKED["iq4_nl"], np.ones((1, 32), np.float32))
stats = target.compiled(BLOCKED["iq4_nl"], iq4encoders.iq4_nl).dispatcher.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    assert run_python(script).split() == ["0", "1"]
    assert run_python(script).split() == ["1", "0"]


@pytest.mark.parametrize("features", [(), ("avx2",)], ids=["none", "avx2"])
@pytest.mark.parametrize("name", ["iq3_s", pytest.param("iq2_s", marks=pytest.mark.long)])
def test_processors_that_permute_less_make_the_same_bytes(tmp_path, name, features) -> None:
    script = f"""
import os
os.environ["WEIGHBRIDGE_CACHE"] = {str(tmp_path)!r}
import numpy as np
from weighbridge.kernels import encode, simd_lanes
from weighbridge.kernels.ggml import BLOCKED
simd_lanes.host_has = {features!r}.__contains__
values = np.random.default_rng(0).standard_normal((40, 256)).astype(np.float32)
print(encode(BLOCKED[{name!r}], values).tobytes().hex())
"""
    values = np.random.default_rng(0).standard_normal((40, 256)).astype(np.float32)
    assert run_python(script).strip() == encode(BLOCKED[name], values).tobytes().hex()


@pytest.mark.parametrize(
    "names",
    [["iq4_nl", "nvfp4"], pytest.param(["iq3_s", "iq2_s"], marks=pytest.mark.long)],
    ids="-".join,
)
def test_what_two_processes_compiled_works_in_a_third(names, tmp_path) -> None:
    script = f"""
import os, sys
os.environ["WEIGHBRIDGE_CACHE"] = {str(tmp_path)!r}
import numpy as np
from weighbridge.kernels import encode
from weighbridge.kernels.ggml import BLOCKED
values = np.linspace(-1, 2, 4096, dtype=np.float32).reshape(-1, 256)
for name in NAMES:
    print(encode(BLOCKED[name], values).tobytes().hex())
"""
    alone = [run_python(script.replace("NAMES", repr([name]))).strip() for name in names]
    assert run_python(script.replace("NAMES", repr(names))).split() == alone


def test_a_cache_that_cannot_be_written_is_none(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "file"))
    encode_blocks = simd.Kernel(iq4encoders.iq4_nl, 32, 18)
    data = np.empty((1, 18), np.uint8)
    assert not encode_blocks(np.ones((1, 32), np.float32), None, data)
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
