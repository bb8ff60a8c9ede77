"""What a model is called, against llama.cpp's own reading of names and cards."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import yaml
from gguf.metadata import Metadata
from gguf.utility import size_label as their_size_label
from hypothesis import example, given
from hypothesis import strategies as st

from weighbridge.converters import general, modelcard
from weighbridge.errors import InvalidFile
from weighbridge.metadata import array, scalar, string
from weighbridge.report import Report
from weighbridge.tensor import from_array

NAMES = (
    "meta-llama/Llama-3.2-1B-Instruct",
    "mistralai/Mixtral-8x7B-v0.1",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "bigscience/bloom-7b1-petals",
    "Qwen/Qwen3-30B-A3B",
    "a name with spaces",
    "./Llama-2-7b-hf",
    "DeepSeek-V2",
    "model-small-7B-chat-v1.0-q4_0",
    "t5-small",
    "v1-v2-3",
    "NousResearch/Yarn-Llama-2-7b-128k",
    "-",
    "x-",
    "Meta-Llama-3.1-8B-bf16-lora-iter2",
)
WORDS = st.sampled_from(
    [
        "llama",
        "Llama",
        "3",
        "v1.5",
        "iter2",
        "7b",
        "7B",
        "7b1",
        "8x7B",
        "A3B",
        "1_5B",
        "128k",
        "small",
        "xl",
        "chat",
        "Instruct",
        "lora",
        "q4_0",
        "bf16",
        "f16",
        "hf",
        "x",
        "2.5",
        "350M",
    ]
)


@given(st.lists(WORDS, min_size=1, max_size=6).map("-".join), st.sampled_from([0, 10**6, 10**10]))
@example("Llama-3.2-1B", 1_236_000_000)
def test_parts_of_a_name(name, parameters):
    ours = general.name_parts(name, parameters)
    assert tuple(vars(ours).values()) == Metadata.get_model_id_components(name, parameters)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_known_names(name):
    ours = general.name_parts(name, 7_000_000_000)
    assert tuple(vars(ours).values()) == Metadata.get_model_id_components(name, 7_000_000_000)


@given(st.text("aB1-v. é", max_size=12))
def test_titles(name):
    assert general.title(name) == Metadata.id_to_title(name)


@given(st.integers(1, 10**13))
def test_size_of_a_dense_model(count):
    one = from_array("x", np.zeros((1,), np.float32))
    object.__setattr__(one, "shape", (count,))
    assert general.size_label({"x": one}) == their_size_label(count, count, 0, 0)


def test_size_of_a_model_with_experts():
    tensors = {
        "token_embd.weight": from_array("x", np.zeros((100, 30), np.float32)),
        "blk.0.ffn_up_exps.weight": from_array("x", np.zeros((8, 40, 30), np.float32)),
        "blk.0.ffn_up_exps.bias": from_array("x", np.zeros((8, 40), np.float32)),
    }
    assert general.size_label(tensors) == their_size_label(3000 + 8 * 1240, 3000, 1240, 8)


FRONT = """license: other
license_name: 'some: licence'
license_link: https://example.org/x
language: [en, no, "zh"]
tags:
  - one
  - "two, three"
datasets:
- a/b
- https://huggingface.co/c/d-7B
version: 1.0
nested:
  deeper:
  - not this
empty:
flag: yes
folded: >
  not read
name: A Name
"""


def test_a_card_is_read_as_yaml_reads_it():
    ours = modelcard.read(f"---\n{FRONT}---\n# Title\n- not this\n".encode())
    theirs = yaml.safe_load(FRONT.replace("no,", '"no",'))
    assert set(theirs) - set(ours) == {"version", "nested", "empty", "flag", "folded"}
    assert ours == {key: theirs[key] for key in ours}


@pytest.mark.parametrize("content", [b"", b"# Title", b"---", b"--- \nlicense: mit\n---", b"\xff"])
def test_a_file_without_front_matter(content):
    assert modelcard.read(content) == {}


TEXTS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), min_size=1)


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=4),
        TEXTS | st.lists(TEXTS, min_size=1),
    )
)
def test_a_card_comes_back(card):
    content = modelcard.write(card, "Title")
    assert modelcard.read(content) == card
    front = re.match("---\n(.*)---\n\n# Title\n", content.decode(), re.DOTALL)
    assert front
    assert yaml.safe_load(front[1] or "{}") == card


def test_general_key_values_come_back_by_way_of_a_card():
    metadata = {
        "general.name": string("SmolLM2 135M"),
        "general.license": string("mit"),
        "general.license.link": string("http://x"),
        "general.tags": array("string", ["a", "b"]),
        "general.languages": array("string", ["en"]),
        "general.source.url": string("http://y"),
        "general.sampling.top_k": scalar("i32", 40),
    }
    report = Report()
    files = general.files(metadata, {"eos_token_id": 2}, report)
    assert json.loads(files["generation_config.json"]) == {"eos_token_id": 2, "top_k": 40}
    again = general.describe("directory", {}, files, {})
    assert {key: again[key] for key in metadata} == metadata
    assert not report.notes


def test_what_no_file_has_a_place_for_is_told():
    report = Report()
    general.files({"general.uuid": string("x"), "general.file_type": scalar("u32", 1)}, {}, report)
    assert [note.subject for note in report.notes] == ["general.uuid"]


def test_sampling_of_a_wrong_type():
    advice = {"generation_config.json": b'{"top_k": "many", "top_p": 0.5, "temperature": 1e99}'}
    assert general.describe("", {}, advice, {}) == {
        "general.type": string("model"),
        "general.sampling.top_p": scalar("f32", 0.5),
    }
    with pytest.raises(InvalidFile) as caught:
        general.files({"general.sampling.top_k": string("x")}, {}, Report())
    assert caught.value.rule == "config-type"
