"""The Gemma families: the sum with 1 and what it loses, windows, two thetas, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from families.gemma import FULL, GEMMA, SLIDING
from safetensors.torch import load_file, save_file
from support import converted, sentencepieces, tiny

import weighbridge as wb
from weighbridge import registry
from weighbridge.converters import originals
from weighbridge.converters.architectures.gemma2 import GEMMA2
from weighbridge.converters.architectures.gemma3 import GEMMA3
from weighbridge.encoding import DENSE
from weighbridge.families import find
from weighbridge.metadata import array, scalar
from weighbridge.ops import Add, apply
from weighbridge.report import Report
from weighbridge.tensor import from_array

SIZES = {
    "vocab_size": 10,
    "num_hidden_layers": 4,
    "hidden_size": 12,
    "intermediate_size": 6,
    "num_attention_heads": 2,
    "head_dim": 4,
    "query_pre_attn_scalar": 4,
}

PATTERN = "attention.sliding_window_pattern"


def said(arch, **changes):
    """Return the key-values of a config, and the rules it breaks."""
    report = Report()
    metadata = arch.to_metadata({**SIZES, **changes}, {}, report)
    return metadata, [problem.rule for problem in report.problems]


def plain(arch, **changes):
    """Return the key-values of a good config without the family's name."""
    metadata, problems = said(arch, **changes)
    assert problems == []
    return {key.removeprefix(f"{arch.name}."): value.plain() for key, value in metadata.items()}


def read(arch, **changed):
    """Return the config of a file of others that says `changed`."""
    metadata = {f"{arch.name}.{key}": value for key, value in changed.items()}
    return arch.to_config({**said(arch)[0], **metadata}, {}, Report())


def test_what_the_class_has_for_a_default_holds():
    told = plain(GEMMA2)
    assert told["attention.sliding_window"] == 4096
    assert (told["attn_logit_softcapping"], told["final_logit_softcapping"]) == (50.0, 30.0)
    assert told["attention.head_count_kv"] == 4
    told = plain(GEMMA3)
    assert told["context_length"] == 131072
    assert "final_logit_softcapping" not in told


