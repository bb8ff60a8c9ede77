"""Loading to the CPU: backends, dtypes, slices, and what happens when it cannot go on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from support import tiny
from support.gguf_files import smollm2
from support.plans import numbers
from support.stored import in_file
from support.tree import run_python

import weighbridge as wb
from weighbridge import region as regions
from weighbridge.encoding import DENSE, Encoding
from weighbridge.engine import backend, memory
from weighbridge.engine.load import Loader, Options, load_tensors, loading, requested
from weighbridge.engine.torch_types import as_torch
from weighbridge.errors import Error, InvalidFile, OutOfMemory
from weighbridge.file import File
from weighbridge.kernels import shortcuts
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.ops import Swap, Transpose, apply
from weighbridge.tensor import Lazy, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.region import Region, Shape

TENSORS = {"a": torch.arange(600_000.0), "b": torch.arange(12).reshape(3, 4).bfloat16()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    safetensors.torch.save_file(TENSORS, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def is_view(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor's memory is a map of a file."""
    at = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(end, 16) for end in line.split()[0].split("-"))
        if start <= at < stop:
            return line.rstrip().endswith(".safetensors")
    return False


@pytest.mark.parametrize("choice", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("threads", [None, 1, 5])
def test_backends_give_the_same_tensors(path: Path, choice: str, threads: int | None) -> None:
    loaded = wb.load(path, backend=choice, threads=threads)
    assert all(torch.equal(loaded[name], values) for name, values in TENSORS.items())
    assert all(is_view(tensor) == (choice != "pread") for tensor in loaded.values())
    assert all(tensor.data_ptr() % 8 == 0 for tensor in loaded.values())


def test_the_type_of_a_file_system_is_what_stat_says(tmp_path: Path) -> None:
    for place in (tmp_path, Path("/proc/self/status"), Path("/sys")):
        told = subprocess.run(["stat", "-f", "-c", "%t", place], capture_output=True, check=True)
        assert backend.file_system(place) == int(told.stdout, 16)
    assert backend.file_system(tmp_path / "missing") is None


def test_auto_reads_over_a_network_and_says_why(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "weighbridge.load")
    wb.load(path)
    assert caplog.messages == [f"{path}: mmap, because it lies on a local file system"]
    caplog.clear()
    monkeypatch.setattr(backend, "file_system", lambda _: 0x6969)
    loaded = wb.load(path)
    assert not any(map(is_view, loaded.values()))
    assert caplog.messages == [f"{path}: pread, because it lies on NFS"]
    caplog.clear()
    assert all(map(is_view, wb.load(path, backend="mmap").values()))
    assert caplog.messages == [f"{path}: mmap, because as asked"]


def test_tensors_that_a_file_does_not_align_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "weighbridge.load")
    path = tmp_path / "x.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.float32([1, 2]).tobytes())
    assert wb.load(path)["a"].tolist() == [1.0, 2.0]
    assert "1 tensors are read, because the file does not align" in caplog.messages[1]


def test_all_formats_and_shards_load_alike(tmp_path: Path) -> None:
    source = tiny.checkpoint(tmp_path / "model", dtype="bfloat16", tokenizer=tiny.small_tokenizer())
    expected = safetensors.torch.load_file(source / "model.safetensors")
    wb.convert(source, tmp_path / "sharded", shard_size="20kB")
    wb.convert(source, tmp_path / "x.gguf")
    wb.save_file(expected, tmp_path / "x.onnx")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    for name in ("model", "sharded", "x.gguf", "x.onnx"):
        for choice in ("mmap", "pread"):
            loaded = wb.load(tmp_path / name, dtype="bfloat16", backend=choice)
            assert loaded.keys() == expected.keys()
            assert all(torch.equal(loaded[key], expected[key]) for key in expected), name


