"""The real SmolLM2 out of its GGUF and back, judged by transformers, llama.cpp and gguf-py."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
import safetensors
import torch
from support import llamacpp
from support.gguf_files import smollm2
from support.llamacpp import complete
from support.tree import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

import weighbridge as wb
from weighbridge.steps import Route

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees",
)
HEADS = {"attn_q": 9, "attn_k": 3}
"""SmolLM2-135M's heads of each kind; 64 rows each."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint made from the GGUF; every number is kept."""
    target = tmp_path_factory.mktemp("smollm2") / "SmolLM2"
    wb.convert(smollm2(), target)
    return target


@pytest.fixture(scope="module")
def network(directory: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(directory).eval()


@pytest.fixture(scope="module")
def tokenizer(directory: Path):
    return AutoTokenizer.from_pretrained(directory)


def original_values() -> dict[str, np.ndarray]:
    """Return the GGUF's tensors as gguf-py decodes them, q and k put back in halves by hand."""
    values = {}
    for tensor in gguf.GGUFReader(smollm2()).tensors:
        decoded = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if kind in HEADS:
            pairs = decoded.reshape(HEADS[kind], 32, 2, -1)
            decoded = pairs.swapaxes(1, 2).reshape(decoded.shape)
        values[tensor.name] = decoded
    return values


NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def hugging_face_name(name: str) -> str:
    """Return what transformers calls a tensor of the GGUF, by a table of the test's own."""
    parts = name.split(".")
    if parts[0] != "blk":
        return f"{NAMES[parts[0]]}.weight"
    return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"


def test_every_value_is_the_gguf_s_own(directory):
    expected = {hugging_face_name(name): values for name, values in original_values().items()}
    with safetensors.safe_open(directory / "model.safetensors", "np") as file:
        assert set(file.keys()) == set(expected)
        for name, values in expected.items():
            found = file.get_tensor(name)
            assert found.dtype == np.float32
            assert found.tobytes() == values.tobytes(), name


def test_transformers_agrees_with_its_own_loader(network, tokenizer):
    theirs = AutoModelForCausalLM.from_pretrained(
        smollm2().parent, gguf_file=smollm2().name, dtype=torch.float32
    ).eval()
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            difference = (network(**inputs).logits - theirs(**inputs).logits).abs().max()
        assert difference <= 1e-4
        texts = [
            model.generate(**inputs, max_new_tokens=24, do_sample=False)
            for model in (network, theirs)
        ]
        assert texts[0].tolist() == texts[1].tolist()


def test_llama_cpp_continues_as_transformers_does(directory, network, tokenizer, tmp_path):
    path = tmp_path / "f32.gguf"
    wb.convert(directory, path)
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        made = network.generate(**inputs, max_new_tokens=16, do_sample=False)
        expected = tokenizer.decode(made[0, inputs["input_ids"].shape[1] :])
        assert complete(path, prompt, 16) == expected


@pytest.fixture(scope="module")
def checkpoint(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return it as transformers saves it: bfloat16, in shards."""
    target = tmp_path_factory.mktemp("sharded") / "SmolLM2"
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    model.save_pretrained(target, max_shard_size="100MB")
    AutoTokenizer.from_pretrained(directory).save_pretrained(target)
    return target


def test_bf16_there_and_back_is_the_identity(checkpoint, tmp_path):
    there = wb.plan(checkpoint, tmp_path / "bf16.gguf")
    there.run()
    back = wb.plan(tmp_path / "bf16.gguf", tmp_path / "again", shard_size="100MB")
    back.run()
    for plan in (there, back):
        assert Route.DECODE not in {step.route for step in plan.steps}
        assert {step.route for step in plan.steps if step.tensor.ndim > 1} == {
            Route.COPY,
            Route.MOVE,
        }
    names = {path.name for path in checkpoint.iterdir()}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    for name in names:
        old, new = checkpoint / name, tmp_path / "again" / name
        if name.endswith(".json"):
            assert json.loads(new.read_text()) == json.loads(old.read_text()), name
        else:
            assert new.read_bytes() == old.read_bytes(), name


def test_it_is_the_file_of_llama_cpp_s_converter(checkpoint, tmp_path):
    theirs = llamacpp.convert(checkpoint, tmp_path / "theirs.gguf", "bf16")
    ours = tmp_path / "ours.gguf"
    wb.convert(checkpoint, ours)
    assert llamacpp.different_tensors(ours, theirs) == {}
    assert set(llamacpp.different_keys(ours, theirs)) <= set(llamacpp.EXPECTED_DIFFERENCES)


def test_it_works_without_torch(checkpoint, tmp_path):
    """The same conversion by the command, in an environment that has no torch at all."""
    python = ROOT / ".venv-notorch" / "bin" / "python"
    gone = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert gone.returncode == 1
    for source, target in ((checkpoint, "there.gguf"), ("there.gguf", "again")):
        command = [python, "-P", "-m", "weighbridge", "convert", source, target]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not any(found.max_error for found in wb.diff(checkpoint, tmp_path / "again"))


def test_the_load_that_people_import(directory):
    state = wb.load(smollm2())
    with safetensors.safe_open(directory / "model.safetensors", "pt") as file:
        assert set(state) == set(file.keys())
        assert all(torch.equal(state[name], file.get_tensor(name)) for name in state)
