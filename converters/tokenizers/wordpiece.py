"""WordPiece, which GGUF calls ``bert``: the longest token that a word begins with, then the next.

In tokenizer.json what goes on within a word is marked (``##ing``); in GGUF what begins a word is,
with a "phantom space" (``▁go``), control tokens aside.

Sources: llama.cpp's converter (``conversion/bert.py``) for the arrays; `tokenizers` and llama.cpp's
``src/llama-vocab.cpp`` for what is done with them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers import keys, normalizers, special
from weighbridge.converters.tokenizers.arrays import (
    ADDED_TYPES,
    PHANTOM_SPACE,
    check_size,
    fills,
    missing,
    model_ids,
    padding,
    token_texts,
    token_types,
)
from weighbridge.converters.tokenizers.behaviour import (
    MOST_CHARACTERS,
    PRE_TOKENIZER,
    differences,
)
from weighbridge.converters.tokenizers.document import (
    FILE,
    AddedToken,
    added_tokens,
    part,
    vocabulary,
)
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.converters.tokenizers.special import Defaults
from weighbridge.errors import Unsupported
from weighbridge.metadata import array, scalar, string

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.converters.tokenizers.document import Document, Source
    from weighbridge.metadata import Metadata, Value

NAME = "bert"
TITLE = "WordPiece"

WITHIN = "##"
"""What marks a token that goes on within a word, in most tokenizer.json."""

PRE_NAMES = {30522: "jina-v2-en", 21128: "bert-bge-large"}
"""How many tokens the English and the Chinese BERT have -> the name that the converter writes.

It knows no others; llama.cpp reads none for this kind.
"""

UNNAMED = "default"

DEFAULT_IDS = {"bos": 101, "unk": 100, "sep": 102, "pad": 0, "mask": 103}
"""The ids that llama.cpp takes where a file does not say: those of the English BERT."""


def owns(document: Document) -> bool:
    """Say whether a tokenizer.json is of this kind.

    Example:
        >>> owns({"model": {"type": "WordPiece"}})
        True
    """
    return part(document, "model", dict).get("type") == "WordPiece"


def to_gguf(
    source: Source, *, vocab_size: int, pre: str | None, warnings: list[str]
) -> dict[str, Value]:
    """Return the key-values that hold the tokens and their types.

    Ids that no token has, up to `vocab_size`, are filled with unused tokens ``[PAD<id>]``.

    Raises:
        Unsupported: (rule ``duplicate-token``) when two tokens would be spelled alike.
        InvalidInput: (rule ``vocabulary-size``) for more tokens than `vocab_size`, and for a size
            over what is believed.
        InvalidFile: (rule ``tokenizer-json``) for a tokenizer.json that breaks its own rules.
    """
    tokens, types = _tokens(source.document, vocab_size)
    warnings += differences(source.document)
    special.warn_of_added_tokens(source.document, warnings)
    special.warn_of_absent_tokens(source, warnings)
    if pre is not None:
        warnings.append("llama.cpp reads no pre-tokenizer's name for WordPiece")
    return {
        keys.MODEL: string(NAME),
        keys.PRE: string(pre or PRE_NAMES.get(vocab_size, UNNAMED)),
        keys.TOKENS: array("string", tokens),
        keys.TOKEN_TYPE: array("i32", types),
        **_unknown(source, vocab_size),
    }


def _tokens(document: Document, vocab_size: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of every id."""
    texts = {token: content for content, token in vocabulary(document).items()}
    added = {token.id: token for token in added_tokens(document)}
    check_size(max((*texts, *added), default=-1), vocab_size, FILE)
    prefix = _prefix(document)
    tokens, types = [], []
    for token in range(vocab_size):
        content, kind = _token(token, texts, added)
        tokens.append(_with_phantom(content, kind, prefix))
        types.append(int(kind))
    if len(set(tokens)) != len(tokens):
        raise Unsupported(
            "two tokens are spelled alike once words begin with a phantom space",
            rule="duplicate-token",
            path=FILE,
            got=repr(Counter(tokens).most_common(1)[0][0]),
        )
    return tokens, types


def _prefix(document: Document) -> str:
    model = part(document, "model", dict)
    return part(model, "continuing_subword_prefix", str, WITHIN)


