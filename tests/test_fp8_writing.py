"""FP8 checkpoints are written as transformers reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny
from transformers import AutoModelForCausalLM

import weighbridge as wb

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"hidden_size": 128, "intermediate_size": 384, "vocab_size": 128, "head_dim": 64,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny.checkpoint(
        tmp_path_factory.mktemp("source") / "model",
        dtype="bfloat16", tokenizer=tiny.small_tokenizer(), **SIZES,
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(checkpoint, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("fp8") / "model"
    wb.convert(checkpoint, target, to="safetensors", quantize="FP8")
    return target


def test_every_layer_has_the_numbers_of_its_matrix(checkpoint, written):
    plain, stored = (load_file(place / "model.safetensors") for place in (checkpoint, written))
    layers = {name for name in plain if ".layers." in name and plain[name].ndim == 2}
    assert stored.keys() == plain.keys() | {f"{name}_scale_inv" for name in layers}
    for name, values in plain.items():
        if name not in layers:
            assert torch.equal(stored[name], values)
            continue
        parts = wb.encode_parts(values, "fp8_128x128")
        bits = stored[name].view(torch.uint8).numpy()
        np.testing.assert_array_equal(bits, parts["data"].view(np.uint8))
        np.testing.assert_array_equal(stored[f"{name}_scale_inv"].numpy(), parts["scale"])


def test_transformers_loads_it(written, tmp_path):
    """On a CPU it dequantises; all that it holds is what we say that the file holds."""
    loaded = AutoModelForCausalLM.from_pretrained(written, dtype=torch.bfloat16)
    expected = wb.load(written, dtype="bfloat16")
    state = loaded.state_dict()
    assert expected.keys() <= state.keys()
    assert all(torch.equal(state[name], values) for name, values in expected.items())


def test_memory_does_not_change_it(checkpoint, written, tmp_path):
    """A matrix cut into pieces has the scales of its blocks all the same."""
    from weighbridge.engine.budget import resident_bytes

    wb.convert(checkpoint, tmp_path / "again", quantize="fp8", memory=resident_bytes() + (2 << 20))
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (written / "model.safetensors").read_bytes()


def test_the_way_through_gguf(checkpoint, written, tmp_path):
    """From GGUF, whose rows of queries are in another order, the same bytes come."""
    wb.convert(checkpoint, tmp_path / "x.gguf")
    wb.convert(tmp_path / "x.gguf", tmp_path / "back", quantize="fp8")
    here, there = (load_file(d / "model.safetensors") for d in (written, tmp_path / "back"))
    assert here.keys() == there.keys()
    assert all(
        torch.equal(here[n].view(torch.uint8), there[n].view(torch.uint8)) for n in here
    )  # fmt: skip


def test_there_and_back(written, tmp_path):
    """FP8 decoded and encoded again gives the same elements: the scales are the same or near."""
    wb.convert(written, tmp_path / "again", quantize="fp8")
    here, there = (wb.load(place, dtype="float32") for place in (written, tmp_path / "again"))
    assert all(torch.allclose(here[name], there[name], rtol=1e-6) for name in here)


def test_settings_name_what_stays(written):
    settings = json.loads((written / "config.json").read_text())["quantization_config"]
    assert settings["weight_block_size"] == [128, 128]
    assert set(settings["modules_to_not_convert"]) == {"lm_head", "model.embed_tokens"}


@pytest.mark.parametrize(
    ("changes", "target", "rule"),
    [
        ({"hidden_size": 64, "head_dim": 16, "intermediate_size": 96}, "x", "nothing-to-quantize"),
        ({}, "x.safetensors", "encoding-unsupported"),
    ],
)
def test_what_is_refused(tmp_path, changes, target, rule):
    source = tiny.checkpoint(tmp_path / "source", **(SIZES | changes))
    with pytest.raises(wb.Error) as caught:
        wb.convert(source, tmp_path / target, quantize="fp8")
    problems = getattr(caught.value, "problems", None) or [caught.value]
    assert [problem.rule for problem in problems] == [rule]
