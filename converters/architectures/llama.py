"""Llama and its kin: Llama 1 to 3, Mistral, SmolLM, TinyLlama, Vicuna.

How GGUF differs from Hugging Face's checkpoints, beyond names:

1. Rotary embeddings turn neighbouring values of a head in llama.cpp, and a head's two halves in
   transformers: the rows (and biases) of ``q_proj`` and ``k_proj`` are interleaved, head by head.
2. ``head_count_kv`` and ``key_length`` are always written; a config may leave both to be derived.
3. A tied output layer is no tensor. One that is there all the same is kept: llama.cpp uses it.
4. Llama 3's rotary scaling is a tensor, ``rope_freqs.weight``, that follows from the config.
5. Biases are a config flag for each kind of layer there, and tensors or none here.
6. Mistral's ``sliding_window`` has no place: llama.cpp's ``llama`` attends to everything.
7. Checkpoints of the base model lack the prefix ``model.``.

Source: GGUF specification, section "LLaMA", and ``conversion/llama.py`` of llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.arch import Arch
from weighbridge.aspects import Lost, Present
from weighbridge.converters.architectures.common import (
    COMPUTED,
    DECODER,
    ROPE_DIMENSIONS,
    SILU,
    TIED,
    Vocabulary,
    VocabularyQuirk,
    attention,
    ends,
    feed_forward,
    layers,
    norms,
    sizes,
)
from weighbridge.tensor_names import Naming

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.rules import Rule


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    bias = bool(config.get("attention_bias"))
    return [
        *ends(config),
        *norms(s),
        *attention(s, paired=True, bias=bias, output_bias=bias),
        *feed_forward(s, bias=bool(config.get("mlp_bias"))),
    ]


WINDOW = Lost("sliding_window", "llama.cpp attends to every token of the context")

QUIRKS = (
    VocabularyQuirk(49152, (("tokenizer.ggml.add_bos_token", "bool", False),)),
    VocabularyQuirk(32016, (("tokenizer.ggml.eot_token_id", "u32", 32010),)),
)

BIASES = (
    Present("attention_bias", "blk.0.attn_q.bias"),
    Present("mlp_bias", "blk.0.ffn_gate.bias"),
)

LLAMA = Arch(
    name="llama",
    classes=("LlamaForCausalLM", "MistralForCausalLM", "LlamaModel"),
    model_type="llama",
    aspects=(
        *DECODER,
        Vocabulary(),
        ROPE_DIMENSIONS,
        TIED,
        *BIASES,
        SILU,
        WINDOW,
        *QUIRKS,
    ),
    rules=rules,
    variables=layers,
    dropped=COMPUTED,
    naming=Naming("model.", bare=("LlamaModel",)),
)