def _token(
    token: int, texts: Mapping[int, str], added: Mapping[int, AddedToken]
) -> tuple[str, TokenType]:
    entry = added.get(token)
    if entry is None:
        found = texts.get(token)
        return (padding(token), TokenType.UNUSED) if found is None else (found, TokenType.NORMAL)
    if entry.special or special.looks_special(entry.content):
        return entry.content, TokenType.CONTROL
    return entry.content.replace(PHANTOM_SPACE, " "), TokenType.USER_DEFINED


def _with_phantom(content: str, kind: int, prefix: str) -> str:
    if kind == TokenType.CONTROL:
        return content
    if content.startswith(prefix):
        return content[len(prefix) :]
    return PHANTOM_SPACE + content


def _unknown(source: Source, vocab_size: int) -> dict[str, Value]:
    """Return the id of the unknown token where only the model names it."""
    name = part(source.document, "model", dict).get("unk_token")
    token = vocabulary(source.document).get(name) if isinstance(name, str) else None
    if token is None or source.token_setting("unk") or token == DEFAULT_IDS["unk"]:
        return {}
    return {keys.TOKEN_IDS["unk"]: scalar("u32", token)}


def from_gguf(metadata: Metadata) -> dict[str, object]:
    """Return the tokenizer.json that the arrays stand for.

    ``[PAD<id>]`` tokens, which only fill holes, are left out.

    Raises:
        InvalidFile: (rules ``missing-key``, ``value-type``, ``token-type``, ``token-id``,
            ``duplicate-token``) for arrays that make no vocabulary.
    """
    types = token_types(metadata, token_texts(metadata))
    tokens = texts(metadata)
    ids = _special_ids(metadata, tokens)
    for token in ids.values():
        types[token] = TokenType.CONTROL
    kept = [n for n, content in enumerate(tokens) if not fills(n, content, types[n])]
    first, last = ([ids[role]] if role in ids else [] for role in ("bos", "sep"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(n, tokens[n], types[n]).to_json() for n in kept if types[n] in ADDED_TYPES
        ],
        "normalizer": normalizers.bert(metadata),
        "pre_tokenizer": {"type": PRE_TOKENIZER},
        "post_processor": special.template(tokens, first=first, between=[], last=last),
        "decoder": {"type": "WordPiece", "prefix": WITHIN, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": tokens[ids["unk"]],
            "continuing_subword_prefix": WITHIN,
            "max_input_chars_per_word": MOST_CHARACTERS,
            "vocab": {tokens[n]: n for n in _model_ids(kept, types, ids["unk"])},
        },
    }


def _special_ids(metadata: Metadata, tokens: Sequence[str]) -> dict[str, int]:
    """Return role -> id, with llama.cpp's ids where the file says none."""
    ids = {role: token for role, token in DEFAULT_IDS.items() if token < len(tokens)}
    ids |= special.from_gguf(metadata, len(tokens))
    if "unk" not in ids:
        missing(keys.TOKEN_IDS["unk"])
    return ids


def _model_ids(kept: Sequence[int], types: Sequence[int], unknown: int) -> Sequence[int]:
    """Return the ids that belong to the model, which has to know the unknown token."""
    found = model_ids(kept, types)
    return found if unknown in found else kept


def _added(token: int, content: str, kind: int) -> AddedToken:
    """Return an added token; those of users are looked for in what was normalised."""
    users = kind == TokenType.USER_DEFINED
    return AddedToken(token, content, special=not users, normalized=users)


def texts(metadata: Metadata) -> list[str]:
    """Return every id's token as tokenizer.json spells it.

    Files of older converters leave ``[unused1]`` and its like as they are, whatever their type.

    Raises:
        InvalidFile: (rules ``missing-key``, ``value-type``, ``token-type``, ``duplicate-token``)
            for arrays that make no vocabulary.
    """
    tokens = token_texts(metadata)
    types = token_types(metadata, tokens)
    return [_without_phantom(*one) for one in zip(tokens, types, strict=True)]


def _without_phantom(content: str, kind: int) -> str:
    begins = content.startswith(PHANTOM_SPACE) and content != PHANTOM_SPACE
    if begins and kind != TokenType.CONTROL:
        return content[len(PHANTOM_SPACE) :]
    is_whole = kind == TokenType.CONTROL or (content.startswith("[") and content.endswith("]"))
    return content if is_whole else WITHIN + content


def defaults(metadata: Metadata) -> Defaults:
    """Return what llama.cpp does where a file of this kind does not say."""
    return Defaults(adds_bos=True, tidies=True, normalizes=True)
