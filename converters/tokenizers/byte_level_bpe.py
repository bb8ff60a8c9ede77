"""Byte-level BPE, which GGUF calls ``gpt2``: bytes spelled as characters, then merged in pairs.

Sources: GGUF specification, section "Tokenizer"; which tokens are normal, control or user-defined,
and how holes are filled, follow llama.cpp's converter; what is done with them follows its
``src/llama-vocab.cpp`` and the `tokenizers` library.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, NoReturn

from weighbridge.converters.tokenizers import keys, special
from weighbridge.converters.tokenizers.document import (
    FILE,
    AddedToken,
    added_tokens,
    merges,
    part,
    vocabulary,
)
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.converters.tokenizers.patterns import PreTokenizer, byte_level
from weighbridge.converters.tokenizers.pretokenizers import (
    is_byte_level,
    normalizer_of,
    recognise,
    row,
)
from weighbridge.converters.tokenizers.special import Defaults
from weighbridge.errors import InvalidFile, InvalidInput
from weighbridge.metadata import array, string

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.converters.tokenizers.document import Document, Source
    from weighbridge.metadata import Metadata, Value

NAME = "gpt2"

MAX_TOKENS = 1 << 22
"""The largest vocabulary that is believed; a hostile config would fill the memory with padding."""

ADDED_TYPES = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
"""The types of tokens that are found in a text before it is cut."""

PHANTOM_SPACE = "\u2581"
"""How SentencePiece writes a space; tokens that users define may have inherited it."""


def owns(document: Document) -> bool:
    """Say whether a tokenizer.json is of this kind: BPE over bytes, with nothing glued to words.

    Example:
        >>> owns({"model": {"type": "Unigram"}})
        False
    """
    model = part(document, "model", dict)
    glued = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    # The files of the first version do not name the model's type; only BPE has merges.
    is_bpe = model.get("type", "BPE" if "merges" in model else None) == "BPE"
    return is_bpe and not glued and not model.get("byte_fallback") and is_byte_level(document)


def to_gguf(
    source: Source, *, vocab_size: int, pre: str | None, warnings: list[str]
) -> dict[str, Value]:
    """Return the key-values that hold the tokens, their types, the merges and the pre-tokenizer.

    Ids that no token has, up to `vocab_size`, are filled with unused tokens ``[PAD<id>]``.

    Raises:
        Unsupported: (rules ``pre-tokenizer`` and ``normalizer``) for a structure that llama.cpp has
            no name for.
        InvalidInput: (rule ``vocabulary-size``) for more tokens than `vocab_size`, and for a size
            over `MAX_TOKENS`.
        InvalidFile: (rule ``tokenizer-json``) for a tokenizer.json that breaks its own rules.
    """
    known = _pre_tokenizer(source, pre, warnings)
    tokens, types = _tokens(source.document, vocab_size)
    _warn_of_added_tokens(source.document, warnings)
    return {
        keys.MODEL: string(NAME),
        keys.PRE: string(known.name),
        keys.TOKENS: array("string", tokens),
        keys.TOKEN_TYPE: array("i32", types),
        keys.MERGES: array("string", [_merge_text(a, b) for a, b in merges(source.document)]),
    }


def _pre_tokenizer(source: Source, pre: str | None, warnings: list[str]) -> PreTokenizer:
    if pre is not None:
        return row(pre)
    tidies = source.setting("clean_up_tokenization_spaces")
    known = recognise(source.document, tidies=tidies if isinstance(tidies, bool) else None)
    if normalizer_of(source.document):
        warnings.append("llama.cpp does not normalise: text that is not NFC is encoded differently")
    if part(source.document, "model", dict).get("ignore_merges", False) != known.ignore_merges:
        warnings.append(
            f"llama.cpp {'takes' if known.ignore_merges else 'does not take'} pieces that are "
            f"tokens whole for the pre-tokenizer '{known.name}', unlike this tokenizer"
        )
    return known


def _tokens(document: Document, vocab_size: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of every id."""
    texts = {token: content for content, token in vocabulary(document).items()}
    added = {token.id: token for token in added_tokens(document)}
    largest = max((*texts, *added), default=-1)
    if largest >= vocab_size:
        raise InvalidInput(
            f"{FILE} has more tokens than the model has embeddings",
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
    tokens, types = [], []
    for token in range(vocab_size):
        content, kind = _token(token, texts, added)
        tokens.append(content)
        types.append(int(kind))
    return tokens, types


def _token(
    token: int, texts: Mapping[int, str], added: Mapping[int, AddedToken]
) -> tuple[str, TokenType]:
    entry = added.get(token)
    if entry is None:
        content = texts.get(token)
        return (
            (padding(token), TokenType.UNUSED) if content is None else (content, TokenType.NORMAL)
        )
    # llama.cpp looks for these tokens as they stand in the text.
    content = entry.content if entry.normalized else decoded(entry.content)
    if entry.special or special.looks_special(content):
        return content, TokenType.CONTROL
    return content.replace(PHANTOM_SPACE, " "), TokenType.USER_DEFINED


def padding(token: int) -> str:
    """Return the text that fills an id which no token has.

    Example:
        >>> padding(7)
        '[PAD7]'
    """
    return f"[PAD{token}]"


@cache
def alphabet() -> Mapping[str, int]:
    """Return the character that spells each byte -> the byte.

    Printable Latin-1 characters spell themselves, the others the characters from U+0100.
    Source: GPT-2's encoder.

    Example:
        >>> alphabet()["a"], alphabet()["Ġ"]
        (97, 32)
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    spelled = {chr(byte): byte for byte in printable}
    return spelled | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def decoded(content: str) -> str:
    """Return a token's text as the byte-level decoder gives it.

    Example:
        >>> decoded("ĠÃ©"), decoded("<two words>")
        (' é', '<two words>')
    """
    spelled = alphabet()
    if not all(character in spelled for character in content):
        return content
    return bytes(spelled[character] for character in content).decode("utf-8", "replace")


def _merge_text(first: str, second: str) -> str:
    """Return a merge as GGUF holds it: a space stands between, so a space within is spelled."""
    return f"{first.replace(' ', 'Ġ')} {second.replace(' ', 'Ġ')}"


def _warn_of_added_tokens(document: Document, warnings: list[str]) -> None:
    stripping = [token.content for token in added_tokens(document) if token.strips]
    if stripping:
        warnings.append(
            f"llama.cpp matches {len(stripping)} added tokens without regard to the spaces or "
            f"words beside them, unlike this tokenizer: {', '.join(map(repr, stripping[:5]))}"
        )


def from_gguf(metadata: Metadata) -> dict[str, object]:
    """Return the tokenizer.json that the arrays stand for.

    ``[PAD<id>]`` tokens, which only fill holes, are left out.

    Raises:
        Unsupported: (rule ``pre-tokenizer``) for a name that is not in the table.
        InvalidFile: (rules ``missing-key``, ``value-type``, ``token-type``, ``duplicate-token``,
            ``merge``) for arrays that make no vocabulary.
    """
    known = row(keys.text(metadata, keys.PRE) or "default")
    tokens = _texts(metadata)
    types = _types(metadata, tokens)
    for token in special.by_role(metadata, tokens).values():
        if types[token] == TokenType.NORMAL:
            types[token] = TokenType.CONTROL
    kept = [n for n, content in enumerate(tokens) if not _fills(n, content, types[n])]
    ids = {tokens[n]: n for n in kept}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(n, tokens[n], types[n]).to_json() for n in kept if types[n] in ADDED_TYPES
        ],
        "normalizer": known.normalizer and {"type": known.normalizer},
        "pre_tokenizer": _pre_tokenizer_json(known),
        "post_processor": special.post_processor(metadata, tokens, defaults(metadata)),
        "decoder": {**byte_level(use_regex=True), "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": known.ignore_merges,
            "vocab": {tokens[n]: n for n in _model_ids(kept, types)},
            "merges": _merges(metadata, ids),
        },
    }


def _added(token: int, content: str, kind: int) -> AddedToken:
    """Return a token that is looked for as it stands; one spelled like bytes must say so."""
    return AddedToken(
        token,
        content,
        special=kind != TokenType.USER_DEFINED,
        normalized=decoded(content) != content,
    )


def defaults(metadata: Metadata) -> Defaults:
    """Return what llama.cpp does where a file of this kind does not say.

    Raises:
        Unsupported: (rule ``pre-tokenizer``) for a name that is not in the table.
    """
    known = row(keys.text(metadata, keys.PRE) or "default")
    return Defaults(adds_bos=known.adds_bos, tidies=known.tidies)


def _pre_tokenizer_json(known: PreTokenizer) -> object:
    steps = [dict(step) for step in known.steps]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def _fills(token: int, content: str, kind: int) -> bool:
    """Say whether a token only fills a hole; converters have called such ones user-defined too."""
    return kind in (TokenType.UNUSED, TokenType.USER_DEFINED) and content == padding(token)


def _model_ids(kept: Sequence[int], types: Sequence[int]) -> Sequence[int]:
    """Return the ids that belong to the model, the rest being known as added tokens only.

    `tokenizers` gives the ids after the model's to added tokens that the model does not know, so
    added tokens at the end may stay out of it, as they do in most tokenizer.json, if no id is free.
    """
    if list(kept) != list(range(len(kept))):
        return kept
    end = len(kept)
    while end and types[end - 1] in ADDED_TYPES:
        end -= 1
    return range(end) if end else kept


def _texts(metadata: Metadata) -> list[str]:
    """Return the tokens; as in llama.cpp, one without text is called after its id."""
    found = keys.texts(metadata, keys.TOKENS)
    if not found:
        _missing(keys.TOKENS)
    tokens = [content or f"[EMPTY_{n}]" for n, content in enumerate(found)]
    if len(set(tokens)) != len(tokens):
        twice = Counter(tokens).most_common(1)[0][0]
        raise InvalidFile("two ids have the same token", rule="duplicate-token", got=repr(twice))
    return tokens


def _types(metadata: Metadata, tokens: Sequence[str]) -> list[int]:
    types = keys.numbers(metadata, keys.TOKEN_TYPE)
    if types is None:
        return [TokenType.NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise InvalidFile(
            f"{keys.TOKEN_TYPE} is not as long as {keys.TOKENS}",
            rule="token-type",
            got=len(types),
            expected=len(tokens),
        )
    return types


def _merges(metadata: Metadata, ids: Mapping[str, int]) -> list[list[str]]:
    """Return the merges as pairs of tokens that, like what they make, are in the vocabulary."""
    found = keys.texts(metadata, keys.MERGES)
    if found is None:
        _missing(keys.MERGES)
    pairs = []
    for text in found:
        space = text.find(" ", 1)
        first, second = text[:space], text[space + 1 :]
        if space < 0 or first not in ids or second not in ids or first + second not in ids:
            raise InvalidFile(
                "a merge is not of two tokens into a third", rule="merge", got=repr(text)
            )
        pairs.append([first, second])
    return pairs


def _missing(key: str) -> NoReturn:
    raise InvalidFile("the tokenizer is incomplete", rule="missing-key", expected=key)
