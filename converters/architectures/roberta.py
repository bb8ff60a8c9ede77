"""RoBERTa and XLM-RoBERTa: BERT with other positions, other heads and other tokenizers.

How GGUF differs from Hugging Face's checkpoints, beyond what `bert` lists:

1. Positions are counted from ``pad_token_id + 1`` on, so the first rows of the table are never
   used. GGUF leaves them out, and ``context_length`` is as much less; the way back has zeros there.
2. A classifier's head is two layers of its own, ``classifier.dense`` and ``classifier.out_proj``;
   there is no pooler. The head that predicts words, ``lm_head``, has no place.
3. All three families are ``bert`` in GGUF. RoBERTa has a byte-level BPE (``gpt2``), XLM-RoBERTa a
   Unigram (``t5``), and BERT has WordPiece (``bert``): the tokenizer tells them apart.

4. CamemBERT is an XLM-RoBERTa by another name, and comes back as one from a file made elsewhere.
   (llama.cpp's converter takes it for a BERT, with positions that are off by two.)

Source: ``conversion/bert.py`` of llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from weighbridge.aspects import Aspect, integer, lookup, plain, typed, wrong
from weighbridge.converters.architectures.bert import (
    BERT,
    BUFFER,
    NO_POOLER,
    NO_PREDICTIONS,
    POOLER,
    PREDICTS,
    aspects,
    both,
    encoder,
    head,
)
from weighbridge.errors import InvalidFile
from weighbridge.metadata import Value, scalar, string
from weighbridge.ops import Cut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weighbridge.arch import Arch
    from weighbridge.metadata import Metadata
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.rules import Rule
    from weighbridge.tensor import Lazy

BASE = "roberta."

CONTEXT = "{arch}.context_length"
PADDING = "tokenizer.ggml.padding_token_id"
TOKENIZER = "tokenizer.ggml.model"

PAD = 1
"""The padding token where neither a config nor a GGUF file says: transformers' default for both."""


@dataclass(frozen=True)
class Positions(Aspect):
    """``max_position_embeddings``, of which the first ``pad_token_id + 1`` are not counted.

    Example:
        >>> from weighbridge.report import Report
        >>> config = {"max_position_embeddings": 514, "pad_token_id": 1}
        >>> Positions().to_metadata(config, Report())["{arch}.context_length"].data
        512
    """

    @property
    def keys(self) -> tuple[str, ...]:
        """The number of positions."""
        return (CONTEXT,)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return how many positions tokens can have.

        Raises:
            InvalidFile: (rule ``config-type``) when there is none.
        """
        del report
        rows = integer(config, "max_position_embeddings")
        if rows <= unused(config):
            expected = f"more than pad_token_id + 1, which is {unused(config)}"
            raise wrong("max_position_embeddings", rows, expected)
        return {CONTEXT: scalar("u32", rows - unused(config))}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the rows of the table, and the padding token from which they follow.

        Raises:
            InvalidFile: (rule ``missing-key``) without the number of positions.
        """
        del tensors
        if CONTEXT not in metadata:
            raise InvalidFile(f"lacks the key-value {CONTEXT}", rule="missing-key")
        pad = plain(metadata[PADDING], "u32", PADDING) if PADDING in metadata else PAD
        count = plain(metadata[CONTEXT], "u32", CONTEXT)
        return {"max_position_embeddings": count + pad + 1, "pad_token_id": pad}


def unused(config: Config) -> int:
    """Return how many rows of the position table no token uses."""
    pad: int = typed("u32", lookup(config, "pad_token_id"), "pad_token_id").data  # type: ignore[assignment]
    return pad + 1


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    return [
        *encoder(config, BASE, Cut(0, unused(config))),
        *head(config, "classifier.dense", "classifier.out_proj"),
    ]


def _tokenized_by(kind: str) -> Callable[[Metadata, Mapping[str, Lazy]], bool]:
    return lambda metadata, tensors: metadata.get(TOKENIZER) == string(kind)


KINDS = ("Model", "ForMaskedLM", "ForSequenceClassification")
"""How the names of classes end: the base model, the one that predicts words, the classifier."""


def _named(names: tuple[str, ...], model_type: str, tokenizer: str) -> Arch:
    """Return a family: what its classes' names begin with, and how GGUF knows its tokenizer."""
    models, predicting, classifying = ([f"{name}{kind}" for name in names] for kind in KINDS)
    return replace(
        BERT,
        classes=(*models, *predicting, *classifying),
        model_type=model_type,
        aspects=aspects(Positions(), classifying[0]),
        rules=rules,
        dropped={
            f"{BASE}embeddings.position_ids": BUFFER,
            **both(f"{BASE}pooler.dense", POOLER),
            "lm_head.bias": PREDICTS,
            **both("lm_head.decoder", PREDICTS),
            **both("lm_head.dense", PREDICTS),
            **both("lm_head.layer_norm", PREDICTS),
        },
        lacking={**dict.fromkeys(models, NO_POOLER), **dict.fromkeys(predicting, NO_PREDICTIONS)},
        naming=replace(BERT.naming, base=BASE, bare=tuple(models)),
        marks=_tokenized_by(tokenizer),
        defaults={**BERT.defaults, "pad_token_id": PAD},
    )


ROBERTA = _named(("Roberta",), "roberta", "gpt2")
XLM_ROBERTA = _named(("XLMRoberta", "Camembert"), "xlm-roberta", "t5")
