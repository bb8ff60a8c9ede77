"""Unigram, which GGUF calls ``t5``: a text is cut so that its tokens' scores are largest together.

A space is written ``▁`` and begins a word; before that, SentencePiece's map of characters may
replace what looks alike. The tokens come from tokenizer.json where there is one, else from
SentencePiece's model file.

Sources: llama.cpp's converter (``conversion/t5.py``, and ``conversion/bert.py`` for XLM-RoBERTa)
for the key-values; its ``src/llama-vocab.cpp`` and the `tokenizers` library for what is done with
them.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers import keys, scored, spacing, special
from weighbridge.converters.tokenizers.arrays import (
    PHANTOM_SPACE,
    check_size,
    fills,
    token_texts,
    token_types,
)
from weighbridge.converters.tokenizers.document import (
    FILE,
    added_tokens,
    part,
    scored_tokens,
)
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.converters.tokenizers.scored import Vocabulary, token_scores, unknown
from weighbridge.converters.tokenizers.sentencepiece_model import FAIRSEQ_FILE
from weighbridge.converters.tokenizers.special import Defaults
from weighbridge.errors import Unsupported
from weighbridge.metadata import array, scalar, string

if TYPE_CHECKING:
    from weighbridge.converters.tokenizers.document import Document, Source
    from weighbridge.converters.tokenizers.sentencepiece_model import SentencePiece
    from weighbridge.converters.tokenizers.spacing import Spacing
    from weighbridge.metadata import Metadata, Value

NAME = "t5"
TITLE = "Unigram"

UNKNOWN = 2
"""The token that llama.cpp takes for what is none, if the file does not say."""

FAIRSEQ = (
    ("<s>", TokenType.CONTROL),
    ("<pad>", TokenType.CONTROL),
    ("</s>", TokenType.CONTROL),
    ("<unk>", TokenType.UNKNOWN),
)
"""What XLM-RoBERTa has for the first three pieces of its model file."""

SPLITTER = "WhitespaceSplit"
"""The pre-tokenizer that drops the spaces between words."""

MASK = "<mask>"

FAIRSEQ_TYPES = ("xlm-roberta", "xlm-roberta-xl")
"""Model types whose ids are one more than those of the model file, and end with a mask."""


def owns(document: Document) -> bool:
    """Say whether a tokenizer.json is of this kind.

    Example:
        >>> owns({"model": {"type": "Unigram"}})
        True
    """
    model = part(document, "model", dict)
    # The files of the first version do not name the model's type; a list of tokens is Unigram's.
    return model.get("type", "Unigram" if "unk_id" in model else None) == "Unigram"


def to_gguf(
    source: Source, *, vocab_size: int, pre: str | None, warnings: list[str]
) -> dict[str, Value]:
    """Return the key-values that hold the tokens, their scores and types, and the character map.

    Ids that no token has, up to `vocab_size`, are filled with unused tokens ``[PAD<id>]``.

    Raises:
        InvalidInput: (rule ``vocabulary-size``) for more tokens than `vocab_size`.
        InvalidFile: (rules ``tokenizer-json``, ``added-tokens`` and ``charsmap``) for files that
            break their own rules, (rule ``duplicate-token``) for two ids with the same text.
        Unsupported: (rule ``tokenizer-model``) for a model file whose ids are not the model's.
    """
    named = scored.pre_tokenizer(pre, TITLE, warnings)
    spaces = spacing.of_source(source)
    tokens = _vocabulary(source, vocab_size)
    tokens.add(source, warnings, replace=False)
    _warn(source, spaces, tokens, warnings)
    charsmap = array("u8", list(spaces.charsmap))
    return {
        keys.MODEL: string(NAME),
        **named,
        **tokens.metadata(),
        **tokens.unknown(source, UNKNOWN),
        keys.ADD_PREFIX_SPACE: scalar("bool", spaces.prefix != "never"),
        keys.MERGES_SPACES: scalar("bool", spaces.merges),
        **({keys.CHARSMAP: charsmap} if spaces.charsmap else {}),
    }


def _vocabulary(source: Source, size: int) -> Vocabulary:
    if source.document or source.model is None:
        return _of_document(source.document, size)
    if source.model.name != FAIRSEQ_FILE:
        return Vocabulary.of_model(source.model, size)
    if source.config.get("model_type") in FAIRSEQ_TYPES:
        return _of_fairseq(source.model, size)
    raise Unsupported(
        "the ids of the model file are not those of the model",
        rule="tokenizer-model",
        path=FAIRSEQ_FILE,
        got=source.config.get("model_type"),
        hint="load the tokenizer with transformers and save it again: that writes tokenizer.json",
    )


def _of_document(document: Document, size: int) -> Vocabulary:
    """Return the tokens of a tokenizer.json, which keep their scores whatever their types."""
    found = scored_tokens(document)
    check_size(len(found) - 1, size, FILE)
    unk = part(document, "model", dict).get("unk_id")
    added = {
        token.content: TokenType.CONTROL if token.special else TokenType.USER_DEFINED
        for token in added_tokens(document)
    }
    tokens = Vocabulary.blank(size)
    for token, (text, score) in enumerate(found):
        kind = added.get(text, TokenType.NORMAL)
        tokens.put(token, text, score, TokenType.UNKNOWN if token == unk else kind)
    return tokens


def _of_fairseq(model: SentencePiece, size: int) -> Vocabulary:
    """Return the pieces of a model file as XLM-RoBERTa counts them: one more, and a mask last."""
    mask = len(model.texts) + 1
    check_size(mask, size, model.name)
    tokens = Vocabulary.blank(size)
    pieces = zip(model.texts, model.scores, model.types, strict=True)
    for token, (text, score, kind) in enumerate(pieces, 1):
        tokens.put(token, text, score, kind)
    for token, (text, kind) in enumerate(FAIRSEQ):
        tokens.put(token, text, 0.0, kind)
    tokens.put(mask, MASK, 0.0, TokenType.CONTROL)
    return tokens


def _warn(source: Source, spaces: Spacing, tokens: Vocabulary, warnings: list[str]) -> None:
    """Say where llama.cpp will encode otherwise."""
    spacing.warn(spaces, tokens.of_types(TokenType.NORMAL), warnings)
    special.warn_of_added_tokens(source.document, warnings)
    if spaces.charsmap and source.document:
        warnings.append(
            "llama.cpp replaces characters as SentencePiece does, this tokenizer only after it "
            "has put together what people see as one: marks upon letters may be encoded differently"
        )
    if spaces.merges and source.document:
        warnings.append("llama.cpp cuts at spaces alone, not at other white space like U+0085")
    if spaces.prefix != "never" and not spaces.merges:
        warnings.append("llama.cpp puts no space before a text of spaces alone")
    if tokens.of_types(TokenType.BYTE) or _falls_back(source.document):
        warnings.append("llama.cpp writes characters that are no tokens as unknown, not as bytes")


def _falls_back(document: Document) -> bool:
    return bool(document) and bool(part(document, "model", dict).get("byte_fallback"))


def from_gguf(metadata: Metadata) -> dict[str, object]:
    """Return the tokenizer.json that the arrays stand for.

    Raises:
        InvalidFile: (rules ``missing-key``, ``value-type``, ``token-type``, ``token-score``,
            ``duplicate-token``, ``charsmap``) for arrays that make no vocabulary.
    """
    tokens = token_texts(metadata)
    types = token_types(metadata, tokens)
    scores = token_scores(metadata, tokens)
    kept = [n for n, content in enumerate(tokens) if not fills(n, content, types[n])]
    unk = unknown(metadata, tokens, types, UNKNOWN)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": scored.added_to_json(tokens, types, kept),
        "normalizer": _normalizer(metadata),
        "pre_tokenizer": _pre_tokenizer(metadata),
        "post_processor": special.post_processor(metadata, tokens, defaults(metadata)),
        "decoder": _metaspace(prefix=_prefixes(metadata)),
        "model": {
            "type": "Unigram",
            "unk_id": unk,
            # A token's place is its id: holes between tokens have to stay.
            "vocab": [[tokens[n], scores[n]] for n in range(kept[-1] + 1 if kept else 0)],
            "byte_fallback": TokenType.BYTE in types,
        },
    }


def _normalizer(metadata: Metadata) -> dict[str, object] | None:
    """Return the normalizer that replaces characters, and spaces where none is dropped."""
    charsmap = spacing.check_charsmap(keys.octets(metadata, keys.CHARSMAP))
    steps: list[dict[str, object]] = []
    if charsmap:
        text = base64.b64encode(charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": text})
    if not _merges_spaces(metadata):
        steps.append(spacing.normalizer(prefix=_prefixes(metadata)))
    if len(steps) < 2:
        return steps[0] if steps else None
    return {"type": "Sequence", "normalizers": steps}


def _pre_tokenizer(metadata: Metadata) -> dict[str, object] | None:
    """Return what cuts at spaces, where only one of them is kept.

    llama.cpp puts a space before every word then, whatever ``add_space_prefix`` says. It cuts at
    plain spaces alone; the classes of transformers cut at all white space that the map of
    characters leaves.
    """
    if not _merges_spaces(metadata):
        return None
    return {"type": "Sequence", "pretokenizers": [{"type": SPLITTER}, _metaspace(prefix=True)]}


def _metaspace(*, prefix: bool) -> dict[str, object]:
    scheme = "always" if prefix else "never"
    return {
        "type": "Metaspace",
        "replacement": PHANTOM_SPACE,
        "prepend_scheme": scheme,
        "split": True,
    }


def _prefixes(metadata: Metadata) -> bool:
    return keys.flag(metadata, keys.ADD_PREFIX_SPACE) is True


def _merges_spaces(metadata: Metadata) -> bool:
    return keys.flag(metadata, keys.MERGES_SPACES) is True


def texts(metadata: Metadata) -> list[str]:
    """Return every id's token as tokenizer.json spells it, which is as GGUF does."""
    return keys.texts(metadata, keys.TOKENS) or []


def defaults(metadata: Metadata) -> Defaults:
    """Return what llama.cpp does where a file of this kind does not say."""
    del metadata
    return Defaults(adds_bos=False, tidies=False, adds_eos=True, eos=1)
