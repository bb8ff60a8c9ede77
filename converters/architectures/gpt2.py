"""GPT-2 and what was trained in its shape: DistilGPT2, DialoGPT, Cerebras-GPT.

How GGUF differs from Hugging Face's checkpoints, beyond names:

1. ``Conv1D`` keeps its weights with a row for each input: all four matrices of a block are
   transposed.
2. The config has names of its own (``n_embd``, ``n_layer``, ``n_head``); transformers reads the
   usual ones as well. The context is ``n_positions``; ``n_ctx``, once beside it, is no longer
   written, and llama.cpp's converter fails without it.
3. ``n_inner`` is four times ``n_embd`` where the config does not say. The converter writes that
   number even where the config says another.
4. A tied output layer, GPT-2's default, is no tensor. One that is there is kept.
5. The causal masks that old checkpoints hold (``attn.bias``, ``attn.masked_bias``) have no place.
   Such checkpoints also lack the prefix ``transformer.``, although their class has an output layer.
6. llama.cpp computes GELU by its tanh approximation: ``gelu_new`` and its other spellings.

Source: GGUF specification, section "GPT-2", and ``conversion/gpt2.py`` of llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.arch import Arch
from weighbridge.aspects import Fixed, Param, Present, integer
from weighbridge.converters.architectures.common import BLOCK, FileType, Vocabulary, linear, norm
from weighbridge.ops import Transpose
from weighbridge.rules import Rule, rule
from weighbridge.tensor_names import Naming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.model import Config

LAYER = "transformer.h.{layer}"

LAYERS = Param("n_layer", "{arch}.block_count", "u32", aliases=("num_hidden_layers",))
CONTEXT = Param(
    "n_positions",
    "{arch}.context_length",
    "u32",
    lambda config: config.get("n_ctx"),
    aliases=("max_position_embeddings",),
)
HIDDEN = Param("n_embd", "{arch}.embedding_length", "u32", aliases=("hidden_size",))
INNER = Param(
    "n_inner", "{arch}.feed_forward_length", "u32", lambda config: 4 * HIDDEN.count(config)
)
HEADS = Param("n_head", "{arch}.attention.head_count", "u32", aliases=("num_attention_heads",))


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    hidden, context = HIDDEN.count(config), CONTEXT.count(config)
    table = (integer(config, "vocab_size"), hidden)
    tied = bool(config.get("tie_word_embeddings", True))
    return [
        *linear("transformer.wte", "token_embd", table),
        *linear("transformer.wpe", "position_embd", (context, hidden)),
        *_norm("transformer.ln_f", "output_norm", hidden),
        *_norm(f"{LAYER}.ln_1", f"{BLOCK}.attn_norm", hidden),
        *_norm(f"{LAYER}.ln_2", f"{BLOCK}.ffn_norm", hidden),
        *_matrices(hidden, INNER.count(config)),
        *linear("lm_head", "output", table, optional=tied),
    ]


def _norm(left: str, right: str, size: int) -> Iterator[Rule]:
    yield norm(left, right, size)
    yield rule(f"{left}.bias", f"{right}.bias", shape=(size,))


def _matrices(hidden: int, inner: int) -> Iterator[Rule]:
    for left, right, inputs, outputs in (
        ("attn.c_attn", "attn_qkv", hidden, 3 * hidden),
        ("attn.c_proj", "attn_output", hidden, hidden),
        ("mlp.c_fc", "ffn_up", hidden, inner),
        ("mlp.c_proj", "ffn_down", inner, hidden),
    ):
        left, right = f"{LAYER}.{left}", f"{BLOCK}.{right}"
        yield rule(f"{left}.weight", f"{right}.weight", Transpose(), shape=(inputs, outputs))
        yield rule(f"{left}.bias", f"{right}.bias", shape=(outputs,))


def layers(config: Config) -> dict[str, range]:
    """Return the values of the variable that counts blocks."""
    return {"layer": range(LAYERS.count(config))}


GPT2 = Arch(
    name="gpt2",
    classes=("GPT2LMHeadModel",),
    model_type="gpt2",
    aspects=(
        LAYERS,
        CONTEXT,
        HIDDEN,
        INNER,
        HEADS,
        Param("layer_norm_epsilon", "{arch}.attention.layer_norm_epsilon", "f32"),
        FileType(),
        Vocabulary(written=False),
        Present("tie_word_embeddings", "output.weight", then=False),
        Fixed(
            "activation_function",
            ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate"),
        ),
        Fixed("scale_attn_weights", (True,)),
        Fixed("scale_attn_by_inverse_layer_idx", (False,)),
        Fixed("add_cross_attention", (False,)),
    ),
    rules=rules,
    variables=layers,
    dropped={
        f"{LAYER}.attn.bias": "transformers makes the causal mask itself",
        f"{LAYER}.attn.masked_bias": "transformers makes the causal mask itself",
    },
    naming=Naming("transformer."),
    defaults={"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
)
