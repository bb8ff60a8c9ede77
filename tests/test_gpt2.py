"""GPT-2: its config's names, old checkpoints, what llama.cpp computes, other programs' files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from families import CASES
from safetensors.torch import load_file, save_file
from support import converted, llamacpp, tiny

import weighbridge as wb
from weighbridge.converters.architectures.gpt2 import GPT2
from weighbridge.report import Report
from weighbridge.tensor import from_array

CLASS = "GPT2LMHeadModel"

SIZES = {
    "architectures": [CLASS],
    "vocab_size": 10,
    "n_embd": 8,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 16,
}

THEIRS = [n for n, case in CASES.items() if case.model == CLASS and case.refused is None]


def said(**changes):
    """Return the key-values of a config, and the rules it breaks."""
    report = Report()
    metadata = GPT2.to_metadata({**SIZES, **changes}, {}, report)
    return {k: v.plain() for k, v in metadata.items()}, [p.rule for p in report.problems]


def logits(directory, **options):
    """Return what a checkpoint answers, with all its weights in float32."""
    model = transformers.GPT2LMHeadModel.from_pretrained(directory, dtype="float32", **options)
    with torch.no_grad():
        return model(torch.tensor([[5, 17, 33, 60, 12, 99, 1]])).logits.numpy()


def test_what_a_config_leaves_out_is_the_classes():
    metadata, problems = said()
    assert problems == []
    assert metadata["gpt2.feed_forward_length"] == 32
    assert metadata["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)


def test_common_names_win_as_in_transformers():
    metadata, _ = said(hidden_size=12, num_hidden_layers=3, max_position_embeddings=20)
    known = transformers.GPT2Config(**SIZES, hidden_size=12, num_hidden_layers=3)
    assert metadata["gpt2.embedding_length"] == known.n_embd == 12
    assert metadata["gpt2.block_count"] == known.n_layer == 3
    assert metadata["gpt2.context_length"] == 20


def test_the_context_may_go_by_its_oldest_name_alone():
    config = {key: value for key, value in SIZES.items() if key != "n_positions"}
    report = Report()
    metadata = GPT2.to_metadata({**config, "n_ctx": 24}, {}, report)
    assert metadata["gpt2.context_length"].plain() == 24
    GPT2.to_metadata(config, {}, report)
    assert [problem.rule for problem in report.problems] == ["missing-config"]


@pytest.mark.parametrize(
    "changes",
    [{"activation_function": "gelu"}, {"activation_function": "relu"},
     {"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True},
     {"add_cross_attention": True}],
)  # fmt: skip
def test_what_llama_cpp_does_not_compute_is_refused(changes):
    assert said(**changes)[1] == ["config-value"]


@pytest.mark.parametrize(
    "changes",
    [{"n_embd": "8"}, {"n_layer": 0}, {"n_head": True}, {"n_inner": 1.5}, {"n_positions": -1}],
)
def test_entries_of_another_type_are_refused(changes):
    name, *_ = changes
    report = Report()
    GPT2.to_metadata({**SIZES, **changes}, {}, report)
    GPT2.from_canonical({"x": from_array("x", np.zeros(1, np.float32))}, SIZES | changes, report)
    told = [p for p in report.problems if p.rule == "config-type"]
    assert told
    assert all(problem.problem.startswith(name) for problem in told)


def test_shapes_that_the_config_denies_are_told():
    tensors = {"transformer.h.0.attn.c_attn.weight": from_array("x", np.zeros((24, 8), np.float32))}
    report = Report()
    GPT2.from_canonical(tensors, SIZES, report)
    denied = [p for p in report.problems if p.rule == "tensor-shape"]
    assert [(p.got, p.expected) for p in denied] == [([24, 8], [8, 24])]


@pytest.fixture(scope="module")
def of_old(tmp_path_factory):
    """A checkpoint as the hub's first: no prefix, and a causal mask in every block."""
    directory = tiny.copied(converted.source("gpt2"), tmp_path_factory.mktemp("gpt2") / "old")
    tensors = load_file(directory / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(2):
        old[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 96, 96).tril()
        old[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(old, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_an_old_checkpoint_gives_the_same_file(of_old, tmp_path):
    plan = wb.plan(of_old, tmp_path / "old.gguf", quantize="bf16")
    notes = {(note.kind, note.subject) for note in plan.notes}
    assert {("renamed", "transformer."), ("dropped", "h.1.attn.bias")} <= notes
    assert ("dropped", "h.0.attn.masked_bias") in notes
    plan.run()
    differences = wb.diff(tmp_path / "old.gguf", converted.ours("gpt2", "bf16"))
    assert [difference.name for difference in differences if not difference.equal] == []


def test_an_old_checkpoint_comes_back_with_its_classes_names(of_old, tmp_path):
    wb.convert(of_old, tmp_path / "old.gguf")
    wb.convert(tmp_path / "old.gguf", tmp_path / "new")
    with wb.open(tmp_path / "new") as new, wb.open(converted.source("gpt2")) as source:
        assert set(new.tensors) == set(source.tensors)
    assert np.array_equal(logits(of_old), logits(tmp_path / "new"))


@pytest.mark.parametrize("name", THEIRS)
def test_the_converters_file_computes_the_same_in_transformers(name, tmp_path):
    theirs = llamacpp.convert(converted.source(name), tmp_path / "theirs.gguf", "f32")
    wb.convert(theirs, tmp_path / "model")
    wanted = logits(converted.source(name))
    np.testing.assert_allclose(logits(tmp_path / "model"), wanted, atol=1e-5)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["n_positions"] == CASES[name].config["n_positions"]


def test_transformers_reads_our_file_as_the_source():
    """With its own reader of GGUF, which transposes by itself but does not ask for every size."""
    path, source = converted.ours("gpt2-inner", "f32"), converted.source("gpt2-inner")
    config = transformers.GPT2Config.from_pretrained(source)
    read = logits(path.parent, gguf_file=path.name, config=config)
    np.testing.assert_allclose(read, logits(source), atol=1e-5)
