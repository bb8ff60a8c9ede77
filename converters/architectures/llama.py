"""Llama and its kin: Llama 1 to 3, Mistral, SmolLM, TinyLlama, Vicuna.

How GGUF differs from Hugging Face's checkpoints, beyond names:

1. Rotary embeddings turn neighbouring values of a head in llama.cpp, and a head's two halves in
   transformers: the rows (and biases) of ``q_proj`` and ``k_proj`` are interleaved, head by head.
2. ``head_count_kv`` and ``key_length`` are always written; a config may leave both to be derived.
3. A tied output layer is no tensor. One that is there all the same is kept: llama.cpp uses it.
4. Llama 3's rotary scaling is a tensor, ``rope_freqs.weight``, that follows from the config.
5. Biases are a config flag for each kind of layer there, and tensors or none here.
6. Mistral's ``sliding_window`` has no place: llama.cpp's ``llama`` attends to everything.

Source: GGUF specification, section "LLaMA", and ``conversion/llama.py`` of llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.arch import Arch
from weighbridge.aspects import Fixed, Lost, Present
from weighbridge.converters.architectures.common import (
    DECODER,
    ROPE_DIMENSIONS,
    Vocabulary,
    VocabularyQuirk,
    layers,
    sizes,
)
from weighbridge.ops import Swap
from weighbridge.rules import Rule, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.model import Config

LAYER = "model.layers.{layer}"
BLOCK = "blk.{layer}"


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    return [
        rule("model.embed_tokens.weight", "token_embd.weight", shape=(s.vocab, s.hidden)),
        *_matrices(config),
        rule(f"{LAYER}.input_layernorm.weight", f"{BLOCK}.attn_norm.weight", shape=(s.hidden,)),
        rule(
            f"{LAYER}.post_attention_layernorm.weight",
            f"{BLOCK}.ffn_norm.weight",
            shape=(s.hidden,),
        ),
        rule("model.norm.weight", "output_norm.weight", shape=(s.hidden,)),
        rule(
            "lm_head.weight",
            "output.weight",
            shape=(s.vocab, s.hidden),
            optional=bool(config.get("tie_word_embeddings")),
        ),
    ]


def _matrices(config: Config) -> Iterator[Rule]:
    s = sizes(config)
    queries, keys = s.heads * s.head, s.kv_heads * s.head
    attention, mlp = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    for left, right, rows, columns, ops, biased in (
        ("self_attn.q_proj", "attn_q", queries, s.hidden, [_pairs(s.heads, s.head)], attention),
        ("self_attn.k_proj", "attn_k", keys, s.hidden, [_pairs(s.kv_heads, s.head)], attention),
        ("self_attn.v_proj", "attn_v", keys, s.hidden, [], attention),
        ("self_attn.o_proj", "attn_output", s.hidden, queries, [], attention),
        ("mlp.gate_proj", "ffn_gate", s.inner, s.hidden, [], mlp),
        ("mlp.up_proj", "ffn_up", s.inner, s.hidden, [], mlp),
        ("mlp.down_proj", "ffn_down", s.hidden, s.inner, [], mlp),
    ):
        left, right = f"{LAYER}.{left}", f"{BLOCK}.{right}"
        yield rule(f"{left}.weight", f"{right}.weight", *ops, shape=(rows, columns))
        if biased:
            yield rule(f"{left}.bias", f"{right}.bias", *ops, shape=(rows,))


def _pairs(heads: int, size: int) -> Swap:
    """Interleave the two halves of every head."""
    return Swap(0, heads, 2, size // 2)


LLAMA = Arch(
    name="llama",
    classes=("LlamaForCausalLM", "MistralForCausalLM"),
    model_type="llama",
    aspects=(
        *DECODER,
        Vocabulary(),
        ROPE_DIMENSIONS,
        Present("tie_word_embeddings", "output.weight", then=False),
        Present("attention_bias", "blk.0.attn_q.bias"),
        Present("mlp_bias", "blk.0.ffn_gate.bias"),
        Fixed("hidden_act", ("silu", "swish")),
        Lost("sliding_window", "llama.cpp attends to every token of the context"),
        VocabularyQuirk(49152, (("tokenizer.ggml.add_bos_token", "bool", False),)),
        VocabularyQuirk(32016, (("tokenizer.ggml.eot_token_id", "u32", 32010),)),
    ),
    rules=rules,
    variables=layers,
    dropped={
        f"{LAYER}.self_attn.rotary_emb.inv_freq": "transformers computes it from rope_theta",
    },
)
