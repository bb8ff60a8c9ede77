"""Loading to a CUDA device gives what loading to the CPU gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support import tiny
from support.gguf_files import smollm2
from support.plans import numbers
from torch import nn

import weighbridge as wb
from weighbridge.encoding import DENSE
from weighbridge.engine.device import device_of
from weighbridge.engine.load import Options, load_tensors, requested
from weighbridge.errors import InvalidInput, OutOfMemory
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.ops import Swap, Transpose, apply
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.tensor import Lazy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def agree(there: dict[str, torch.Tensor], here: dict[str, torch.Tensor]) -> None:
    assert there.keys() == here.keys()
    for name, values in here.items():
        assert there[name].device.type == "cuda"
        assert torch.equal(there[name].cpu(), values), name


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_every_format_loads_as_on_the_cpu(tmp_path: Path, dtype: str | None) -> None:
    source = tiny.checkpoint(
        tmp_path / "model",
        hidden_size=256,
        intermediate_size=512,
        tokenizer=tiny.small_tokenizer(),
    )
    wb.convert(source, tmp_path / "sharded", shard_size="500kB")
    wb.save_file(wb.load(source), tmp_path / "x.onnx")
    for kind in ("F16", "Q8_0", "Q4_K_M"):
        wb.convert(source, tmp_path / f"{kind}.gguf", quantize=kind)
    for name in ("model", "sharded", "x.onnx", "F16.gguf", "Q8_0.gguf", "Q4_K_M.gguf"):
        agree(wb.load(tmp_path / name, "cuda", dtype), wb.load(tmp_path / name, dtype=dtype))


def test_a_real_model_loads_as_on_the_cpu() -> None:
    agree(
        wb.load(smollm2(), "cuda:0", "bfloat16", memory="30MB"),
        wb.load(smollm2(), dtype="bfloat16"),
    )


def test_every_encoding_loads_as_on_the_cpu() -> None:
    lazies: dict[str, Lazy] = {
        name: numbers(encoding, (24, 2 * encoding.grain)) for name, encoding in BLOCKED.items()
    }
    lazies |= {name: numbers(DENSE[name], (8, 16)) for name in ("f4", "f8_e4m3", "bf16", "f32")}
    lazies["moved"] = apply(Swap(0, 2, 3, 4), [lazies["q4_k"]])[0]
    lazies["turned"] = apply(Transpose(), [lazies["q4_k"]])[0]
    work = requested(lazies, "float32")
    agree(load_tensors(work, device_of("cuda"), Options(memory="5MB")), load_tensors(work))


def test_lost_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_tensors(
            requested({"x": from_array("x", np.float32([1e30]))}, "float16"), device_of("cuda")
        )
    assert (caught.value.rule, caught.value.tensor) == ("overflow", "x")


def test_what_does_not_fit_is_named() -> None:
    device = device_of("cuda")
    assert device is not None
    with pytest.raises(OutOfMemory) as caught:
        device.empty("huge", (1 << 42,), DENSE["f32"])
    assert (caught.value.rule, caught.value.tensor) == ("memory", "huge")
    assert str(caught.value.got).endswith(" free")


def test_a_module_is_filled_there(tmp_path: Path) -> None:
    wb.save_file({"weight": torch.rand(8, 8), "bias": torch.rand(8)}, tmp_path / "x.safetensors")
    expected = wb.load(tmp_path / "x.safetensors")
    there, meta = nn.Linear(8, 8, device="cuda"), nn.Linear(8, 8, device="meta")
    for module, device in ((there, "cpu"), (meta, "cuda")):
        wb.load_into(module, tmp_path / "x.safetensors", device)
        agree(dict(module.state_dict()), expected)


def test_pinned_memory_is_given_back() -> None:
    before = torch.cuda.host_memory_stats()["active_bytes.current"]
    wb.load(smollm2(), "cuda", "bfloat16")
    stats = torch.cuda.host_memory_stats()
    assert stats["active_bytes.current"] == before
    assert stats["active_bytes.peak"] - before <= 1 << 28
