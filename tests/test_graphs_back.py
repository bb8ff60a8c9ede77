"""From a checkpoint to graphs and back again: the same tensors, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from support.graph_cases import make

import weighbridge as wb

if TYPE_CHECKING:
    from pathlib import Path

CASES = ("bert", "gpt2", "llama-tied", "mixtral", "t5", "whisper", "vit", "clip", "detr")


def _same(found: Path, expected: Path) -> None:
    given, wanted = load_file(found), load_file(expected)
    assert given.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert given[name].dtype == tensor.dtype, name
        assert torch.equal(given[name], tensor), name


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_comes_back(name: str, tmp_path: Path) -> None:
    make(name).save_pretrained(tmp_path / "hf")
    wb.convert(tmp_path / "hf", tmp_path / "onnx", to="onnx")
    wb.convert(tmp_path / "onnx", tmp_path / "back")
    _same(tmp_path / "back" / "model.safetensors", tmp_path / "hf" / "model.safetensors")


def test_a_fused_graph_comes_back_and_becomes_the_same_gguf(tmp_path: Path) -> None:
    make("llama").to(torch.bfloat16).save_pretrained(tmp_path / "hf")
    wb.convert(tmp_path / "hf", tmp_path / "onnx", to="onnx", fuse="cpu")
    wb.convert(tmp_path / "onnx", tmp_path / "back", dtype="bfloat16")
    _same(tmp_path / "back" / "model.safetensors", tmp_path / "hf" / "model.safetensors")


def test_a_quantised_weight_comes_back_as_its_numbers(tmp_path: Path) -> None:
    """Types without minima are one operator's; for others the parts are named, and left."""
    make("llama").save_pretrained(tmp_path / "hf")
    wb.convert(tmp_path / "hf", tmp_path / "onnx", to="onnx", quantize="int4")
    with wb.open(tmp_path / "onnx") as model:
        plan = wb.plan(model, tmp_path / "back")
        assert not plan.problems
        plan.run()
    found = load_file(tmp_path / "back" / "model.safetensors")
    wanted = load_file(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == wanted.keys()
    name = "model.layers.0.mlp.down_proj.weight"
    steps = wanted[name].unflatten(1, (-1, 32)).abs().amax(-1, keepdim=True) / 7
    difference = (found[name] - wanted[name]).unflatten(1, (-1, 32)).abs()
    assert (difference <= 0.51 * steps).all()
    assert difference.any()
