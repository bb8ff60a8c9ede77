"""The Llama family: config and key-values, rotary embeddings, what is refused."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from families import CASES
from hypothesis import assume, given
from hypothesis import strategies as st
from support import tiny
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from weighbridge.converters.architectures.llama import LLAMA
from weighbridge.converters.architectures.llama3_scaling import (
    FREQS,
    llama3_factors,
    recover_llama3,
)
from weighbridge.converters.architectures.rope import parameters
from weighbridge.errors import Error
from weighbridge.families import find
from weighbridge.metadata import scalar, string
from weighbridge.report import Report
from weighbridge.tensor import from_array

CLASS = "LlamaForCausalLM"

SIZES = {
    "vocab_size": 10,
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}


def said(**changes):
    """Return the key-values of a config and the rules it breaks."""
    report = Report()
    metadata = LLAMA.to_metadata({**SIZES, **changes}, {}, report)
    return {k: v.plain() for k, v in metadata.items()}, [p.rule for p in report.problems], report


def read(metadata, tensors=None):
    """Return the config that key-values say and the rules they break."""
    report = Report()
    config = LLAMA.to_config(metadata, tensors or {"output.weight": None}, report)
    return config, [problem.rule for problem in report.problems]


METADATA = LLAMA.to_metadata(SIZES, {}, Report())


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "MistralForCausalLM"])
def test_classes(name):
    assert find([LLAMA], {"architectures": [name]}) is LLAMA
    assert find([LLAMA], {"model_type": "llama"}) is LLAMA


@pytest.mark.parametrize(
    "config",
    [{"architectures": ["MixtralForCausalLM"]}, {"architectures": 3}, {"model_type": "bert"}, {}],
)
def test_other_classes_are_refused(config):
    with pytest.raises(Error) as caught:
        find([LLAMA], config)
    assert caught.value.rule == "unknown-family"


def test_what_a_config_leaves_out_is_derived():
    metadata, problems, _ = said()
    assert problems == []
    assert metadata["llama.attention.head_count_kv"] == 2
    assert metadata["llama.attention.key_length"] == 4
    assert metadata["llama.attention.value_length"] == 4
    assert metadata["llama.rope.dimension_count"] == 4
    assert metadata["llama.rope.freq_base"] == 10000.0


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.model == CLASS], ids=str)
def test_a_config_comes_back_from_its_key_values(case):
    config = tiny.config(case.model, **case.config).to_dict()
    report = Report()
    metadata = LLAMA.to_metadata(config, {}, report)
    made = {tensor.name: tensor for aspect in LLAMA.aspects for tensor in aspect.tensors(config)}
    back = LLAMA.to_config(metadata, {**made, "output.weight": None}, report)
    assert not report.problems
    assert LlamaConfig(**back).rope_parameters == LlamaConfig(**config).rope_parameters
    for key in ("hidden_size", "num_key_value_heads", "head_dim", "rms_norm_eps", "vocab_size"):
        assert back[key] == config[key]


@pytest.mark.parametrize(
    "key",
    ["vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
     "max_position_embeddings", "rms_norm_eps"],
)  # fmt: skip
def test_a_missing_key_is_told_once_by_name(key):
    report = Report()
    config = {k: v for k, v in SIZES.items() if k != key}
    LLAMA.to_metadata(config, {}, report)
    LLAMA.from_canonical({"x": from_array("x", np.zeros(1, np.float32))}, config, report)
    told = [p for p in report.problems if p.rule == "missing-config"]
    assert [p.problem for p in told] == [f"config.json lacks {key}"]


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": "8"}, {"hidden_size": True}, {"hidden_size": 0}, {"hidden_size": -8},
     {"num_attention_heads": 1 << 40}, {"rms_norm_eps": 1e99}, {"rope_theta": [1]},
     {"rope_scaling": 3}, {"tie_word_embeddings": 1}, {"head_dim": 2.5}],
)  # fmt: skip
def test_a_value_of_a_wrong_kind(changes):
    report = Report()
    config = {**SIZES, **changes}
    LLAMA.to_metadata(config, {}, report)
    LLAMA.from_canonical({}, config, report)
    assert "config-type" in {problem.rule for problem in report.problems}


def test_another_activation_is_refused():
    assert said(hidden_act="gelu")[1] == ["config-value"]
    assert said(hidden_act="swish")[1] == []


def test_a_sliding_window_is_told():
    _, problems, report = said(sliding_window=4096)
    assert problems == []
    assert [(n.kind, n.subject) for n in report.notes] == [
        ("dropped", "config.json's sliding_window")
    ]


@pytest.mark.parametrize(
    ("size", "key", "value"),
    [(49152, "tokenizer.ggml.add_bos_token", False), (32016, "tokenizer.ggml.eot_token_id", 32010)],
)
def test_quirks_of_the_converter(size, key, value):
    assert said(vocab_size=size)[0][key] == value
    assert key not in said()[0]


def test_a_missing_key_value_is_named():
    for key in METADATA:
        config, problems = read({k: v for k, v in METADATA.items() if k != key})
        optional = key.removeprefix("llama.") in (
            "attention.head_count_kv", "attention.key_length", "attention.value_length",
            "rope.dimension_count", "rope.freq_base", "general.file_type",
        )  # fmt: skip
        assert problems == ([] if optional else ["missing-key"]), key
        assert config["model_type"] == "llama"


def test_flags_follow_from_the_tensors():
    config, _ = read(METADATA, {"blk.0.attn_q.bias": None})
    assert (config["tie_word_embeddings"], config["attention_bias"], config["mlp_bias"]) == (
        True,
        True,
        False,
    )


def test_a_contradiction_is_told():
    """Partial rotation, say, is nothing that a Llama can do."""
    metadata = {**METADATA, "llama.rope.dimension_count": scalar("u32", 2)}
    assert read(metadata)[1] == ["contradiction"]


def test_an_unknown_key_value_is_told():
    report = Report()
    LLAMA.to_config({**METADATA, "llama.expert_count": scalar("u32", 8)}, {}, report)
    assert [note.subject for note in report.notes] == ["llama.expert_count"]


def test_floats_have_their_shortest_form():
    key = "llama.attention.layer_norm_rms_epsilon"
    stored = scalar("f32", float(np.float32(1e-5)))
    assert stored.data != 1e-5
    assert read({**METADATA, key: stored})[0]["rms_norm_eps"] == 1e-5


LLAMA3 = {k: v for k, v in tiny.LLAMA3.items() if k not in ("rope_type", "rope_theta")}
NUMBERS = tuple(LLAMA3.values())

SPELLINGS = {
    "5": lambda kind, rest: {"rope_parameters": {"rope_type": kind, "rope_theta": 5e4, **rest}},
    "4": lambda kind, rest: {"rope_theta": 5e4, "rope_scaling": {"rope_type": kind, **rest}},
    "4.0": lambda kind, rest: {"rope_theta": 5e4, "rope_scaling": {"type": kind, **rest}},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("default", {}),
        ("linear", {"factor": 2.0}),
        ("yarn", {"factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0}),
        ("yarn", {"factor": 4.0}),
        ("llama3", LLAMA3),
    ],
)
def test_both_spellings_are_read_as_transformers_does(spelling, kind, numbers):
    config = {**SIZES, **SPELLINGS[spelling](kind, numbers)}
    assert parameters(config) == {
        key: value for key, value in LlamaConfig(**config).rope_parameters.items() if key != "type"
    }
    report = Report()
    LLAMA.to_metadata(config, {}, report)
    assert not report.problems


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "su", "mine", 3, ["linear"]])
def test_other_kinds_are_refused_by_name(kind):
    assert said(rope_scaling={"rope_type": kind, "factor": 2.0})[1] == ["rope-type"]


@pytest.mark.parametrize(("kind", "lacks"), [("linear", "factor"), ("yarn", "factor")])
def test_a_scaling_that_lacks_a_number(kind, lacks):
    _, problems, report = said(rope_scaling={"rope_type": kind})
    assert problems == ["missing-config"]
    assert lacks in report.problems[0].problem


@pytest.mark.parametrize("lacks", [name for name in LLAMA3 if "original" not in name])
def test_llama3_that_lacks_a_number(lacks):
    numbers = {k: v for k, v in LLAMA3.items() if k != lacks}
    report = Report()
    LLAMA.from_canonical({}, {**SIZES, "rope_scaling": {"rope_type": "llama3", **numbers}}, report)
    assert report.problems[0].problem == f"config.json lacks rope_scaling.{lacks}"


def test_what_llama_cpp_cannot_do_is_told():
    yarn = {"rope_type": "yarn", "factor": 4.0, "truncate": False, "mscale": 1.0}
    _, problems, report = said(rope_scaling=yarn)
    assert problems == []
    assert [note.subject for note in report.notes] == [
        "rope_scaling.truncate",
        "rope_scaling.mscale",
    ]


@pytest.mark.parametrize("head", [8, 64, 80, 128])
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_llama3_factors_against_transformers(head, theta):
    """Dividing the frequencies by our factors gives transformers' scaled frequencies."""
    config = SimpleNamespace(
        rope_parameters={"rope_theta": theta, **LLAMA3},
        head_dim=head,
        standardize_rope_params=lambda: None,
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = theta ** -(np.arange(0, head, 2) / head)
    ours = plain / llama3_factors(theta, head, *NUMBERS)
    np.testing.assert_allclose(ours, scaled.numpy(), rtol=3e-6)


@given(
    st.sampled_from([10000.0, 500000.0, 1e6]),
    st.sampled_from([32, 64, 96, 128]),
    st.sampled_from([2.0, 8.0, 32.0]),
    st.sampled_from([2.0, 4.0, 8.0]),
    st.sampled_from([2048, 4096, 8192, 131072]),
)
def test_llama3_is_recovered_from_its_factors(theta, head, factor, high, original):
    factors = llama3_factors(theta, head, factor, 1.0, high, original)
    between = np.count_nonzero((factors > 1) & (factors < factor))
    assume(between > 1 and factors[-1] == factor)
    found = recover_llama3(factors, theta)
    assert list(found.values()) == [factor, 1.0, high, original]


@pytest.mark.parametrize("noise", [0, 1])
def test_a_foreign_file_of_llama3(noise):
    """Other machines' powers differ in the last bit: the numbers are the same."""
    factors = llama3_factors(500000.0, 128, *NUMBERS)
    factors = np.nextafter(factors, np.float32(math.inf)) if noise else factors
    factors = np.where((factors > 1.1) & (factors < 31.9), factors, np.round(factors))
    metadata = {**METADATA, "llama.rope.freq_base": scalar("f32", 500000.0)}
    config, problems = read(metadata, {FREQS: from_array(FREQS, np.float32(factors))})
    assert problems == []
    assert config["rope_scaling"] == {"rope_type": "llama3", **LLAMA3}


@pytest.mark.parametrize(
    "factors",
    [np.linspace(1, 8, 64), np.full(64, np.nan), np.full(64, np.inf), np.zeros((2, 2)), np.zeros(0),
     -np.ones(4), np.zeros(4), np.float32([1, 2, 2.5, 8])],
)  # fmt: skip
def test_other_factors_are_refused(factors):
    tensors = {FREQS: from_array(FREQS, factors.astype(np.float32))}
    assert read(METADATA, tensors)[1] == ["rope-factors"]


def test_factors_of_one_change_nothing():
    config, problems = read(METADATA, {FREQS: from_array(FREQS, np.ones(2, np.float32))})
    assert problems == []
    assert "rope_scaling" not in config


def test_factors_beside_another_scaling_are_refused():
    metadata = {
        **METADATA,
        "llama.rope.scaling.type": string("linear"),
        "llama.rope.scaling.factor": scalar("f32", 2.0),
    }
    tensors = {FREQS: from_array(FREQS, llama3_factors(1e4, 64, *NUMBERS))}
    assert read(metadata, tensors)[1] == ["rope-factors"]


@pytest.mark.parametrize(
    ("metadata", "scaling"),
    [
        ({"type": string("none")}, None),
        ({"type": string("linear"), "factor": scalar("f32", 2.0)},
         {"rope_type": "linear", "factor": 2.0}),
        ({"../scale_linear": scalar("f32", 2.0)}, {"rope_type": "linear", "factor": 2.0}),
        ({"../scale_linear": scalar("f32", 1.0)}, None),
    ],
)  # fmt: skip
def test_scaling_of_a_foreign_file(metadata, scaling):
    keys = {f"llama.rope.scaling.{k}".replace("scaling.../", ""): v for k, v in metadata.items()}
    config, problems = read({**METADATA, **keys})
    assert problems == []
    assert config.get("rope_scaling") == scaling


@pytest.mark.parametrize(
    ("value", "rule"),
    [("longrope", "rope-type"), ("yarn", "missing-key"), ("linear", "missing-key")],
)
def test_scaling_of_a_foreign_file_that_is_refused(value, rule):
    assert read({**METADATA, "llama.rope.scaling.type": string(value)})[1] == [rule]


def revised(changes, **config):
    before = {**SIZES, **config}
    report = Report()
    after = LLAMA.revise(
        before, {}, {**LLAMA.to_metadata(before, {}, report), **changes}, {}, report
    )
    return {k: v for k, v in after.items() if k not in before or before[k] != v}, report


def test_what_nobody_changed_stays():
    odd = {"rope_theta": 10000, "num_key_value_heads": None, "rms_norm_eps": 9.999999974752427e-06}
    changed, report = revised({}, **odd)
    assert changed == {}
    assert (report.notes, report.problems) == ([], [])


def test_a_changed_key_value_wins():
    changed, report = revised({"llama.context_length": scalar("u32", 4096)})
    assert changed == {"max_position_embeddings": 4096}
    assert [note.subject for note in report.notes] == ["llama.context_length"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"rope_theta": 1e4}, {"rope_theta": 5e5, "rope_scaling": None}),
        (
            {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        ),
    ],
)
def test_a_changed_theta_is_spelled_as_the_config_does(config, expected):
    changed, _ = revised({"llama.rope.freq_base": scalar("f32", 5e5)}, **config)
    assert changed == expected


def test_added_scaling_wins():
    added = {
        "llama.rope.scaling.type": string("linear"),
        "llama.rope.scaling.factor": scalar("f32", 2.0),
    }
    changed, _ = revised(added, rope_parameters={"rope_theta": 1e4, "rope_type": "default"})
    assert changed == {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}


def test_the_config_is_json_after_all():
    config, _ = read(METADATA)
    assert json.loads(json.dumps(config)) == config
