"""BERT and its kin: poolings, heads that go and stay, positions that are cut, labels, no types."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

from support import encoders

from families.case import Case

SIZES = MappingProxyType(
    {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "max_position_embeddings": 66,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-6,
    }
)
"""Sizes for an encoder, none of them equal to another or to a default."""

BERT = {**SIZES, "vocab_size": 30522, "pad_token_id": 0}
ROBERTA = {**SIZES, "vocab_size": 400, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
XLM_ROBERTA = {**ROBERTA, "vocab_size": 310}

DISTILBERT = {
    "vocab_size": 30522,
    "pad_token_id": 0,
    "dim": 24,
    "hidden_dim": 40,
    "n_layers": 2,
    "n_heads": 3,
    "max_position_embeddings": 66,
}

LABELS = {
    "id2label": {0: "bad", 1: "so so", 2: "gut ☺"},
    "label2id": {"bad": 0, "so so": 1, "gut ☺": 2},
}

POOLING = "1_Pooling/config.json"


def pooled(settings: dict[str, Any], *more: str) -> dict[str, bytes]:
    """Return the files of sentence-transformers for a pooling module with these settings."""
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": paths.get(kind, f"{number}_{kind}"),
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(("Transformer", "Pooling", *more))
    ]
    return {
        "modules.json": json.dumps(modules).encode(),
        "sentence_bert_config.json": json.dumps({"max_seq_length": 32}).encode(),
        POOLING: json.dumps({"word_embedding_dimension": 24, **settings}).encode(),
    }


MEAN = pooled({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "Normalize")
FIRST = pooled({"pooling_mode": "cls"})
LAST = pooled({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True})


def _both(*names: str) -> frozenset[str]:
    return frozenset(f"{name}.{part}" for name in names for part in ("weight", "bias"))


POOLER = _both("pooler.dense")
CUT = frozenset({"embeddings.position_embeddings.weight"})
CUT_HEADED = frozenset({f"roberta.{name}" for name in CUT})

RANK = "a classifier is scored by its head, which llama.cpp does only if told"
POOLED_FIRST = "llama.cpp's converter leaves the pooler out, and its scores are others"
CLASSIFIES = {
    "bert.pooling_type": RANK,
    "cls.weight": POOLED_FIRST,
    "cls.bias": POOLED_FIRST,
}

CASES = (
    Case("bert", "BertModel", BERT, tokenizer=encoders.minilm, files=MEAN, tolerance=1e-3,
         lost=POOLER),
    Case(
        "bert-one-type-sharded-f32",
        "BertModel",
        {**BERT, "type_vocab_size": 1, "num_hidden_layers": 3},
        dtype="float16",
        outtype="f32",
        tokenizer=encoders.minilm,
        files=FIRST,
        shard_size="1MB",
        tolerance=1e-3,
        lost=POOLER,
    ),
    Case(
        "bert-classifier-q8_0",
        "BertForSequenceClassification",
        {**BERT, **LABELS, "hidden_size": 96, "intermediate_size": 64},
        dtype="float32",
        outtype="q8_0",
        tokenizer=encoders.minilm,
        old_spelling=True,
        tolerance=1e-3,
        refused="missing-tensor",
        differs=CLASSIFIES,
    ),
    Case("distilbert", "DistilBertModel", DISTILBERT, tokenizer=encoders.minilm, files=MEAN,
         tolerance=1e-3),
    Case("roberta", "RobertaModel", ROBERTA, tokenizer=encoders.roberta, files=LAST,
         tolerance=1e-3, lost=POOLER, cut=CUT),
    Case(
        "roberta-classifier-f16",
        "RobertaForSequenceClassification",
        {**ROBERTA, **LABELS},
        dtype="float16",
        outtype="f16",
        tokenizer=encoders.roberta,
        tolerance=1e-3,
        cut=CUT_HEADED,
        differs={"bert.pooling_type": RANK},
    ),
    Case("xlm-roberta", "XLMRobertaModel", XLM_ROBERTA, tokenizer=encoders.xlm_roberta,
         files=MEAN, tolerance=1e-3, lost=POOLER, cut=CUT),
    Case(
        "xlm-roberta-reranker-f32",
        "XLMRobertaForSequenceClassification",
        {**XLM_ROBERTA, "num_labels": 1, "type_vocab_size": 1},
        dtype="float32",
        outtype="f32",
        tokenizer=encoders.xlm_roberta,
        tolerance=1e-3,
        cut=CUT_HEADED,
        differs={"bert.pooling_type": RANK},
    ),
)  # fmt: skip