@pytest.mark.parametrize(
    ("arch", "changes", "rule"),
    [
        (GEMMA2, {"query_pre_attn_scalar": 3}, "config-value"),
        (GEMMA2, {"tie_word_embeddings": False}, "config-value"),
        (GEMMA2, {"hidden_activation": "gelu"}, "config-value"),
        (GEMMA2, {"attention_bias": True}, "config-value"),
        (GEMMA2, {"use_bidirectional_attention": True}, "config-value"),
        (GEMMA2, {"final_logit_softcapping": None}, "missing-config"),
        (GEMMA2, {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "rope-type"),
        (GEMMA2, {"layer_types": [FULL, SLIDING, SLIDING, FULL]}, "layer-types"),
        (GEMMA2, {"layer_types": [FULL]}, "config-type"),
        (GEMMA2, {"layer_types": "odd"}, "config-type"),
        (GEMMA2, {"num_hidden_layers": 1 << 40}, "config-type"),
        (GEMMA3, {"attn_logit_softcapping": 50.0}, "config-value"),
        (GEMMA3, {"sliding_window_pattern": -1}, "config-type"),
        (GEMMA3, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope-type"),
        (GEMMA3, {"rope_parameters": {SLIDING: {"rope_type": "linear"}}}, "rope-type"),
        (GEMMA3, {"rope_parameters": {FULL: [1]}}, "config-type"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(arch, changes, rule):
    assert set(said(arch, **changes)[1]) == {rule}


@pytest.mark.parametrize(
    ("arch", "layers", "scale"),
    [(GEMMA2, 42, 4), (GEMMA2, 46, 6), (GEMMA2, 62, 4), (GEMMA3, 46, 4), (GEMMA3, 62, 6)],
)
def test_queries_of_the_largest_model_are_divided_by_the_heads_share(arch, layers, scale):
    sizes = {"num_hidden_layers": layers, "query_pre_attn_scalar": scale}
    metadata, problems = said(arch, **sizes)
    assert problems == []
    assert arch.to_config(metadata, {}, Report())["query_pre_attn_scalar"] == scale


@pytest.mark.parametrize(
    ("arch", "kinds", "period"),
    [
        (GEMMA2, [SLIDING, FULL, SLIDING, FULL], None),
        (GEMMA2, [SLIDING, SLIDING, FULL, SLIDING], 3),
        (GEMMA2, [SLIDING] * 4, 5),
        (GEMMA2, [FULL] * 4, 1),
        (GEMMA3, [SLIDING] * 4, None),
        (GEMMA3, [SLIDING, FULL, SLIDING, FULL], 2),
    ],
)
def test_windows_go_both_ways(arch, kinds, period):
    metadata, problems = said(arch, layer_types=kinds)
    assert problems == []
    assert metadata.get(f"{arch.name}.{PATTERN}") == (period and scalar("u32", period))
    assert arch.to_config(metadata, {}, Report()).get("layer_types", kinds) == kinds


def test_every_block_of_a_foreign_file_may_have_a_window():
    assert read(GEMMA3, **{PATTERN: scalar("u32", 0)})["layer_types"] == [SLIDING] * 4


NEW = {
    FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
    SLIDING: {"rope_type": "default", "rope_theta": 5e3},
}
OLD = {
    "rope_theta": 5e5,
    "rope_local_base_freq": 5e3,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}


@pytest.mark.parametrize("spelling", [{"rope_parameters": NEW}, OLD], ids=["new", "old"])
def test_both_spellings_of_the_thetas_are_read_as_transformers_does(spelling):
    config = transformers.Gemma3TextConfig(**json.loads(json.dumps(spelling)))
    rope = config.rope_parameters
    told = plain(GEMMA3, **spelling)
    assert told["rope.freq_base"] == rope[FULL]["rope_theta"] == 5e5
    assert told["rope.freq_base_swa"] == rope[SLIDING]["rope_theta"] == 5e3
    assert (told["rope.scaling.type"], told["rope.scaling.factor"]) == ("linear", 8.0)


@pytest.mark.parametrize("empty", [{}, {"rope_parameters": {}}, {"rope_parameters": {FULL: {}}}])
def test_thetas_that_no_config_says(empty):
    told = plain(GEMMA3, **empty)
    assert (told["rope.freq_base"], told["rope.freq_base_swa"]) == (1e6, 1e4)


@pytest.mark.parametrize("spelling", [{"rope_parameters": NEW}, OLD], ids=["new", "old"])
def test_a_changed_theta_is_put_where_the_config_has_it(spelling):
    config = {**SIZES, **spelling, "architectures": ["Gemma3ForCausalLM"]}
    metadata = {**said(GEMMA3, **spelling)[0], "gemma3.rope.freq_base": scalar("f32", 7e5)}
    report = Report()
    revised = GEMMA3.revise(config, {}, metadata, {}, report)
    assert (report.problems, [note.kind for note in report.notes]) == ([], ["warning"])
    assert set(revised) == set(config)
    assert GEMMA3.to_metadata(revised, {}, Report()) == metadata


def test_theta_of_gemma2_is_said_where_llama_cpp_would_take_another():
    assert "rope.freq_base" not in plain(GEMMA2, rope_theta=10000.0)
    assert plain(GEMMA2, rope_theta=20000.0)["rope.freq_base"] == 20000.0
    assert read(GEMMA2, **{"rope.freq_base": scalar("f32", 2e4)})["rope_theta"] == 2e4


TINY = [0.0, 1e-6, 3e-8, -7e-7, 2.0**-16, -0.25, 3.0, 2.0**24, 2.0**40, 1e30, 1e-39, float("inf")]
"""Numbers whose sum with 1 has all their bits, some of them or none."""


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_no_bit_of_a_norm_is_lost(dtype, tmp_path):
    source = tiny.checkpoint(
        tmp_path / "source",
        "Gemma2ForCausalLM",
        entries=GEMMA,
        dtype=dtype,
        tokenizer=sentencepieces.gemma(),
    )
    weights = load_file(source / "model.safetensors")
    norm = weights["model.layers.1.input_layernorm.weight"]
    norm[: len(TINY)] = torch.tensor(TINY).to(norm.dtype)
    norm[20:23] = torch.tensor([-0.0, -1.0, float("nan")])
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    wb.convert(source, tmp_path / "x.gguf")
    with wb.open(tmp_path / "x.gguf") as model:
        kept = [key for key in model.metadata if key.startswith(originals.PREFIX)]
    assert f"{originals.PREFIX}model.layers.1.input_layernorm.weight" in kept
    assert len(kept) == (1 if dtype != "float32" else 9)
    wb.convert(tmp_path / "x.gguf", tmp_path / "again")
    back = load_file(tmp_path / "again" / "model.safetensors")
    assert list(back) == list(weights)
    for name, tensor in weights.items():
        assert back[name].dtype == tensor.dtype
        assert bytes(back[name].view(torch.uint8).numpy()) == bytes(
            tensor.view(torch.uint8).numpy()
        )


def test_a_norm_that_was_changed_since_wins():
    there, back, key = _changed_norm(np.float32([1.5, 1.25]))
    report = Report()
    found = originals.restored({"x": back}, key, lambda name: DENSE["f32"], report)
    assert found["x"].values().tolist() == [0.5, 0.25]
    assert [note.kind for note in report.notes] == ["warning"]
    there, back, key = _changed_norm(np.float32([0.1, 0.2]) + np.float32(1))
    found = originals.restored({"x": back}, key, lambda name: DENSE["f32"], report)
    assert found["x"].values().tolist() == np.float32([0.1, 0.2]).tolist()
    assert there.values().tolist() != found["x"].values().tolist()


def _changed_norm(stored):
    """Return a stored norm, the norm of the checkpoint, and the key that keeps 0.1 and 0.2."""
    there = from_array("y", stored)
    (back,) = apply(Add(-1.0), [there])
    content = np.float32([0.1, 0.2]).tobytes()
    return there, back, {f"{originals.PREFIX}x": array("u8", list(content))}


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (array("u8", [1, 2, 3]), DENSE["f32"]),
        (array("u8", [1] * 8), None),
        (array("u8", [1] * 8), DENSE["bf16"]),
        (array("u32", [1] * 8), DENSE["f32"]),
        (scalar("u32", 8), DENSE["f32"]),
    ],
)
def test_a_kept_norm_that_is_none_is_refused(value, dtype):
    _, back, _ = _changed_norm(np.float32([1.5, 1.25]))
    report = Report()
    found = originals.restored(
        {"x": back}, {f"{originals.PREFIX}x": value}, lambda name: dtype, report
    )
    assert found == {"x": back}
    assert [problem.rule for problem in report.problems] == ["value-type"]


@pytest.mark.parametrize("arch", [GEMMA2, GEMMA3], ids=lambda arch: arch.name)
def test_every_key_that_a_file_lacks_is_told(arch):
    report = Report()
    arch.to_config({f"{arch.name}.{PATTERN}": array("bool", [True])}, {}, report)
    assert {problem.rule for problem in report.problems} == {"missing-key"}
    report = Report()
    arch.to_config({**said(arch)[0], f"{arch.name}.{PATTERN}": array("bool", [True])}, {}, report)
    assert "config-type" in {problem.rule for problem in report.problems}


def test_an_output_layer_that_is_there_all_the_same(tmp_path):
    """Gemma 2 has no place for it and says so; Gemma 3 keeps it."""
    for name, kept in (("gemma2", False), ("gemma3", True)):
        source = tmp_path / name
        tiny.copied(converted.source(name), source)
        weights = load_file(source / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] * 2
        save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
        plan = wb.plan(source, tmp_path / f"{name}.gguf")
        assert ("output.weight" in plan.model.tensors) == kept
        kinds = {note.kind for note in plan.notes if note.subject == "lm_head.weight"}
        assert kinds == {"tied" if kept else "dropped"}


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "gemma3-untied-capped"])
def test_a_file_of_others_is_the_same_model_in_transformers(name, tmp_path):
    wb.convert(converted.theirs(name), tmp_path / "back", dtype="float32")
    assert torch.equal(*map(_logits, (converted.source(name), tmp_path / "back")))


def _logits(directory):
    """Return what a checkpoint computes, in float32, of a text that is longer than the window."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.arange(40, 60)[None]).logits


@pytest.mark.parametrize("arch", [GEMMA2, GEMMA3], ids=lambda arch: arch.name)
def test_every_class_finds_its_family(arch):
    families = list(registry.architectures().values())
    for name in arch.classes:
        assert find(families, {"architectures": [name]}).name == arch.name
    assert find(families, {"model_type": arch.model_type}).name == arch.name
