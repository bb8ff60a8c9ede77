"""The functions that people import, held against safetensors' own."""

from __future__ import annotations

import gc
import os
import subprocess
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from support.plans import listing, numbers
from support.tree import ROOT

import weighbridge as wb
from weighbridge.encoding import DENSE
from weighbridge.engine.load import Options, load_tensors, requested
from weighbridge.engine.torch_types import TORCH_DTYPES
from weighbridge.errors import Error, InvalidInput
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.model import Model
from weighbridge.ops import Add, Swap, apply
from weighbridge.planner import IN_MEMORY, make_plan
from weighbridge.recode import Recoded
from weighbridge.testing.models import tensor_of
from weighbridge.wish import Wish

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ["x.safetensors", "x.onnx", "x.gguf"]
DTYPES = [dtype for dtype in TORCH_DTYPES.values() if dtype != "complex128"]
GGUF_DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64"]

SHAPES: dict[str, Any] = {
    "matrix": lambda dtype: filled((3, 4), dtype),
    "transposed": lambda dtype: filled((3, 4), dtype).t(),
    "strided": lambda dtype: filled((6, 8), dtype)[::2, 1::3],
    "expanded": lambda dtype: filled((1, 4), dtype).expand(3, 4),
    "offset": lambda dtype: filled((10,), dtype)[3:],
    "scalar": lambda dtype: filled((), dtype),
    "vector": lambda dtype: filled((5,), dtype),
    "deep": lambda dtype: filled((2, 1, 3, 2), dtype),
    "empty": lambda dtype: filled((0, 5), dtype),
    "empty rows": lambda dtype: filled((5, 0), dtype),
}


def filled(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """Return a tensor of small numbers that every dtype holds."""
    count = int(np.prod(shape))
    return (torch.arange(count) % 4 + 1).to(getattr(torch, dtype)).reshape(shape)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and bits(a) == bits(b)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in FORMATS for dtype in (GGUF_DTYPES if "gguf" in name else DTYPES)],
)
def test_torch_tensors_of_every_kind_come_back(tmp_path: Path, name: str, dtype: str) -> None:
    tensors = {
        kind: make(dtype)
        for kind, make in SHAPES.items()
        if name != "x.gguf" or not kind.startswith("empty")
    }
    path = tmp_path / name
    wb.save_file(tensors, path)
    loaded = wb.load_file(path)
    assert set(loaded) == set(tensors)
    for kind, tensor in tensors.items():
        assert same(loaded[kind], tensor), kind
    if name == "x.safetensors":
        theirs = safetensors.torch.load_file(path)
        assert all(same(theirs[kind], loaded[kind]) for kind in tensors)


def test_the_bytes_are_those_of_safetensors(tmp_path: Path) -> None:
    tensors = {f"{dtype}.{n}": filled((n, 3), dtype) for dtype in DTYPES for n in (1, 2)}
    metadata = {"format": "pt"}
    wb.save_file(tensors, tmp_path / "ours.safetensors", metadata)
    safetensors.torch.save_file(tensors, tmp_path / "theirs.safetensors", metadata)
    ours, theirs = ((tmp_path / f"{who}.safetensors").read_bytes() for who in ("ours", "theirs"))
    assert ours == theirs


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_are_kept(tmp_path: Path, name: str) -> None:
    metadata = {"a.key": "重み", "empty": ""}
    wb.save_file({"x": np.zeros(4, np.float32)}, tmp_path / name, metadata)
    with wb.open(tmp_path / name) as model:
        kept = {key: model.metadata[key].plain() for key in metadata}
    assert kept == metadata


ARRAYS = {
    "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "reversed": np.arange(6, dtype=np.int32)[::-1],
    "bfloat16": np.arange(6).astype(ml_dtypes.bfloat16),
    "float8": np.arange(6).astype(ml_dtypes.float8_e4m3fn),
    "bool": np.array([[True], [False]]),
    "scalar": np.float32(1.5),
    "zero axes": np.array(2.5, np.float16),
    "empty": np.zeros((0, 3), np.uint8),
}


@pytest.mark.parametrize("name", FORMATS[:2])
def test_arrays_of_every_kind_come_back(tmp_path: Path, name: str) -> None:
    wb.save_file(ARRAYS, tmp_path / name)
    with wb.open(tmp_path / name) as model:
        for kind, array in ARRAYS.items():
            values = model.tensors[kind].values()
            assert values.shape == np.shape(array)
            assert (values == array).all()
            assert values.dtype == np.asarray(array).dtype.newbyteorder("<")


