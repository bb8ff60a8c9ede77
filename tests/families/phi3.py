"""Phi-3 and Phi-4: fused matrices, grouped heads, LongRoPE for short and long texts, partial."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support import tiny

from families.case import DECODER, Case

if TYPE_CHECKING:
    from collections.abc import Mapping

HALF_HEAD = 4
"""Half the values of a head of `DECODER`."""


def longrope(count: int = HALF_HEAD, **entries: Any) -> dict[str, Any]:
    """Return a scaling with `count` factors of each kind, no two alike."""
    return {
        "rope_type": "longrope",
        "rope_theta": 20000.0,
        "long_factor": [1.5 + 2.3 * number for number in range(count)],
        "short_factor": [1.05 + 0.1 * number for number in range(count)],
        **entries,
    }


def smollm2_as_gpt2() -> Mapping[str, bytes]:
    """Return SmolLM2's tokenizer as Phi-4 has its own: llama.cpp's converter looks at the class."""
    files = dict(tiny.smollm2_tokenizer())
    settings = {
        **json.loads(files["tokenizer_config.json"]),
        "tokenizer_class": "GPT2Tokenizer",
    }
    return {**files, "tokenizer_config.json": json.dumps(settings).encode()}


def su(settings: dict[str, Any]) -> None:
    """Spell the scaling as Phi-3's first checkpoints do."""
    rope = settings["rope_scaling"]
    del rope["rope_type"]
    rope["type"] = "su"
    settings.pop("partial_rotary_factor", None)


ATTENTION_FACTOR = {
    "phi3.rope.scaling.attn_factor": "the config's own, which transformers computes with"
}

PLACE = {"phi3.rope.scaling.attn_factor": "stands before everything else in the converter's file"}

CASES = (
    Case("phi3", "Phi3ForCausalLM", {**DECODER}, tokenizer=smollm2_as_gpt2),
    Case(
        "phi3-su-short-window-old",
        "Phi3ForCausalLM",
        {
            **DECODER,
            "rope_parameters": longrope(),
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 512,
            "sliding_window": 2047,
        },
        dtype="float16",
        outtype="f16",
        tokenizer=smollm2_as_gpt2,
        old_spelling=True,
        edit=su,
        differs=PLACE,
    ),
    Case(
        "phi4-mini-partial-long-tied-sharded",
        "Phi3ForCausalLM",
        {
            **DECODER,
            "hidden_size": 96,
            "num_hidden_layers": 3,
            "rope_parameters": longrope(6, partial_rotary_factor=0.75),
            "original_max_position_embeddings": 4,
            "tie_word_embeddings": True,
        },
        outtype="q8_0",
        tokenizer=smollm2_as_gpt2,
        shard_size="1MB",
        differs=PLACE,
    ),
    Case(
        "phi3-attention-factor-f32",
        "Phi3ForCausalLM",
        {
            **DECODER,
            "num_key_value_heads": 6,
            "rope_parameters": longrope(attention_factor=1.3),
            "max_position_embeddings": 2048,
            "original_max_position_embeddings": 512,
        },
        dtype="float32",
        outtype="f32",
        tokenizer=smollm2_as_gpt2,
        differs=ATTENTION_FACTOR,
    ),
)
