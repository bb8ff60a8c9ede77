"""Byte-level BPE, which GGUF calls ``gpt2``: bytes spelled as characters, then merged in pairs.

Sources: GGUF specification, section "Tokenizer"; which tokens are normal, control or user-defined,
and how holes are filled, follow llama.cpp's converter; what is done with them follows its
``src/llama-vocab.cpp`` and the `tokenizers` library.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers import keys, special
from weighbridge.converters.tokenizers.arrays import (
    ADDED_TYPES,
    PHANTOM_SPACE,
    check_size,
    fills,
    missing,
    model_ids,
    padding,
    token_texts,
)
from weighbridge.converters.tokenizers.document import (
    FILE,
    AddedToken,
    added_tokens,
    ids,
    merges,
    part,
    vocabulary,
)
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.converters.tokenizers.patterns import PreTokenizer, byte_level
from weighbridge.converters.tokenizers.pretokenizers import (
    adds_prefix,
    describe,
    is_byte_level,
    normalizer_of,
    recognise,
    row,
)
from weighbridge.converters.tokenizers.special import Defaults
from weighbridge.errors import InvalidFile
from weighbridge.metadata import array, scalar, string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.converters.tokenizers.document import Document, Source
    from weighbridge.metadata import Metadata, Value

NAME = "gpt2"
TITLE = "byte-level BPE"

DEFAULT = "default"
"""The pre-tokenizer of a file that names none."""

UTF8_BYTES = frozenset(range(0x100)) - frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))
"""The bytes that UTF-8 has."""


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
        Unsupported: (rule ``pre-tokenizer``) for a name given as `pre` that is not in the table,
            (rule ``normalizer``) for a text changed in a way that llama.cpp cannot leave out.
        InvalidInput: (rule ``vocabulary-size``) for more tokens than `vocab_size`, and for a size
            over what is believed.
        InvalidFile: (rule ``tokenizer-json``) for a tokenizer.json that breaks its own rules.
    """
    known = _pre_tokenizer(source, pre, warnings)
    tokens, types = _tokens(source.document, vocab_size)
    special.warn_of_added_tokens(source.document, warnings)
    special.warn_of_absent_tokens(source, warnings)
    prefix = {keys.ADD_PREFIX_SPACE: scalar("bool", data=True)}
    return {
        **(prefix if adds_prefix(source.document) else {}),
        keys.MODEL: string(NAME),
        keys.PRE: string(known.name),
        keys.TOKENS: array("string", tokens),
        keys.TOKEN_TYPE: array("i32", types),
        keys.MERGES: array("string", [_merge_text(a, b) for a, b in merges(source.document)]),
    }


def _pre_tokenizer(source: Source, pre: str | None, warnings: list[str]) -> PreTokenizer:
    """Return the row that the user names, else that of the structure, else the default one."""
    tidies = source.setting("clean_up_tokenization_spaces")
    found = recognise(source.document, tidies=tidies if isinstance(tidies, bool) else None)
    known = row(pre) if pre is not None else found or row(DEFAULT)
    if found is None and pre is None:
        warnings.append(
            "the pre-tokenizer is not one that llama.cpp has a name for, and 'default' may cut "
            "texts otherwise; name the one that cuts alike (--pre-tokenizer), if there is one: "
            + describe(source.document)
        )
    warnings += [sentence for differs, sentence in _differences(source.document, known) if differs]
    return known


def _differences(document: Document, known: PreTokenizer) -> Iterator[tuple[object, str]]:
    """Yield what llama.cpp may do otherwise: whether it does, and what to tell."""
    model = part(document, "model", dict)
    whole = "takes" if known.ignore_merges else "does not take"
    known_ids = ids(document)
    unspelled = len(UTF8_BYTES - {alphabet().get(one) for one in known_ids})
    added = {token.content for token in added_tokens(document)}
    ends = [one for one in special.ENDS if one in known_ids and one not in added]
    yield (
        normalizer_of(document),
        "llama.cpp does not normalise: text that is not NFC is encoded differently",
    )
    yield (
        model.get("ignore_merges", False) != known.ignore_merges,
        f"llama.cpp {whole} pieces that are tokens whole for the pre-tokenizer '{known.name}', "
        "unlike this tokenizer",
    )
    yield (
        ends,
        "llama.cpp takes tokens for ends of texts that are ordinary ones to this tokenizer: "
        + ", ".join(map(repr, ends)),
    )
    yield adds_prefix(document), "llama.cpp puts no space before a text, unlike this tokenizer"
    yield (
        unspelled,
        f"{unspelled} of the bytes that texts are made of have no token: llama.cpp merges nothing "
        "across them, unlike this tokenizer",
    )


def _tokens(document: Document, vocab_size: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of every id."""
    texts = {token: content for content, token in vocabulary(document).items()}
    added = {token.id: token for token in added_tokens(document)}
    largest = max((*texts, *added), default=-1)
    check_size(largest, vocab_size, FILE)
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


def from_gguf(metadata: Metadata) -> dict[str, object]:
    """Return the tokenizer.json that the arrays stand for.

    ``[PAD<id>]`` tokens, which only fill holes, are left out.

    Raises:
        Unsupported: (rule ``pre-tokenizer``) for a name that is not in the table.
        InvalidFile: (rules ``missing-key``, ``value-type``, ``token-type``, ``duplicate-token``,
            ``merge``) for arrays that make no vocabulary.
    """
    known = row(keys.text(metadata, keys.PRE) or DEFAULT)
    assumed = defaults(metadata)
    tokens = token_texts(metadata)
    types = special.types(metadata, tokens)
    kept = [n for n, content in enumerate(tokens) if not fills(n, content, types[n])]
    # RoBERTa's takes the spaces before it.
    mask = special.from_gguf(metadata, len(tokens)).get("mask") if known.adds_sep else None
    prefix = keys.flag(metadata, keys.ADD_PREFIX_SPACE) is True
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(n, tokens[n], types[n]).to_json() | ({"lstrip": True} if n == mask else {})
            for n in kept
            if types[n] in ADDED_TYPES
        ],
        "normalizer": known.normalizer and {"type": known.normalizer},
        "pre_tokenizer": _pre_tokenizer_json(known, prefix=prefix),
        "post_processor": special.roberta(metadata, tokens, assumed)
        or special.post_processor(metadata, tokens, assumed),
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
            "vocab": {tokens[n]: n for n in model_ids(kept, types)},
            "merges": _merges(metadata, {tokens[n]: n for n in kept}),
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


def texts(metadata: Metadata) -> list[str]:
    """Return every id's token as tokenizer.json spells it, which is as GGUF does."""
    return keys.texts(metadata, keys.TOKENS) or []


def defaults(metadata: Metadata) -> Defaults:
    """Return what llama.cpp does where a file of this kind does not say.

    Raises:
        Unsupported: (rule ``pre-tokenizer``) for a name that is not in the table.
    """
    known = row(keys.text(metadata, keys.PRE) or DEFAULT)
    return Defaults(adds_bos=known.adds_bos, tidies=known.tidies, adds_sep=known.adds_sep)


def _pre_tokenizer_json(known: PreTokenizer, *, prefix: bool) -> object:
    spaced = {"add_prefix_space": prefix}
    steps = [dict(step) | (spaced if "add_prefix_space" in step else {}) for step in known.steps]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def _merges(metadata: Metadata, ids: Mapping[str, int]) -> list[list[str]]:
    """Return the merges as pairs of tokens that, like what they make, are in the vocabulary."""
    found = keys.texts(metadata, keys.MERGES)
    if found is None:
        missing(keys.MERGES)
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
