"""DistilBERT: half a BERT, without token types, by names of its own.

How GGUF differs from Hugging Face's checkpoints, beyond what `bert` lists:

1. The config calls its numbers ``dim``, ``hidden_dim``, ``n_layers`` and ``n_heads``, and does not
   say the norms' epsilon: it is always 1e-12. GGUF says so, and another one is refused.
2. There are no token types: by that, GGUF tells it from BERT, whose name it has. Their number is 1.
3. A classifier has a ReLU between its two layers, where llama.cpp computes tanh: it is not covered.
4. The head that predicts words (``vocab_transform`` and its like) has no place.

Source: ``conversion/bert.py`` of llama.cpp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.aspects import Derived, Fixed, Param, integer
from weighbridge.converters.architectures.bert import BERT, BUFFER, NO_PREDICTIONS, PREDICTS, both
from weighbridge.converters.architectures.common import (
    BLOCK,
    CONTEXT,
    FileType,
    Vocabulary,
    linear,
)
from weighbridge.converters.architectures.labels import Labels
from weighbridge.converters.architectures.pooling import Pooling
from weighbridge.rules import Rule, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.metadata import Metadata
    from weighbridge.model import Config
    from weighbridge.tensor import Lazy

BASE = "distilbert."
LAYER = f"{BASE}transformer.layer.{{layer}}"

LAYERS = Param("n_layers", "{arch}.block_count", "u32", aliases=("num_hidden_layers",))
HIDDEN = Param("dim", "{arch}.embedding_length", "u32", aliases=("hidden_size",))
INNER = Param("hidden_dim", "{arch}.feed_forward_length", "u32")
HEADS = Param("n_heads", "{arch}.attention.head_count", "u32", aliases=("num_attention_heads",))


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    hidden, inner = HIDDEN.count(config), INNER.count(config)
    tokens, positions = integer(config, "vocab_size"), CONTEXT.count(config)
    embeddings = f"{BASE}embeddings"
    names = {"word": ("token_embd", tokens), "position": ("position_embd", positions)}
    return [
        *(
            rule(f"{embeddings}.{kind}_embeddings.weight", f"{there}.weight", shape=(rows, hidden))
            for kind, (there, rows) in names.items()
        ),
        *linear(f"{embeddings}.LayerNorm", "token_embd_norm", (hidden,), bias=True),
        *(
            made
            for left, right, shape in (
                ("attention.q_lin", "attn_q", (hidden, hidden)),
                ("attention.k_lin", "attn_k", (hidden, hidden)),
                ("attention.v_lin", "attn_v", (hidden, hidden)),
                ("attention.out_lin", "attn_output", (hidden, hidden)),
                ("sa_layer_norm", "attn_output_norm", (hidden,)),
                ("ffn.lin1", "ffn_up", (inner, hidden)),
                ("ffn.lin2", "ffn_down", (hidden, inner)),
                ("output_layer_norm", "layer_output_norm", (hidden,)),
            )
            for made in linear(f"{LAYER}.{left}", f"{BLOCK}.{right}", shape, bias=True)
        ),
    ]


def layers(config: Config) -> dict[str, range]:
    """Return the values of the variable that counts blocks."""
    return {"layer": range(LAYERS.count(config))}


def _has_no_types(metadata: Metadata, tensors: Mapping[str, Lazy]) -> bool:
    kind = metadata.get("tokenizer.ggml.model")
    return kind is not None and kind.data == "bert" and "token_types.weight" not in tensors


DISTILBERT = replace(
    BERT,
    classes=("DistilBertModel", "DistilBertForMaskedLM"),
    model_type="distilbert",
    aspects=(
        Derived("{arch}.attention.layer_norm_epsilon", "f32", lambda config: 1e-12),
        LAYERS,
        CONTEXT,
        HIDDEN,
        INNER,
        HEADS,
        FileType(),
        Derived("{arch}.attention.causal", "bool", lambda config: False),
        Pooling(),
        Labels("DistilBertForSequenceClassification"),
        Derived("tokenizer.ggml.token_type_count", "u32", lambda config: 1),
        Vocabulary(written=False),
        Fixed("activation", ("gelu",)),
    ),
    rules=rules,
    variables=layers,
    dropped={
        f"{BASE}embeddings.position_ids": BUFFER,
        **both("vocab_transform", PREDICTS),
        **both("vocab_layer_norm", PREDICTS),
        **both("vocab_projector", PREDICTS),
    },
    lacking={"DistilBertForMaskedLM": NO_PREDICTIONS},
    naming=replace(BERT.naming, base=BASE, bare=("DistilBertModel",)),
    marks=_has_no_types,
    defaults={},
)