def test_tied_tensors_are_each_written(tmp_path: Path) -> None:
    shared = torch.ones(4, 4)
    wb.save_file({"a": shared, "b": shared, "c": shared[1:]}, tmp_path / "x.safetensors")
    loaded = wb.load_file(tmp_path / "x.safetensors")
    assert [tuple(tensor.shape) for tensor in loaded.values()] == [(4, 4), (4, 4), (3, 4)]


def test_tensors_with_a_history_are_written(tmp_path: Path) -> None:
    plain = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    tensors = {
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "conjugate": plain.conj(),
        "negative": plain.conj().imag,
    }
    wb.save_file(tensors, tmp_path / "x.safetensors")
    for name, tensor in wb.load_file(tmp_path / "x.safetensors").items():
        assert torch.equal(tensor, tensors[name].detach())


REFUSED = {
    "meta": (lambda: torch.empty(3, device="meta"), "storage"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "storage"),
    "half complex": (lambda: torch.zeros(2, dtype=torch.complex32), "dtype"),
    "object": (lambda: np.array([None]), "dtype"),
    "text": (lambda: np.array(["a"]), "dtype"),
    "list": (lambda: [1.0, 2.0], "dtype"),
    "none": (lambda: None, "dtype"),
}


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize(("make", "rule"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stored_is_refused_by_name(tmp_path: Path, make: Any, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        wb.save_file({"mine": make()}, tmp_path / "x.safetensors")
    assert (caught.value.rule, caught.value.tensor) == (rule, "mine")
    assert listing(tmp_path) == {}


def test_saving_takes_a_file_s_place(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    wb.save_file({"a": torch.arange(1000)}, path)
    loaded = wb.load_file(path)
    wb.save_file({"a": loaded["a"][::2], "b": loaded["a"]}, path)
    assert torch.equal(wb.load_file(path)["b"], torch.arange(1000))
    assert torch.equal(loaded["a"], torch.arange(1000))


def test_saving_does_not_count_what_the_caller_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weighbridge.engine.budget.resident_bytes", lambda: 10**12)
    wb.save_file({"a": np.arange(10)}, tmp_path / "x.safetensors")
    wb.convert(tmp_path / "x.safetensors", tmp_path / "x.gguf", weights_only=True)
    assert torch.equal(wb.load_file(tmp_path / "x.gguf")["a"], torch.arange(10))


@pytest.mark.parametrize("name", ["x.safetensors", "x.gguf"])
def test_dense_tensors_are_views_of_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    wb.save_file({"a": torch.ones(1000), "b": torch.arange(50.0)}, path)
    before = path.read_bytes()
    loaded = wb.load_file(path)
    for tensor in loaded.values():
        assert any(str(path) in line for line in maps_at(tensor.data_ptr()))
        tensor.add_(1)
    assert torch.equal(loaded["a"], torch.full((1000,), 2.0))
    assert path.read_bytes() == before


def maps_at(address: int) -> list[str]:
    """Return the lines of this process's memory map that hold an address."""
    with open("/proc/self/maps") as lines:
        return [line for line in lines if holds(line.split()[0], address)]


def holds(span: str, address: int) -> bool:
    start, stop = (int(end, 16) for end in span.split("-"))
    return start <= address < stop


def test_tensors_outlive_the_model_and_let_go_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    wb.save_file({"a": torch.arange(1000.0)}, path)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    loaded = wb.load_file(path)
    gc.collect()
    path.unlink()
    assert torch.equal(loaded["a"], torch.arange(1000.0))
    del loaded
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_view_at_an_odd_offset_is_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.float32([1, 2]).tobytes())
    assert (8 + len(header)) % 4
    assert wb.load_file(path)["a"].tolist() == [1.0, 2.0]


DTYPES_OF_LOAD = [
    ("f32", None, torch.float32),
    ("bf16", "float32", torch.float32),
    ("bf16", "torch.float16", torch.float16),
    ("f32", torch.bfloat16, torch.bfloat16),
    ("f8_e4m3", "bfloat16", torch.bfloat16),
    ("f4", "float32", torch.float32),
    ("i64", "float32", torch.int64),
    ("bool", "float32", torch.bool),
    ("c64", "float32", torch.complex64),
]


@pytest.mark.parametrize(("stored", "dtype", "expected"), DTYPES_OF_LOAD, ids=str)
def test_the_dtype_of_loading_is_that_of_floats(
    tmp_path: Path, stored: str, dtype: Any, expected: torch.dtype
) -> None:
    tensor = numbers(DENSE[stored], (4, 6)) if stored[0] in "fb" and stored != "bool" else None
    tensor = tensor or tensor_of("x", DENSE[stored], (4, 6))
    model = Model(IN_MEMORY, "huggingface", {"x": tensor})
    make_plan(model, tmp_path / "x.safetensors", Wish(weights_only=True)).run()
    loaded = wb.load(tmp_path / "x.safetensors", dtype=dtype)["x"]
    assert loaded.dtype == expected
    if expected.is_floating_point:
        with wb.open(tmp_path / "x.safetensors") as opened:
            values = opened.tensors["x"].values("f64")
        assert torch.allclose(loaded.double(), torch.from_numpy(values), rtol=1e-2)


def test_what_torch_lacks_is_refused(tmp_path: Path) -> None:
    model = Model(IN_MEMORY, "huggingface", {"x": tensor_of("x", DENSE["f4"], (4,))})
    make_plan(model, tmp_path / "x.safetensors", Wish(weights_only=True)).run()
    for dtype, rule in ((None, "torch-dtype"), ("f4", "encoding"), ("f17", "encoding")):
        with pytest.raises(Error) as caught:
            wb.load(tmp_path / "x.safetensors", dtype=dtype)
        assert caught.value.rule == rule


@pytest.mark.parametrize("threads", [1, 3])
def test_lazy_tensors_of_every_kind_are_filled(threads: int) -> None:
    q8_0 = numbers(BLOCKED["q8_0"], (64, 96))
    lazies = {
        "packed": q8_0,
        "moved": apply(Swap(0, 4, 2, 8), [q8_0])[0],
        "added": apply(Add(1.0), [q8_0])[0],
        "rounded": Recoded(q8_0, DENSE["bf16"]),
        "scalar": numbers(DENSE["f32"], ()),
        "empty": numbers(DENSE["f32"], (0, 5)),
        "wide": numbers(DENSE["f32"], (2, 50_000)),
        "packed bits": numbers(DENSE["f4"], (3, 5)),
    }
    options = Options(memory="2MB", threads=threads)
    loaded = load_tensors(requested(lazies, "float32"), options=options)
    for name, lazy in lazies.items():
        assert torch.equal(loaded[name], torch.from_numpy(np.array(lazy.values("f32")))), name


def test_an_error_while_loading_names_the_tensor() -> None:
    big = wb.tensor.from_array("theirs", np.array([1e30], np.float32))
    with pytest.raises(InvalidInput) as caught:
        load_tensors(requested({"ours": big}, "float16"))
    assert (caught.value.rule, caught.value.tensor) == ("overflow", "ours")


def test_conversions_leave_nothing_open(tmp_path: Path) -> None:
    wb.save_file({"x": np.zeros((4, 64), np.float32)}, tmp_path / "x.safetensors")
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        wb.convert(tmp_path / "x.safetensors", tmp_path / f"{number}.gguf", weights_only=True)
        wb.diff(tmp_path / "x.safetensors", tmp_path / "x.safetensors")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda path: None, "not-found"),
        (lambda path: path.mkdir(), "unknown-format"),
        (lambda path: path.touch(), "unknown-format"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "unknown-format"),
        (lambda path: os.mkfifo(path), "not-a-file"),
        (lambda path: path.symlink_to("nowhere"), "not-found"),
    ],
    ids=["absent", "empty directory", "empty file", "other file", "pipe", "dangling link"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, make: Any, rule: str) -> None:
    path = tmp_path / "x.gguf"
    make(path)
    with pytest.raises(Error) as caught:
        wb.open(path)
    assert (caught.value.rule, caught.value.path) == (rule, str(path))


NO_TORCH = """
import sys, numpy as np, weighbridge as wb
folder = sys.argv[1]
wb.save_file({"x": np.ones((4, 64), np.float32)}, folder + "/x.safetensors")
wb.convert(folder + "/x.safetensors", folder + "/x.gguf", weights_only=True, quantize="Q8_0")
with wb.open(folder + "/x.gguf") as model:
    assert np.allclose(model.tensors["x"].values(), 1, atol=1e-3)
assert wb.diff(folder + "/x.safetensors", folder + "/x.safetensors")[0].equal
try:
    wb.load_file(folder + "/x.gguf")
except wb.MissingDependency as error:
    assert isinstance(error, ImportError)
    print(error)
"""


def test_all_but_loading_works_without_torch(tmp_path: Path) -> None:
    python = ROOT / ".venv-notorch" / "bin" / "python"
    command = [python, "-P", "-W", "error", "-c", NO_TORCH, tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "torch is not installed [torch]; pip install 'weighbridge[torch]'" in done.stdout
