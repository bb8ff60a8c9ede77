"""SentencePiece's BPE, which GGUF calls ``llama``: characters merged in pairs by their scores.

A space is written ``▁`` and is part of tokens; a character that is no token is written as its
bytes, ``<0x0A>``, where the vocabulary has tokens for bytes. The tokens come from SentencePiece's
model file where there is one, else from tokenizer.json, whose merges are turned into scores.

Sources: llama.cpp's converter (``conversion/base.py``, ``_create_vocab_sentencepiece``) for the
arrays; its ``src/llama-vocab.cpp`` and the `tokenizers` library for what is done with them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers import keys, merging, scored, spacing, special
from weighbridge.converters.tokenizers.arrays import (
    check_size,
    fills,
    model_ids,
    token_texts,
)
from weighbridge.converters.tokenizers.document import (
    FILE,
    added_tokens,
    merges,
    part,
    vocabulary,
)
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.converters.tokenizers.pretokenizers import is_byte_level
from weighbridge.converters.tokenizers.scored import Vocabulary, token_scores, unknown
from weighbridge.converters.tokenizers.sentencepiece_model import BPE
from weighbridge.converters.tokenizers.special import Defaults
from weighbridge.errors import InvalidFile
from weighbridge.metadata import scalar, string

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.converters.tokenizers.document import Document, Source
    from weighbridge.converters.tokenizers.sentencepiece_model import SentencePiece
    from weighbridge.converters.tokenizers.spacing import Spacing
    from weighbridge.metadata import Metadata, Value

NAME = "llama"
TITLE = "SentencePiece BPE"

UNKNOWN = 0
"""The token that llama.cpp takes for what is none, if the file does not say."""

BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
"""How the token of a byte is spelled."""


def owns(document: Document) -> bool:
    """Say whether a tokenizer.json is of this kind: BPE that writes spaces as ``▁``.

    Example:
        >>> owns({"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Metaspace"}})
        True
    """
    model = part(document, "model", dict)
    glued = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    is_bpe = model.get("type", "BPE" if "merges" in model else None) == "BPE"
    return (
        is_bpe
        and not glued
        and not is_byte_level(document)
        and spacing.of_document(document).escapes
    )


def to_gguf(
    source: Source, *, vocab_size: int, pre: str | None, warnings: list[str]
) -> dict[str, Value]:
    """Return the key-values that hold the tokens, their scores and types.

    Ids that no token has, up to `vocab_size`, are filled with unused tokens ``[PAD<id>]``.

    Raises:
        InvalidInput: (rule ``vocabulary-size``) for more tokens than `vocab_size`.
        InvalidFile: (rules ``tokenizer-json`` and ``added-tokens``) for files that break their own
            rules, (rule ``duplicate-token``) for two ids with the same text, (rule
            ``tokenizer-mismatch``) for two files that are of different tokenizers.
    """
    named = scored.pre_tokenizer(pre, TITLE, warnings)
    spaces = spacing.of_source(source)
    tokens = _vocabulary(source, vocab_size)
    tokens.add(source, warnings, replace=True)
    _warn(source, spaces, tokens, warnings)
    return {
        keys.MODEL: string(NAME),
        **named,
        **tokens.metadata(),
        **tokens.unknown(source, UNKNOWN),
        **_prefix(source, spaces, warnings),
    }


def _vocabulary(source: Source, size: int) -> Vocabulary:
    """Return the tokens of the model file where there is one, else of tokenizer.json."""
    if source.model is None:
        return _of_document(source.document, size)
    tokens = Vocabulary.of_model(source.model, size)
    if source.document:
        _check_alike(source.model, source.document, tokens)
    return tokens


def _check_alike(model: SentencePiece, document: Document, tokens: Vocabulary) -> None:
    """Refuse two files of which one is out of date."""
    found = vocabulary(document)
    check_size(max(found.values(), default=-1), len(tokens.texts), FILE)
    added = {token.content for token in added_tokens(document)}
    ordinary = (TokenType.NORMAL, TokenType.UNUSED)
    for text, token in found.items():
        differs = tokens.types[token] in ordinary and tokens.texts[token] != text
        if model.type != BPE or (differs and text not in added):
            raise InvalidFile(
                f"{model.name} and {FILE} are of different tokenizers",
                rule="tokenizer-mismatch",
                path=FILE,
                got=f"{text!r} as token {token}",
                hint="remove the one that is out of date",
            )


def _of_document(document: Document, size: int) -> Vocabulary:
    """Return the tokens of a tokenizer.json, with scores that merge as its merges do."""
    found = vocabulary(document)
    check_size(max(found.values(), default=-1), size, FILE)
    unk = part(document, "model", dict).get("unk_token")
    added = {token.content for token in added_tokens(document)}
    scores = merging.to_scores(
        merges(document),
        [
            text
            for text in sorted(found, key=found.__getitem__)
            if text not in added and text != unk and not BYTE.fullmatch(text)
        ],
    )
    tokens = Vocabulary.blank(size)
    for text, token in found.items():
        kind = TokenType.BYTE if BYTE.fullmatch(text) else TokenType.NORMAL
        kind = TokenType.UNKNOWN if text == unk else kind
        tokens.put(token, text, scores.get(text, 0.0), kind)
    return tokens


def _prefix(source: Source, spaces: Spacing, warnings: list[str]) -> dict[str, Value]:
    """Return the key-value of the space before a text, which llama.cpp puts if nothing is said."""
    said, puts = source.setting("add_prefix_space"), spaces.prefix != "never"
    if isinstance(said, bool) and said != puts:
        warnings.append(
            f"tokenizer_config.json says add_prefix_space {said}, {FILE} does the opposite, and is "
            "believed"
        )
    if puts and not isinstance(said, bool):
        return {}
    return {keys.ADD_PREFIX_SPACE: scalar("bool", puts)}


def _warn(source: Source, spaces: Spacing, tokens: Vocabulary, warnings: list[str]) -> None:
    """Say where llama.cpp will encode otherwise."""
    spacing.warn(spaces, tokens.of_types(TokenType.NORMAL), warnings)
    special.warn_of_added_tokens(source.document, warnings)
    if spaces.charsmap:
        warnings.append("llama.cpp does not replace characters, of which this tokenizer has a map")
    if spaces.merges:
        warnings.append("llama.cpp keeps all spaces, of which this tokenizer drops some")
    if not all(text.strip(" ") for text in tokens.of_types(TokenType.USER_DEFINED)):
        warnings.append("llama.cpp finds the tokens of spaces alone before it merges anything")
    if not tokens.of_types(TokenType.BYTE):
        warnings.append("llama.cpp cannot encode characters that are no tokens: there are no bytes")
    if source.document and not _merges_alike(source.document, tokens):
        warnings.append(
            "llama.cpp merges any two tokens that make a third; this tokenizer does not merge all "
            "of them, or in another order"
        )


def _merges_alike(document: Document, tokens: Vocabulary) -> bool:
    """Say whether the merges are those that the scores stand for, special tokens aside."""
    ordinary = tokens.of_types(TokenType.NORMAL)
    scores = {text: tokens.scores[token] for text, token in ordinary.items()}
    return merging.agree(merges(document), scores, ordinary)


def from_gguf(metadata: Metadata) -> dict[str, object]:
    """Return the tokenizer.json that the arrays stand for, its merges made from the scores.

    Raises:
        InvalidFile: (rules ``missing-key``, ``value-type``, ``token-type``, ``token-score``,
            ``duplicate-token``) for arrays that make no vocabulary.
    """
    tokens = token_texts(metadata)
    types = special.types(metadata, tokens)
    kept = [n for n, content in enumerate(tokens) if not fills(n, content, types[n])]
    ids = {tokens[n]: n for n in model_ids(kept, types)}
    prefix = keys.flag(metadata, keys.ADD_PREFIX_SPACE) is not False
    unk = unknown(metadata, tokens, types, UNKNOWN)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": scored.added_to_json(tokens, types, kept),
        "normalizer": spacing.normalizer(prefix=prefix),
        "pre_tokenizer": None,
        "post_processor": special.post_processor(metadata, tokens, defaults(metadata)),
        "decoder": spacing.decoder(prefix=prefix),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if unk is None else tokens[unk],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": TokenType.BYTE in types,
            "ignore_merges": False,
            "vocab": ids,
            "merges": _merges(ids, token_scores(metadata, tokens)),
        },
    }


def _merges(ids: Mapping[str, int], scores: Sequence[float]) -> list[list[str]]:
    made = {text: scores[token] for text, token in ids.items()}
    return [list(pair) for pair in merging.from_scores(made, ids)]


def texts(metadata: Metadata) -> list[str]:
    """Return every id's token as tokenizer.json spells it, which is as GGUF does."""
    return keys.texts(metadata, keys.TOKENS) or []


def defaults(metadata: Metadata) -> Defaults:
    """Return what llama.cpp does where a file of this kind does not say."""
    del metadata
    return Defaults(adds_bos=True, tidies=False, eos=2)
