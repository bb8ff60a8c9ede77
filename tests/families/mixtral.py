"""Mixtral: experts stacked beside permuted heads, sharded, quantised, in both spellings."""

from __future__ import annotations

from families.case import DECODER, Case

EXPERTS = {**DECODER, "head_dim": 8, "num_local_experts": 3, "num_experts_per_tok": 2}

CASES = (
    Case("mixtral", "MixtralForCausalLM", EXPERTS),
    Case(
        "mixtral-old-window-f32",
        "MixtralForCausalLM",
        {
            **EXPERTS,
            "num_local_experts": 12,
            "num_experts_per_tok": 3,
            "sliding_window": 512,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0},
            "tie_word_embeddings": True,
        },
        dtype="float16",
        outtype="f32",
        old_spelling=True,
    ),
    Case(
        "mixtral-sharded-q8_0",
        "MixtralForCausalLM",
        {**EXPERTS, "hidden_size": 96, "intermediate_size": 64, "head_dim": 16},
        outtype="q8_0",
        shard_size="4MB",
    ),
)
