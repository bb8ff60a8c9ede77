"""Qwen2 and Qwen3, dense and with experts: biases, norms of heads, windows, bare names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support import tiny

from families.case import DECODER, Case

if TYPE_CHECKING:
    from collections.abc import Mapping

YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}

LINEAR = {"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0}

WINDOW = {
    "use_sliding_window": True,
    "sliding_window": 512,
    "max_window_layers": 1,
    "num_hidden_layers": 3,
}
"""No window that a short prompt feels: llama.cpp has none."""

WIDE = {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 24, "hidden_size": 33}

EXPERTS = {
    **DECODER,
    "head_dim": 16,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "norm_topk_prob": True,
}

MODULES = b"""[
 {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
 {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
]
"""

LAST_TOKEN = b"""{
 "word_embedding_dimension": 48,
 "pooling_mode_cls_token": false,
 "pooling_mode_mean_tokens": false,
 "pooling_mode_lasttoken": true
}
"""


def smollm2_kept() -> Mapping[str, bytes]:
    """Return SmolLM2's tokenizer, marked so that transformers takes it for what it is.

    For a ``qwen2`` it would else put Qwen's own pre-tokenizer in its place, in the converter too.
    """
    files = tiny.smollm2_tokenizer()
    settings = json.loads(files["tokenizer_config.json"])
    settings["auto_map"] = {"AutoTokenizer": ["elsewhere.Slow", "elsewhere.Fast"]}
    return {**files, "tokenizer_config.json": json.dumps(settings).encode()}


def of_transformers_4(settings: dict[str, Any]) -> None:
    """Call the number of experts what transformers 4 does."""
    settings["num_experts"] = settings.pop("num_local_experts")


CASES = (
    Case("qwen2", "Qwen2ForCausalLM", {**DECODER}, tokenizer=smollm2_kept),
    Case(
        "qwen2-yarn-window-old-sharded",
        "Qwen2ForCausalLM",
        {**DECODER, **WINDOW, "rope_parameters": YARN, "tie_word_embeddings": True},
        dtype="float16",
        outtype="f16",
        tokenizer=smollm2_kept,
        old_spelling=True,
        shard_size="1MB",
    ),
    Case(
        "qwen2-head_dim-linear-q8_0",
        "Qwen2ForCausalLM",
        {**DECODER, **WIDE, "hidden_size": 96, "head_dim": 32, "rope_parameters": LINEAR},
        dtype="float32",
        outtype="q8_0",
        tokenizer=smollm2_kept,
    ),
    Case(
        "qwen2-bare-embedding-f32",
        "Qwen2Model",
        {**DECODER},
        outtype="f32",
        tokenizer=smollm2_kept,
        files={"modules.json": MODULES, "1_Pooling/config.json": LAST_TOKEN},
    ),
    Case("qwen3", "Qwen3ForCausalLM", {**DECODER, **WIDE}),
    Case(
        "qwen3-yarn-tied-f32",
        "Qwen3ForCausalLM",
        {**DECODER, "head_dim": 16, "rope_parameters": YARN, "tie_word_embeddings": True},
        dtype="float32",
        outtype="f32",
        old_spelling=True,
    ),
    Case(
        "qwen3-window-q8_0",
        "Qwen3ForCausalLM",
        {**DECODER, **WINDOW, "hidden_size": 96, "head_dim": 16},
        outtype="q8_0",
        shard_size="4MB",
    ),
    Case("qwen3_moe", "Qwen3MoeForCausalLM", EXPERTS),
    Case(
        "qwen3_moe-old-f16",
        "Qwen3MoeForCausalLM",
        {
            **DECODER,
            "num_experts": 12,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "rope_parameters": YARN,
            "tie_word_embeddings": True,
        },
        dtype="float16",
        outtype="f16",
        old_spelling=True,
        edit=of_transformers_4,
    ),
    Case(
        "qwen3_moe-sharded-q8_0",
        "Qwen3MoeForCausalLM",
        {**EXPERTS, "hidden_size": 96, "moe_intermediate_size": 64},
        outtype="q8_0",
        shard_size="100KB",
    ),
)
