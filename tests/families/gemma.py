"""Gemma 2 and 3: norms plus 1, soft caps, windows by blocks, two thetas, SentencePiece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support import sentencepieces

from families.case import DECODER, Case

if TYPE_CHECKING:
    from collections.abc import Mapping

SLIDING, FULL = "sliding_attention", "full_attention"

GEMMA: Mapping[str, Any] = {
    **DECODER,
    "vocab_size": 3000,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 6,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
"""Every prompt of some length feels the window."""

WIDE = {"head_dim": 12, "query_pre_attn_scalar": 12}

PLACE = {
    "tokenizer.ggml.add_space_prefix": "stands after the special tokens in the converter's file"
}

NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


def norms(layers: int, names: Mapping[str, str]) -> dict[str, str]:
    """Return every norm in GGUF -> what it is called in a checkpoint."""
    blocks = {
        f"blk.{layer}.{here}.weight": f"model.layers.{layer}.{there}.weight"
        for layer in range(layers)
        for here, there in names.items()
    }
    return {**blocks, "output_norm.weight": "model.norm.weight"}


def halved(layers: int, names: Mapping[str, str] = NORMS) -> dict[str, str]:
    """Return the norms that the converter adds 1 to in half precision, under all their names."""
    found = norms(layers, names)
    why = "the converter adds 1 in half precision, which rounds"
    return dict.fromkeys((*found, *found.values()), why)


def kept(layers: int, names: Mapping[str, str] = NORMS) -> dict[str, str]:
    """Return the norms whose float32 the sum with 1 does not hold, and the keys that do."""
    found = norms(layers, names).values()
    why = "float32 plus 1 loses bits, which our file keeps beside the sum"
    return dict.fromkeys((*found, *(f"weighbridge.original.{name}" for name in found)), why)


def of_transformers_4(settings: dict[str, Any]) -> None:
    """Spell Gemma 3's rotary embeddings and windows as transformers 4 does."""
    settings["torch_dtype"] = settings.pop("dtype", None)
    rope = settings.pop("rope_parameters")
    settings["rope_local_base_freq"] = rope[SLIDING]["rope_theta"]
    settings["rope_theta"] = rope[FULL].pop("rope_theta")
    settings["rope_scaling"] = rope[FULL]
    settings["sliding_window_pattern"] = 2
    del settings["layer_types"]


def as_on_the_hub(settings: dict[str, Any]) -> None:
    """Leave out what the class has for a default."""
    for key in ("tie_word_embeddings", "hidden_activation", "attn_logit_softcapping"):
        del settings[key]


def rope(theta: float, local: float, **scaling: Any) -> dict[str, Any]:
    """Return Gemma 3's rotary parameters as transformers 5 spells them."""
    full = {"rope_type": "default", "rope_theta": theta, **scaling}
    return {FULL: full, SLIDING: {"rope_type": "default", "rope_theta": local}}


CASES = (
    Case(
        "gemma2",
        "Gemma2ForCausalLM",
        {**GEMMA, "vocab_size": 3013},
        tokenizer=sentencepieces.gemma,
        edit=as_on_the_hub,
        tolerance=2e-2,
        differs=PLACE,
    ),
    Case(
        "gemma2-wide-heads-f16-old",
        "Gemma2ForCausalLM",
        {
            **GEMMA,
            **WIDE,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 2.0},
            "intermediate_size": 96,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 5.0,
        },
        dtype="float16",
        outtype="f16",
        tokenizer=sentencepieces.gemma,
        old_spelling=True,
        tolerance=2e-2,
        differs={
            **PLACE,
            **halved(2),
            "gemma2.rope.freq_base": "llama.cpp reads it; the converter leaves it out",
            "gemma2.rope.scaling.type": "llama.cpp reads it; the converter leaves it out",
            "gemma2.rope.scaling.factor": "llama.cpp reads it; the converter leaves it out",
        },
    ),
    Case(
        "gemma2-every-third-f32-sharded",
        "Gemma2ForCausalLM",
        {
            **GEMMA,
            "hidden_size": 96,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "num_hidden_layers": 4,
            "layer_types": [SLIDING, SLIDING, FULL, SLIDING],
        },
        dtype="float32",
        outtype="q8_0",
        tokenizer=sentencepieces.gemma,
        shard_size="100KB",
        tolerance=2e-2,
        differs={
            **PLACE,
            **kept(4),
            "gemma2.attention.sliding_window_pattern": "llama.cpp reads it; without it, "
            "every second block has a window",
        },
    ),
    Case(
        "gemma3",
        "Gemma3ForCausalLM",
        {
            **GEMMA,
            "num_hidden_layers": 7,
            "rope_parameters": rope(5e5, 5e3, rope_type="linear", factor=8.0),
        },
        tokenizer=sentencepieces.gemma,
        tolerance=2e-2,
        differs=PLACE,
    ),
    Case(
        "gemma3-old-every-second-f16",
        "Gemma3ForCausalLM",
        {
            **GEMMA,
            **WIDE,
            "num_hidden_layers": 3,
            "layer_types": [SLIDING, FULL, SLIDING],
            "rope_parameters": rope(1e6, 1e4, rope_type="linear", factor=4.0),
        },
        dtype="float16",
        outtype="f32",
        tokenizer=sentencepieces.gemma,
        edit=of_transformers_4,
        tolerance=2e-2,
        differs={
            **PLACE,
            **halved(3, NORMS | HEAD_NORMS),
            "gemma3.attention.sliding_window_pattern": "llama.cpp reads it; without it, "
            "five of six blocks have a window",
        },
    ),
    Case(
        "gemma3-untied-capped",
        "Gemma3ForCausalLM",
        {
            **GEMMA,
            "num_key_value_heads": 1,
            "tie_word_embeddings": False,
            "final_logit_softcapping": 2.0,
        },
        tokenizer=sentencepieces.gemma,
        tolerance=2e-2,
        differs=PLACE,
    ),
)
