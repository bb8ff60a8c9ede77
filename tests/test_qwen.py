"""The Qwen families: windows, biases, experts, bare names, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from families.case import DECODER
from families.qwen import LAST_TOKEN, MODULES
from safetensors.torch import load_file, save_file
from support import converted, llamacpp, tiny

import weighbridge as wb
from weighbridge import registry
from weighbridge.converters.architectures.qwen2 import QWEN2
from weighbridge.converters.architectures.qwen3 import QWEN3
from weighbridge.converters.architectures.qwen3_moe import QWEN3_MOE
from weighbridge.families import find
from weighbridge.metadata import scalar
from weighbridge.report import Report

SIZES = {
    "vocab_size": 10,
    "num_hidden_layers": 4,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "head_dim": 4,
}
MOE = {
    **SIZES,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 6,
    "norm_topk_prob": True,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 16}


def said(arch, config):
    """Return the key-values of a config, the rules it breaks, and what is told of it."""
    report = Report()
    metadata = arch.to_metadata({"architectures": [arch.classes[0]], **config}, {}, report)
    plain = {key: value.plain() for key, value in metadata.items()}
    return plain, [p.rule for p in report.problems], [note.subject for note in report.notes]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, False),
        ({"sliding_window": 16}, False),
        ({**SLIDING, "use_sliding_window": False}, False),
        (SLIDING, False),
        ({**SLIDING, "max_window_layers": 4}, False),
        ({**SLIDING, "max_window_layers": 3}, True),
        ({**SLIDING, "layer_types": ["full_attention"] * 4, "max_window_layers": 0}, False),
        ({**SLIDING, "layer_types": ["full_attention", "sliding_attention"] * 2}, True),
    ],
)
@pytest.mark.parametrize("arch", [QWEN2, QWEN3], ids=["qwen2", "qwen3"])
def test_a_window_is_told_where_it_does_anything(arch, changes, told):
    _, problems, notes = said(arch, {**SIZES, **changes})
    assert problems == []
    assert notes == (["config.json's sliding_window"] if told else [])


@pytest.mark.parametrize(("changes", "told"), [({"sliding_window": 16}, False), (SLIDING, True)])
def test_a_window_of_experts_is_every_layers(changes, told):
    assert bool(said(QWEN3_MOE, {**MOE, **changes})[2]) is told


@pytest.mark.parametrize("value", ["3", 1.5, True, -1])
def test_a_window_that_begins_nowhere(value):
    assert said(QWEN2, {**SIZES, **SLIDING, "max_window_layers": value})[1] == ["config-type"]


@pytest.mark.parametrize("kind", ["llama3", "longrope", "dynamic"])
@pytest.mark.parametrize("arch", [QWEN2, QWEN3, QWEN3_MOE], ids=lambda arch: arch.name)
def test_scalings_that_llama_cpp_does_not_compute_here(arch, kind):
    _, problems, _ = said(arch, {**MOE, "rope_scaling": {"rope_type": kind, "factor": 2.0}})
    assert problems == ["rope-type"]


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        (QWEN3, {"attention_bias": True}),
        (QWEN3_MOE, {"attention_bias": True}),
        (QWEN3_MOE, {"norm_topk_prob": False}),
        (QWEN3_MOE, {"decoder_sparse_step": 2}),
        (QWEN3_MOE, {"mlp_only_layers": [0]}),
        (QWEN2, {"hidden_act": "gelu"}),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(arch, changes):
    assert said(arch, {**MOE, **changes})[1] == ["config-value"]


def test_weights_of_experts_are_not_normed_unless_a_config_says_so():
    config = {key: value for key, value in MOE.items() if key != "norm_topk_prob"}
    assert said(QWEN3_MOE, config)[1] == ["config-value"]


def test_a_head_of_qwen3_has_128_values_where_a_config_does_not_say():
    config = {key: value for key, value in SIZES.items() if key != "head_dim"}
    assert said(QWEN3, config)[0]["qwen3.attention.key_length"] == 128
    assert "qwen2.attention.key_length" not in said(QWEN2, config)[0]


@pytest.mark.parametrize("name", ["num_experts", "num_local_experts"])
def test_a_changed_number_of_experts_is_spelled_as_the_config_does(name):
    config = {name if key == "num_experts" else key: value for key, value in MOE.items()}
    metadata = QWEN3_MOE.to_metadata(config, {}, Report())
    changed = {**metadata, "qwen3moe.expert_count": scalar("u32", 5)}
    after = QWEN3_MOE.revise(config, {}, changed, {}, Report())
    assert {key: after[key] for key in after if config.get(key) != after[key]} == {name: 5}


def test_embeddings_without_a_prefix_are_the_same_model(tmp_path):
    """Qwen3-Embedding's checkpoints: the class has a head, the tensors' names no prefix."""
    files = {"modules.json": MODULES, "1_Pooling/config.json": LAST_TOKEN}
    source = tiny.checkpoint(
        tmp_path / "org-Tiny-1B",
        "Qwen3ForCausalLM",
        entries={**DECODER, "head_dim": 16, "tie_word_embeddings": True},
        tokenizer={**tiny.smollm2_tokenizer(), **files},
    )
    weights = source / "model.safetensors"
    kept = {name.removeprefix("model."): tensor for name, tensor in load_file(weights).items()}
    save_file(kept, weights, metadata={"format": "pt"})
    plan = wb.plan(source, tmp_path / "ours.gguf")
    assert [note.subject for note in plan.notes if note.kind == "renamed"] == ["model."]
    plan.run()
    theirs = llamacpp.convert(source, tmp_path / "theirs.gguf", "f32")
    assert llamacpp.different_tensors(tmp_path / "ours.gguf", theirs) == {}
    different = llamacpp.different_keys(tmp_path / "ours.gguf", theirs)
    assert set(different) <= {*llamacpp.EXPECTED_DIFFERENCES, *_carried(files)}


def _carried(files):
    return {f"weighbridge.file.{name}" for name in files}


def test_a_bare_llama_is_read_as_the_converter_does(tmp_path):
    source = tiny.checkpoint(
        tmp_path / "org-Tiny-1B",
        "LlamaModel",
        entries=DECODER,
        tokenizer=tiny.smollm2_tokenizer(),
    )
    wb.convert(source, tmp_path / "ours.gguf")
    theirs = llamacpp.convert(source, tmp_path / "theirs.gguf", "f32")
    assert llamacpp.different_tensors(tmp_path / "ours.gguf", theirs) == {}
    wb.convert(tmp_path / "ours.gguf", tmp_path / "again")
    assert all(difference.equal for difference in wb.diff(source, tmp_path / "again"))


FOREIGN = ["qwen2", "qwen2-bare-embedding-f32", "qwen3", "qwen3_moe", "mixtral"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_others_is_the_same_model_in_transformers(name, tmp_path):
    wb.convert(converted.theirs(name), tmp_path / "back", dtype="float32")
    states = [_state(converted.source(name)), _state(tmp_path / "back")]
    assert torch.equal(*states)


def _state(directory):
    """Return what a checkpoint's class computes, in float32."""
    config = json.loads((directory / "config.json").read_text())
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.arange(40, 60)[None])[0]


@pytest.mark.parametrize("arch", [QWEN2, QWEN3, QWEN3_MOE], ids=lambda arch: arch.name)
def test_every_class_finds_its_family(arch):
    families = list(registry.architectures().values())
    for name in arch.classes:
        assert find(families, {"architectures": [name]}) is arch
    assert find(families, {"model_type": arch.model_type}) is arch
