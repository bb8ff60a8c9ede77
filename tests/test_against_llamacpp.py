"""Our GGUF files against those of llama.cpp's own converter: every byte, every key-value.

`llamacpp.EXPECTED_DIFFERENCES` is the one list of what differs, and why.
"""

from __future__ import annotations

import pytest
from support import llamacpp, tiny

import weighbridge as wb

YARN = {
    "rope_type": "yarn",
    "rope_theta": 20000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "attention_factor": 1.2,
    "beta_fast": 16.0,
    "beta_slow": 2.0,
}

CARD = b"""---
license: apache-2.0
language:
- en
- no
tags: [chat, "a b"]
pipeline_tag: text-generation
base_model: meta-llama/Llama-3.2-1B
datasets:
- https://huggingface.co/datasets/some
- HuggingFaceTB/smol-smoltalk
---
# A model
"""

CASES = {
    "llama-bf16": ("llama", "bf16", {"dtype": "bfloat16"}),
    "biased-odd-rows-q8_0": ("llama-biased", "q8_0", {"intermediate_size": 40}),
    "wide-heads-linear-f32": (
        "llama-wide-heads",
        "f32",
        {
            "dtype": "float16",
            "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
            "old_spelling": True,
        },
    ),
    "llama3-bf16": (
        "llama3",
        "bf16",
        {"dtype": "bfloat16", "old_spelling": True, "num_key_value_heads": 4},
    ),
    "mistral-yarn-tied-sharded-f16": (
        "mistral",
        "f16",
        {
            "dtype": "bfloat16",
            "rope_parameters": YARN,
            "tie_word_embeddings": True,
            "shard_size": "1MB",
        },
    ),
}
"""Name -> family, the converter's output type, what is special; each costs seconds."""


@pytest.fixture(scope="module", params=CASES)
def files(request, tmp_path_factory):
    """A tiny checkpoint converted by us and by llama.cpp."""
    family, outtype, settings = CASES[request.param]
    folder = tmp_path_factory.mktemp("converted")
    source = tiny.checkpoint(
        folder / "org-Tiny-0.1B-chat-v1.5",
        family,
        tokenizer={**tiny.smollm2_tokenizer(), "README.md": CARD},
        vocab_size=49152,
        **settings,
    )
    theirs = llamacpp.convert(source, folder / "theirs.gguf", outtype)
    ours = folder / "ours.gguf"
    wb.convert(source, ours, quantize=outtype)
    return ours, theirs


def test_every_tensor_has_the_same_bytes(files):
    assert llamacpp.different_tensors(*files) == {}


def test_every_key_value_is_equal(files):
    different = llamacpp.different_keys(*files)
    assert {
        key: both for key, both in different.items() if key not in llamacpp.EXPECTED_DIFFERENCES
    } == {}
    assert set(different) == set(llamacpp.EXPECTED_DIFFERENCES)  # a line that is not needed goes


def test_keys_and_tensors_have_the_same_order(files):
    with wb.open(files[0]) as ours, wb.open(files[1]) as theirs:
        assert [key for key in ours.metadata if key in theirs.metadata] == list(theirs.metadata)
        assert list(ours.tensors) == list(theirs.tensors)


def test_a_file_by_the_converter_comes_back_as_the_checkpoint(files, tmp_path):
    """The converter's file carries no config: theirs and ours must still mean the same model."""
    for number, path in enumerate(files):
        wb.convert(path, tmp_path / str(number), dtype="float32")
    differences = wb.diff(tmp_path / "0", tmp_path / "1")
    assert all(difference.equal for difference in differences)
