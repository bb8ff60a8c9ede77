"""Granite: its multipliers, said and left to be 1, biases, tied, quantised."""

from __future__ import annotations

from families.case import DECODER, Case

MULTIPLIERS = {
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.15625,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}

LINEAR = {"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0}

CASES = (
    Case("granite", "GraniteForCausalLM", {**DECODER, **MULTIPLIERS}),
    Case(
        "granite-biased-tied-q8_0",
        "GraniteForCausalLM",
        {
            **DECODER,
            **MULTIPLIERS,
            "hidden_size": 96,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        dtype="float32",
        outtype="q8_0",
        old_spelling=True,
    ),
    Case(
        "granite-ones-linear-f32",
        "GraniteForCausalLM",
        {**DECODER, "rope_parameters": LINEAR, "num_hidden_layers": 3},
        dtype="float16",
        outtype="f32",
        shard_size="1MB",
    ),
)
