"""Llama and Mistral: grouped heads, biases, wide heads, every rotary scaling, tied, sharded."""

from __future__ import annotations

from support import tiny

from families.case import DECODER, Case

YARN = {
    "rope_type": "yarn",
    "rope_theta": 20000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "attention_factor": 1.2,
    "beta_fast": 16.0,
    "beta_slow": 2.0,
}

LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}

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

CASES = (
    Case("llama", "LlamaForCausalLM", {**DECODER}, files={"README.md": CARD}),
    Case(
        "llama-biased-odd-rows-q8_0",
        "LlamaForCausalLM",
        {
            **DECODER,
            "attention_bias": True,
            "mlp_bias": True,
            "intermediate_size": 40,
            "hidden_size": 96,
        },
        dtype="float32",
        outtype="q8_0",
    ),
    Case(
        "llama-wide-heads-linear-f32",
        "LlamaForCausalLM",
        {
            **DECODER,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "hidden_size": 33,
            "rope_parameters": LINEAR,
        },
        dtype="float16",
        outtype="f32",
        old_spelling=True,
    ),
    Case(
        "llama3",
        "LlamaForCausalLM",
        {**DECODER, "head_dim": 64, "rope_parameters": tiny.LLAMA3},
        old_spelling=True,
    ),
    Case(
        "mistral-yarn-tied-sharded",
        "MistralForCausalLM",
        {
            **DECODER,
            "sliding_window": 64,
            "rope_parameters": YARN,
            "tie_word_embeddings": True,
        },
        outtype="f16",
        shard_size="1MB",
        differs={
            "llama.rope.scaling.attn_factor": "what llama.cpp reads: the converter writes the "
            "attention factor as yarn_attn_factor only, which it does not read"
        },
    ),
)
