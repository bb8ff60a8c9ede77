"""The Phi-3 family: LongRoPE both ways and in every spelling, parts of heads, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from families.phi3 import longrope
from hypothesis import given
from hypothesis import strategies as st
from support import converted
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import weighbridge as wb
from weighbridge import registry
from weighbridge.converters.architectures.longrope import (
    FACTORS,
    LONG,
    SHORT,
    rotary_dimensions,
)
from weighbridge.converters.architectures.phi3 import PHI3
from weighbridge.families import find
from weighbridge.metadata import scalar, string
from weighbridge.report import Report
from weighbridge.tensor import from_array

SIZES = {
    "vocab_size": 10,
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "intermediate_size": 6,
    "num_attention_heads": 2,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "original_max_position_embeddings": 256,
}

KEY = "phi3.rope.scaling.attn_factor"

FREE = {"attention_factor": 1.0}
"""What leaves the attention as it is."""


def said(**changes):
    """Return the key-values of a config, the rules it breaks, and what is told of it."""
    report = Report()
    config = {**SIZES, **changes}
    metadata = PHI3.to_metadata(config, {}, report)
    return metadata, [problem.rule for problem in report.problems], report.notes


def made(config):
    """Return the tensors that come from a config."""
    aspects = (tensor for aspect in PHI3.aspects for tensor in aspect.tensors(config))
    return {tensor.name: tensor for tensor in aspects}


def read(metadata, tensors):
    """Return the config that a file of others says, and the rules it breaks."""
    report = Report()
    embedding = from_array("token_embd.weight", np.zeros((10, 16), np.float32))
    config = PHI3.to_config(metadata, {**tensors, "token_embd.weight": embedding}, report)
    return config, [problem.rule for problem in report.problems]


def without(rope, *names, **entries):
    """Return rotary parameters without some entries and with others."""
    return {**{name: rope[name] for name in rope if name not in names}, **entries}


THETA = {"rope_theta": 20000.0}
OLD = without(longrope(), "rope_type", "rope_theta", type="longrope")

SPELLINGS = {
    "new": {"rope_parameters": longrope()},
    "old": {**THETA, "rope_scaling": OLD},
    "su": {**THETA, "rope_scaling": {**OLD, "type": "su"}},
    "yarn": {**THETA, "rope_scaling": {**OLD, "type": "yarn"}},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_says_the_same(spelling):
    config = SPELLINGS[spelling]
    metadata, problems, notes = said(**config)
    assert (problems, notes) == ([], [])
    assert metadata["phi3.rope.freq_base"] == scalar("f32", 20000.0)
    tensors = made({**SIZES, **config})
    assert {FACTORS[name]: tensor.values().tolist() for name, tensor in tensors.items()} == {
        name: np.float32(longrope()[name]).tolist() for name in FACTORS.values()
    }


@pytest.mark.parametrize(
    "entries",
    [{}, {"factor": 8.0}, {"factor": 0.5}, {"attention_factor": 1.7}, FREE],
    ids=str,
)
def test_the_attention_is_multiplied_by_what_transformers_does(entries):
    config = {**SIZES, "rope_parameters": longrope(**entries)}
    theirs = transformers.Phi3Config(**json.loads(json.dumps(config)))
    _, factor = ROPE_INIT_FUNCTIONS["longrope"](theirs, "cpu")
    metadata, problems, _ = said(**config)
    assert problems == []
    assert metadata[KEY] == scalar("f32", factor)


@pytest.mark.parametrize("entries", [{}, {"attention_factor": 1.7}, FREE], ids=str)
def test_longrope_comes_back_from_key_values_and_tensors(entries):
    rope = longrope(**entries)
    metadata, _, _ = said(rope_parameters=rope)
    config, problems = read(metadata, made({**SIZES, "rope_parameters": rope}))
    assert problems == []
    scaling = {name: [float(str(np.float32(f))) for f in rope[name]] for name in FACTORS.values()}
    assert config["rope_scaling"] == {"type": "longrope", **scaling, **entries}
    assert config["rope_theta"] == 20000.0
    assert config["original_max_position_embeddings"] == 256
    assert config["sliding_window"] is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope-type"),
        ({"rope_scaling": {"type": "longrope"}}, "config-type"),
        ({"rope_scaling": {**OLD, "long_factor": [1.0]}}, "config-type"),
        ({"rope_scaling": {**OLD, "short_factor": [1.0, 2.0, 3.0, "4"]}}, "config-type"),
        ({"rope_scaling": {**OLD, "short_factor": "1234"}}, "config-type"),
        ({"rope_scaling": {**OLD, "factor": "2"}}, "config-type"),
        ({"rope_scaling": OLD, "original_max_position_embeddings": 1}, "config-type"),
        ({"partial_rotary_factor": 0.2}, "config-type"),
        ({"partial_rotary_factor": 0.4}, "config-type"),
        ({"partial_rotary_factor": 1.5}, "config-type"),
        ({"partial_rotary_factor": "half"}, "config-type"),
        ({"head_dim": 4}, "config-type"),
        ({"sliding_window": -1}, "config-type"),
        ({"hidden_act": "gelu"}, "config-value"),
        ({"attention_bias": True}, "config-value"),
    ],
)
def test_what_gguf_cannot_say_is_refused(changes, rule):
    assert set(said(**changes)[1]) == {rule}


NUMBERS = np.float32([1.5, 2, 3, 4])


@pytest.mark.parametrize(
    ("tensors", "metadata", "rule"),
    [
        ({LONG: NUMBERS}, {}, "rope-factors"),
        ({}, {KEY: scalar("f32", 1.5)}, "rope-factors"),
        ({LONG: NUMBERS, SHORT: np.zeros((2, 2), np.float32)}, {}, "rope-factors"),
        ({LONG: NUMBERS, SHORT: NUMBERS * np.inf}, {}, "rope-factors"),
        ({}, {"phi3.rope.scaling.type": string("yarn")}, "rope-type"),
        ({}, {"phi3.rope.dimension_count": scalar("u32", 9)}, "config-type"),
        ({}, {"phi3.rope.dimension_count": scalar("u32", 0)}, "config-type"),
    ],
)
def test_a_file_that_no_config_can_say_is_refused(tensors, metadata, rule):
    stored = {name: from_array(name, array) for name, array in tensors.items()}
    assert read({**said()[0], **metadata}, stored)[1] == [rule]


def test_a_file_without_a_trained_length_takes_the_context_for_it():
    """As llama.cpp does; transformers would take 4096."""
    metadata = said()[0]
    del metadata["phi3.rope.scaling.original_context_length"]
    config, problems = read({**metadata, "phi3.rope.scaling.type": string("longrope")}, {})
    assert (config["original_max_position_embeddings"], problems) == (1024, [])


def test_every_key_that_a_file_lacks_is_told():
    assert set(read({}, {})[1]) == {"missing-key"}


@given(head=st.integers(2, 128).map(lambda half: 2 * half), count=st.integers(1, 128))
def test_every_part_of_a_head_goes_both_ways(head, count):
    count = min(2 * count, head)
    sizes = {"hidden_size": 2 * head}
    metadata = {**said(**sizes)[0], "phi3.rope.dimension_count": scalar("u32", count)}
    config, problems = read(metadata, {})
    assert problems == []
    assert ("partial_rotary_factor" in config) == (count != head)
    assert rotary_dimensions({**SIZES, **sizes, **config}) == count


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "changed",
    [
        {"phi3.rope.freq_base": scalar("f32", 7e5)},
        {KEY: scalar("f32", 1.25)},
    ],
    ids=str,
)
def test_what_was_changed_is_put_where_the_config_has_it(spelling, changed):
    config = {**SIZES, **SPELLINGS[spelling]}
    if spelling == "new":
        config["rope_parameters"] = {**config["rope_parameters"], "partial_rotary_factor": 1.0}
    metadata = {**said(**config)[0], **changed}
    report = Report()
    revised = PHI3.revise(config, {}, metadata, made(config), report)
    assert (report.problems, [note.subject for note in report.notes]) == ([], list(changed))
    assert set(revised) == set(config)
    assert PHI3.to_metadata(revised, {}, Report()) == metadata


@pytest.mark.parametrize(
    "spelling",
    [{"partial_rotary_factor": 1.0}, {"rope_parameters": {"partial_rotary_factor": 1.0}}],
    ids=["old", "new"],
)
def test_a_changed_part_is_put_where_the_config_has_it(spelling):
    config = {**SIZES, **spelling}
    metadata = {**said(**config)[0], "phi3.rope.dimension_count": scalar("u32", 6)}
    revised = PHI3.revise(config, {}, metadata, {}, Report())
    assert set(revised) == set(config)
    assert rotary_dimensions(revised) == 6


@pytest.mark.parametrize(
    ("window", "stored", "told"), [(None, 0, False), (512, 512, True), (1024, 1024, False)]
)
def test_a_window_is_said_and_not_computed(window, stored, told):
    metadata, problems, notes = said(sliding_window=window)
    assert problems == []
    assert metadata["phi3.attention.sliding_window"] == scalar("u32", stored)
    assert [note.subject for note in notes] == ["config.json's sliding_window"] * told
    assert read(metadata, {})[0]["sliding_window"] == window


FOREIGN = ["phi3", "phi3-su-short-window-old", "phi4-mini-partial-long-tied-sharded"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_others_is_the_same_model_in_transformers(name, tmp_path):
    wb.convert(converted.theirs(name), tmp_path / "back", dtype="float32")
    if "q8_0" in converted.CASES[name].outtype:
        wb.convert(converted.ours(name, "q8_0"), tmp_path / "q8_0", dtype="float32")
        expected = tmp_path / "q8_0"
    else:
        expected = converted.source(name)
    assert torch.equal(*map(_logits, (expected, tmp_path / "back")))


def _logits(directory):
    """Return what a checkpoint computes, in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.arange(40, 60)[None]).logits


def test_the_class_finds_its_family():
    families = list(registry.architectures().values())
    assert find(families, {"architectures": ["Phi3ForCausalLM"]}).name == "phi3"
    assert find(families, {"model_type": "phi3"}).name == "phi3"
