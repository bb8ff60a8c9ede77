"""An encoder-decoder's tokenizer: SentencePiece's model file, and tokenizer.json built on it."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

import tokenizers

from support import sentencepieces
from weighbridge.converters.tokenizers import sentencepiece_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    Files = Mapping[str, bytes]

MODEL_FILE = "spiece.model"

SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}


@cache
def t5() -> Files:
    """Train a Unigram of 300 tokens, built up as T5's: `<pad>`, `</s>` and `<unk>` come first."""
    settings = {
        "vocab_size": 300,
        "model_type": "unigram",
        "pad_id": 0,
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": -1,
    }
    trained = sentencepieces.trained(settings, ascii_only=True)
    model = sentencepiece_model.parse(trained, MODEL_FILE)
    pieces = [*zip(model.texts, model.scores, strict=True)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.normalizer = tokenizers.normalizers.Precompiled(model.charsmap)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return {
        MODEL_FILE: trained,
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(SETTINGS).encode(),
    }