def test_names_are_hugging_faces_or_the_files_own(tmp_path: Path) -> None:
    source = tiny.checkpoint(tmp_path / "model", tokenizer=tiny.small_tokenizer())
    wb.convert(source, tmp_path / "x.gguf")
    assert "model.embed_tokens.weight" in wb.load(tmp_path / "x.gguf")
    assert "token_embd.weight" in wb.load(tmp_path / "x.gguf", names="source")
    assert "token_embd.weight" in wb.load_file(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"names": "mine"}, "names"),
        ({"backend": "dma"}, "backend"),
        ({"threads": 0}, "threads"),
        ({"memory": "1kB", "backend": "pread"}, "memory"),
        ({"device": "cuda:99"}, "device"),
        ({"device": "abacus"}, "device"),
        ({"device": "meta"}, "device"),
        ({"device": torch.bfloat16}, "device"),
        ({"dtype": "f17"}, "encoding"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(path: Path, options: Any, rule: str) -> None:
    if rule == "threads":
        options = {**options, "backend": "pread"}
    with pytest.raises(Error) as caught:
        wb.load(path, **options)
    assert caught.value.rule == rule
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_one_line_says_so(path: Path) -> None:
    with pytest.raises(wb.Unsupported) as caught:
        wb.load(path, "cuda")
    assert str(caught.value) == (
        "torch finds no CUDA device (got cuda, expected cpu) [device]; "
        "load to the CPU, or install a driver and a torch that was built for CUDA"
    )


def test_progress_ends_at_the_total(path: Path) -> None:
    seen: list[Any] = []
    loaded = wb.load(path, backend="pread", progress=seen.append)
    total = sum(tensor.nbytes for tensor in loaded.values())
    assert [event.total for event in seen] == [total] * len(seen)
    assert seen[-1].done == total
    assert sorted(event.done for event in seen) == [event.done for event in seen]


@dataclass(frozen=True)
class Slow(Lazy):
    """A tensor that takes for ever, piece by piece, and tells when it was begun."""

    shape: Shape
    begun: threading.Event
    encoding: Encoding = DENSE["f32"]

    def leaves(self) -> Iterator[Tensor]:
        return iter(())

    def grains(self, region: Region) -> Any:
        self.begun.set()
        threading.Event().wait(0.05)
        return np.zeros(regions.extent(region), np.float32)

    compute = grains


def test_an_interrupt_stops_the_threads() -> None:
    begun = threading.Event()
    before = threading.active_count()

    def interrupt() -> None:
        begun.wait()
        threading.Event().wait(0.1)  # until the threads are all there
        os.kill(os.getpid(), signal.SIGINT)

    slow = Slow((1 << 20, 32), begun)  # 64 pieces of 0.05 s and more
    killer = threading.Thread(target=interrupt)
    killer.start()
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        load_tensors(
            requested({"x": slow}),
            options=Options(threads=2, progress=lambda event: done.append(event.done)),
        )
    killer.join()
    assert threading.active_count() == before
    assert max(done, default=0) < slow.nbytes // 2


def test_a_tensor_that_does_not_fit_is_named() -> None:
    huge = Slow((1 << 42,), threading.Event())
    free = memory.free_bytes()
    with pytest.raises(OutOfMemory) as caught:
        load_tensors(requested({"small": numbers(DENSE["f32"], (4,)), "huge": huge}))
    error = caught.value
    assert free is not None
    assert (error.rule, error.tensor, error.expected) == ("memory", "huge", "17.6 TB")
    assert str(error.got).endswith(" free")
    assert not huge.begun.is_set()


REFUSED = """
import resource, sys
import weighbridge as wb
from weighbridge.engine.load import Options
wb.load(sys.argv[1])
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), resource.RLIM_INFINITY))
try:
    wb.load(sys.argv[1], dtype="float64", backend="pread", threads=1)
except wb.OutOfMemory as error:
    print(error.rule, error.tensor)
"""


def test_what_the_system_refuses_is_named_too(tmp_path: Path) -> None:
    wb.save_file({"big": torch.zeros(1 << 26, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    assert run_python(REFUSED, str(tmp_path / "x.safetensors")).split() == ["memory", "big"]


def test_a_container_bounds_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\nfile 500000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_bytes() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert (memory.free_bytes() or 0) > 600_000


def test_a_file_that_has_shrunk_is_an_error(path: Path) -> None:
    with wb.open(path) as model:
        os.truncate(path, path.stat().st_size - 4)
        with pytest.raises(InvalidFile) as caught:
            load_tensors(requested(model.tensors), options=Options(backend="pread"))
    assert caught.value.rule == "truncated"


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_blocks_are_decoded_where_they_belong(dtype: str) -> None:
    lazies: dict[str, Lazy] = {
        name: numbers(encoding, (24, 2 * encoding.grain))
        for name, encoding in BLOCKED.items()
        if name in {"q4_0", "q8_0", "q2_k", "q4_k", "q6_k", "iq4_xs", "mxfp4"}
    }
    lazies["moved"] = apply(Swap(0, 2, 3, 4), [lazies["q4_k"]])[0]
    lazies["turned"] = apply(Transpose(), [lazies["q4_k"]])[0]
    loaded = load_tensors(requested(lazies, dtype), options=Options(memory="2MB"))
    for name, lazy in lazies.items():
        assert torch.equal(loaded[name], as_torch(lazy.values(dtype))), name


def test_compiled_code_is_expected_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "_done", {})
    monkeypatch.delenv("WEIGHBRIDGE_KERNELS", raising=False)
    much, little = 1 << 28, 1 << 20
    assert shortcuts.expect({("q4_k", "bf16"): little}, 1 << 30) == 0
    assert shortcuts.expect({("q4_k", "bf16"): much}, 1 << 20) == 0
    assert not shortcuts._done
    shortcuts.expect({("q4_k", "bf16"): much}, 1 << 30)
    assert shortcuts._done == {"decode_q4_k_bf16": much}


LIGHT = """
import sys
import weighbridge as wb
wb.load(sys.argv[1], dtype="bfloat16")
print("numba" in sys.modules)
"""


def test_a_small_model_is_loaded_without_numba(tmp_path: Path) -> None:
    wb.save_file({"x": torch.zeros(64, 256)}, tmp_path / "x.safetensors")
    wb.convert(tmp_path / "x.safetensors", tmp_path / "x.gguf", quantize="Q8_0", weights_only=True)
    assert run_python(LIGHT.replace("bfloat16\"", "bfloat16\", names='source'"),
                      str(tmp_path / "x.gguf")).strip() == "False"  # fmt: skip


@dataclass
class Reads:
    """Bytes that were read."""

    count: int = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Count the bytes that are read from files."""
    counted = Reads()
    read_into = File.read_into

    def counting(self: File, buffer: memoryview, offset: int) -> None:
        counted.count += len(buffer)
        read_into(self, buffer, offset)

    monkeypatch.setattr(File, "read_into", counting)
    return counted


SLICES: list[tuple[str, Any, int]] = [
    ("bf16", np.s_[128:256], 128 * 1024 * 2),
    ("bf16", np.s_[:, 256:512], 512 * 256 * 2),
    ("bf16", np.s_[384:, 5], 128 * 2),
    ("q8_0", np.s_[128:256], 128 * 32 * 34),
    ("q8_0", np.s_[:, 256:512], 512 * 8 * 34),
    ("q8_0", np.s_[:128, 40:41], 128 * 34),
    ("q4_k", np.s_[256:512], 256 * 4 * 144),
    ("q4_k", np.s_[:, 512:], 512 * 2 * 144),
    ("q4_k", np.s_[:, 100:300], 512 * 2 * 144),
]


@pytest.mark.parametrize(("kind", "index", "expected"), SLICES, ids=str)
@pytest.mark.parametrize("moved", [False, True])
def test_a_slice_reads_what_it_needs(
    tmp_path: Path, reads: Reads, kind: str, index: Any, expected: int, moved: bool
) -> None:
    encoding: Any = BLOCKED.get(kind) or DENSE[kind]
    tensor: Lazy = in_file(numbers(encoding, (512, 1024)), tmp_path / "x")
    if moved:  # heads of 128 rows, as llama.cpp permutes queries and keys
        tensor = apply(Swap(0, 4, 2, 64), [tensor])[0]
    whole = tensor.values()
    reads.count = 0
    part = tensor[index]
    assert reads.count == expected
    assert np.array_equal(part, whole[index])


def test_a_row_of_a_stored_tensor_is_read_alone_and_of_a_permuted_one_with_its_head(
    tmp_path: Path, reads: Reads
) -> None:
    stored = in_file(numbers(BLOCKED["q8_0"], (512, 1024)), tmp_path / "x")
    for tensor, rows in ((stored, 1), (apply(Swap(0, 4, 2, 64), [stored])[0], 128)):
        reads.count = 0
        assert tensor[130, :32].shape == (32,)
        assert reads.count == rows * 34


def test_ranks_of_a_real_model_make_up_the_whole(reads: Reads) -> None:
    with wb.open(smollm2()) as model:
        tensor = wb.api.named_tensors(model, "hf")["model.layers.0.self_attn.q_proj.weight"]
        whole = as_torch(tensor.values("bf16"))
        reads.count = 0
        rows = whole.shape[0] // 3
        parts = [as_torch(tensor[rows * rank : rows * (rank + 1)]) for rank in range(3)]
    assert torch.equal(torch.cat(parts).bfloat16(), whole)
    assert reads.count == tensor.nbytes


def test_arrays_become_torch_tensors() -> None:
    for dtype in (np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int64, np.bool_):
        array = np.arange(6).reshape(2, 3).astype(dtype)
        tensor = as_torch(array)
        assert tensor.shape == (2, 3)
        assert np.array_equal(tensor.float().numpy(), array.astype(np.float32))
        assert tensor.data_ptr() == array.ctypes.data
        assert torch.equal(as_torch(array[:, ::2]).float(), tensor[:, ::2].float())
        assert as_torch(array[:0]).shape == (0, 3)
    frozen = np.ones(3, np.float32)
    frozen.flags.writeable = False
    assert as_torch(frozen).tolist() == [1, 1, 1]


def test_threads_share_a_loader() -> None:
    lazies = {str(n): numbers(BLOCKED["q8_0"], (16 + n, 64)) for n in range(8)}
    results: dict[str, torch.Tensor] = {}

    def load(loader: Loader, name: str) -> None:
        results[name] = loader.load(name, lazies[name])

    with loading(threads=2) as loader:
        threads = [threading.Thread(target=load, args=(loader, name)) for name in lazies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name, lazy in lazies.items():
        assert torch.equal(results[name], as_torch(lazy.values()))
