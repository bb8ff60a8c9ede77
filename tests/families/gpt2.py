"""GPT-2: transposed matrices, odd heads, an inner size of its own, tied and untied, old masks."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from families.case import Case

GPT2 = MappingProxyType(
    {
        "vocab_size": 49152,
        "n_embd": 48,
        "n_layer": 2,
        "n_head": 3,
        "n_positions": 96,
        "layer_norm_epsilon": 1e-4,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
)
"""Sizes with SmolLM2's tokenizer, none of them equal to another or to a default."""


def _as_of_old(settings: dict[str, Any]) -> None:
    """Put in the context's second name, which llama.cpp's converter reads, and older spellings."""
    settings["n_ctx"] = settings["n_positions"]


def _by_common_names(settings: dict[str, Any]) -> None:
    """Call everything what other families call it: transformers reads that as well."""
    _as_of_old(settings)
    for own, common in (
        ("n_embd", "hidden_size"),
        ("n_layer", "num_hidden_layers"),
        ("n_head", "num_attention_heads"),
        ("n_positions", "max_position_embeddings"),
    ):
        settings[common] = settings.pop(own)


CASES = (
    Case("gpt2", "GPT2LMHeadModel", {**GPT2}, edit=_as_of_old, tolerance=2e-2),
    Case(
        "gpt2-untied-common-names-q8_0",
        "GPT2LMHeadModel",
        {**GPT2, "n_embd": 96, "n_layer": 3, "tie_word_embeddings": False},
        dtype="float32",
        outtype="q8_0",
        edit=_by_common_names,
        tolerance=2e-2,
    ),
    Case(
        "gpt2-sharded-f16",
        "GPT2LMHeadModel",
        {**GPT2, "n_inner": 192, "activation_function": "gelu_pytorch_tanh"},
        dtype="float16",
        outtype="f16",
        edit=_as_of_old,
        shard_size="1MB",
        tolerance=2e-2,
    ),
    Case(
        "gpt2-inner",
        "GPT2LMHeadModel",
        {**GPT2, "n_inner": 80},
        dtype="float16",
        edit=_as_of_old,
        tolerance=2e-2,
        refused="tensor-shape",
        differs={
            "gpt2.feed_forward_length": "the converter writes four times the width whatever "
            "n_inner says; llama.cpp refuses its file",
        },
    ),
)
