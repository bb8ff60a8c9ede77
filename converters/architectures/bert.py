"""BERT: encoders with learned positions, norms after each half of a block, and WordPiece.

How GGUF differs from Hugging Face's checkpoints, beyond names:

1. The names of a bare ``BertModel`` lack the prefix ``bert.`` of its kin; GGUF's have none at all.
   Checkpoints of old call a norm's weight ``gamma`` and its bias ``beta``.
2. A model that makes embeddings has no pooler, and no head that predicts words or sentences: both
   are left out, and so is the buffer ``position_ids``. How states are pooled is a key-value, which
   comes from the files of sentence-transformers: see `pooling`.
3. A classifier's pooler is ``cls`` and its matrix ``cls.output``: llama.cpp takes the first token's
   state through one, tanh and the other, as transformers does. (llama.cpp's converter leaves the
   pooler out, and its file gives other scores; so that one is refused on the way back.)
4. All rows of the token types are kept, but llama.cpp adds the first row to every token.
5. llama.cpp computes GELU by its tanh approximation, from a table in half precision.
6. The number of token types is a key-value of the tokenizer; that of tokens is not written.

Source: ``conversion/bert.py`` of llama.cpp and its ``src/models/bert.cpp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.arch import Arch
from weighbridge.aspects import Derived, Fixed, Param, integer
from weighbridge.converters.architectures.common import (
    BLOCK,
    CONTEXT,
    HEADS,
    HIDDEN,
    INNER,
    LAYERS,
    FileType,
    Vocabulary,
    layers,
    linear,
    sizes,
)
from weighbridge.converters.architectures.labels import Labels, is_classifier, labels
from weighbridge.converters.architectures.pooling import Pooling
from weighbridge.rules import Rule, rule
from weighbridge.tensor_names import Naming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.aspects import Aspect
    from weighbridge.model import Config
    from weighbridge.ops import Op

BASE = "bert."


def aspects(context: Aspect, classifier: str) -> tuple[Aspect, ...]:
    """Return what an encoder's config and key-values say.

    Args:
        context: the number of positions.
        classifier: the class of one with a classifier's head.
    """
    return (
        LAYERS,
        context,
        HIDDEN,
        INNER,
        HEADS,
        Param("layer_norm_eps", "{arch}.attention.layer_norm_epsilon", "f32"),
        FileType(),
        Derived("{arch}.attention.causal", "bool", lambda config: False),
        Pooling(),
        Labels(classifier),
        Param("type_vocab_size", "tokenizer.ggml.token_type_count", "u32"),
        Vocabulary(written=False),
        Fixed("hidden_act", ("gelu",)),
        Fixed("position_embedding_type", ("absolute",)),
        Fixed("is_decoder", (False,)),
        Fixed("add_cross_attention", (False,)),
    )


def encoder(config: Config, base: str, *cut: Op) -> Iterator[Rule]:
    """Yield the rules of an encoder without a head.

    Args:
        config: its config.
        base: what its names begin with.
        cut: what makes GGUF's positions from the checkpoint's.
    """
    s = sizes(config)
    yield from embeddings(config, base, *cut)
    here, there = f"{base}encoder.layer.{{layer}}", BLOCK
    for left, right, shape in (
        ("attention.self.query", "attn_q", (s.hidden, s.hidden)),
        ("attention.self.key", "attn_k", (s.hidden, s.hidden)),
        ("attention.self.value", "attn_v", (s.hidden, s.hidden)),
        ("attention.output.dense", "attn_output", (s.hidden, s.hidden)),
        ("attention.output.LayerNorm", "attn_output_norm", (s.hidden,)),
        ("intermediate.dense", "ffn_up", (s.inner, s.hidden)),
        ("output.dense", "ffn_down", (s.hidden, s.inner)),
        ("output.LayerNorm", "layer_output_norm", (s.hidden,)),
    ):
        yield from linear(f"{here}.{left}", f"{there}.{right}", shape, bias=True)


def embeddings(config: Config, base: str, *cut: Op) -> Iterator[Rule]:
    """Yield the rules of what is before the blocks."""
    s = sizes(config)
    for left, right, rows, ops in (
        ("word_embeddings", "token_embd", s.vocab, ()),
        ("position_embeddings", "position_embd", integer(config, "max_position_embeddings"), cut),
        ("token_type_embeddings", "token_types", integer(config, "type_vocab_size"), ()),
    ):
        names = f"{base}embeddings.{left}.weight", f"{right}.weight"
        yield rule(*names, *ops, shape=(rows, s.hidden))
    yield from linear(f"{base}embeddings.LayerNorm", "token_embd_norm", (s.hidden,), bias=True)


def head(config: Config, dense: str, out: str) -> Iterator[Rule]:
    """Yield the rules of a classifier's head, where there is one."""
    if is_classifier(config):
        hidden = integer(config, "hidden_size")
        yield from linear(dense, "cls", (hidden, hidden), bias=True)
        yield from linear(out, "cls.output", (len(labels(config)), hidden), bias=True)


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    return [*encoder(config, BASE), *head(config, f"{BASE}pooler.dense", "classifier")]


def both(name: str, why: str) -> dict[str, str]:
    """Return why the weight and the bias of a layer are dropped."""
    return {f"{name}.{part}": why for part in ("weight", "bias")}


POOLER = "llama.cpp makes embeddings without it"
PREDICTS = "llama.cpp makes embeddings, and predicts no words or sentences"
BUFFER = "transformers counts the positions itself"

NO_POOLER = "GGUF has no pooler: transformers will make up its weights, which embeddings need not"
NO_PREDICTIONS = "GGUF has no head that predicts: transformers will make up its weights"

BERT = Arch(
    name="bert",
    classes=(
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertForSequenceClassification",
    ),
    model_type="bert",
    aspects=aspects(CONTEXT, "BertForSequenceClassification"),
    rules=rules,
    variables=layers,
    dropped={
        f"{BASE}embeddings.position_ids": BUFFER,
        **both(f"{BASE}pooler.dense", POOLER),
        "cls.predictions.bias": PREDICTS,
        **both("cls.predictions.decoder", PREDICTS),
        **both("cls.predictions.transform.dense", PREDICTS),
        **both("cls.predictions.transform.LayerNorm", PREDICTS),
        **both("cls.seq_relationship", PREDICTS),
    },
    lacking={
        "BertModel": NO_POOLER,
        "BertForMaskedLM": NO_PREDICTIONS,
        "BertForPreTraining": NO_PREDICTIONS,
    },
    naming=Naming(BASE, bare=("BertModel",), aliases={".gamma": ".weight", ".beta": ".bias"}),
    defaults={"layer_norm_eps": 1e-12, "type_vocab_size": 2},
)
