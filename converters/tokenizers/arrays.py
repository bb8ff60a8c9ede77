"""The arrays that every kind of tokenizer has in GGUF: a text and a type for each id.

Source: GGUF specification, section "Tokenizer"; how holes are filled follows llama.cpp's converter.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NoReturn

from weighbridge.converters.tokenizers import keys
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.errors import InvalidFile, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.metadata import Metadata

MAX_TOKENS = 1 << 22
"""The largest vocabulary that is believed; a hostile config would fill the memory with padding."""

ADDED_TYPES = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
"""The types of tokens that are found in a text before it is cut."""

PHANTOM_SPACE = "\u2581"
"""How SentencePiece writes a space; tokens that users define may have inherited it."""


def padding(token: int) -> str:
    """Return the text that fills an id which no token has.

    Example:
        >>> padding(7)
        '[PAD7]'
    """
    return f"[PAD{token}]"


def fills(token: int, content: str, kind: int) -> bool:
    """Say whether a token only fills a hole; converters have called such ones user-defined too.

    Example:
        >>> fills(7, "[PAD7]", TokenType.UNUSED), fills(7, "[PAD7]", TokenType.NORMAL)
        (True, False)
    """
    return kind in (TokenType.UNUSED, TokenType.USER_DEFINED) and content == padding(token)


def check_size(largest: int, vocab_size: int, path: str) -> None:
    """Refuse a vocabulary that has no room, and a room that no vocabulary has.

    Args:
        largest: the largest id.
        vocab_size: the number of embeddings.
        path: the file that has the id.

    Raises:
        InvalidInput: (rule ``vocabulary-size``).
    """
    if largest >= vocab_size:
        raise InvalidInput(
            f"{path} has more tokens than the model has embeddings",
            rule="vocabulary-size",
            got=f"the id {largest}",
            expected=f"ids below {vocab_size}",
        )
    if vocab_size > MAX_TOKENS:
        raise InvalidInput(
            "the vocabulary is larger than any that is believed",
            rule="vocabulary-size",
            got=vocab_size,
            expected=f"at most {MAX_TOKENS}",
        )


def token_texts(metadata: Metadata) -> list[str]:
    """Return the tokens; as in llama.cpp, one without text is called after its id.

    Raises:
        InvalidFile: (rules ``missing-key``, ``value-type``) for no array of strings, (rule
            ``duplicate-token``) for two ids with the same text.
    """
    found = keys.texts(metadata, keys.TOKENS)
    if not found:
        missing(keys.TOKENS)
    tokens = [content or f"[EMPTY_{n}]" for n, content in enumerate(found)]
    check_distinct(tokens)
    return tokens


def check_distinct(tokens: Sequence[str]) -> None:
    """Refuse two ids with the same text.

    Raises:
        InvalidFile: (rule ``duplicate-token``).
    """
    if len(set(tokens)) != len(tokens):
        twice = Counter(tokens).most_common(1)[0][0]
        raise InvalidFile("two ids have the same token", rule="duplicate-token", got=repr(twice))


def token_types(metadata: Metadata, tokens: Sequence[str]) -> list[int]:
    """Return every token's type; where the file does not say, all are normal.

    Raises:
        InvalidFile: (rule ``value-type``) for no array of integers, (rule ``token-type``) for one
            that is not as long as `tokens`.
    """
    found = keys.numbers(metadata, keys.TOKEN_TYPE)
    if found is None:
        return [TokenType.NORMAL] * len(tokens)
    check_length(keys.TOKEN_TYPE, len(found), tokens, "token-type")
    return found


def check_length(key: str, length: int, tokens: Sequence[str], rule: str) -> None:
    """Refuse an array that has not one entry for each token.

    Raises:
        InvalidFile: with `rule`.
    """
    if length != len(tokens):
        raise InvalidFile(
            f"{key} is not as long as {keys.TOKENS}", rule=rule, got=length, expected=len(tokens)
        )


def model_ids(kept: Sequence[int], types: Sequence[int]) -> Sequence[int]:
    """Return the ids that belong to the model, the rest being known as added tokens only.

    `tokenizers` gives the ids after the model's to added tokens that the model does not know, so
    added tokens at the end may stay out of it, as they do in most tokenizer.json, if no id is free.

    Args:
        kept: the ids that some token has.
        types: every token's type.
    """
    if list(kept) != list(range(len(kept))):
        return kept
    end = len(kept)
    while end and types[end - 1] in ADDED_TYPES:
        end -= 1
    return range(end) if end else kept


def missing(key: str) -> NoReturn:
    """Reject a file that lacks a key-value.

    Raises:
        InvalidFile: always, (rule ``missing-key``).
    """
    raise InvalidFile("the tokenizer is incomplete", rule="missing-key", expected=key)
