"""The two ways: side files of a Hugging Face directory to key-values of GGUF, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers import keys, kinds, normalizers, special, templates
from weighbridge.converters.tokenizers.document import (
    FILE,
    SETTINGS_FILE,
    Source,
    ids,
)
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.errors import InvalidFile
from weighbridge.metadata import scalar, string
from weighbridge.sidefiles import dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.converters.tokenizers.special import Defaults
    from weighbridge.metadata import Metadata, Value

CLASS = "PreTrainedTokenizerFast"
"""The class that takes tokenizer.json as it is; others rebuild it from its vocabulary."""

PREFIXED = frozenset(
    (
        *("afmoe", "apertus", "arcee", "ernie4_5", "ernie4_5_moe", "granite", "granitemoe"),
        *("granitemoehybrid", "internlm2", "internlm3", "llama", "llama4", "llama4_text"),
        *("ministral3", "mistral", "mixtral", "smollm3"),
    )
)
"""The families for which llama.cpp's converter copies add_prefix_space, whatever the kind."""


@dataclass
class Result:
    """A tokenizer as GGUF holds it.

    Attributes:
        metadata: the key-values, in the order that llama.cpp's converter writes them.
        warnings: where llama.cpp will differ from the tokenizer, or two files from each other.
    """

    metadata: dict[str, Value]
    warnings: list[str] = field(default_factory=list)


def to_gguf(
    files: Mapping[str, bytes],
    config: Mapping[str, object],
    *,
    vocab_size: int,
    pre: str | None = None,
) -> Result:
    """Return the ``tokenizer.*`` key-values for the side files of a Hugging Face directory.

    Args:
        files: tokenizer.json or SentencePiece's model file, or both, and, where they are there,
            tokenizer_config.json, special_tokens_map.json, added_tokens.json and the chat
            templates, by name.
        config: config.json.
        vocab_size: the number of embeddings; ids without a token are filled up to it.
        pre: the pre-tokenizer's name, where it should not be recognised.

    Raises:
        NotFound: (rule ``tokenizer-missing``) without any of the two.
        Unsupported: (rules ``tokenizer-model``, ``pre-tokenizer``, ``normalizer``) for what
            llama.cpp has no name for.
        InvalidInput: (rule ``vocabulary-size``) for more tokens than `vocab_size`.
        InvalidFile: for files that break their own rules.

    Example:
        >>> document = {
        ...     "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        ...     "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
        ... }
        >>> files = {"tokenizer.json": json.dumps(document).encode()}
        >>> metadata = to_gguf(files, {"eos_token_id": 1}, vocab_size=4).metadata
        >>> metadata["tokenizer.ggml.tokens"].plain(), metadata["tokenizer.ggml.pre"].data
        (['a', 'b', 'ab', '[PAD3]'], 'gpt-2')
    """
    source = Source.read(files, config)
    kind = kinds.of_source(source)
    result = Result({})
    prefix = source.setting("add_prefix_space")
    if isinstance(prefix, bool) and str(config.get("model_type", "llama")) in PREFIXED:
        result.metadata[keys.ADD_PREFIX_SPACE] = scalar("bool", prefix)
    result.metadata |= kind.to_gguf(
        source, vocab_size=vocab_size, pre=pre, warnings=result.warnings
    )
    defaults = kind.defaults(result.metadata)
    result.metadata |= special.to_gguf(
        source, vocab_size=vocab_size, defaults=defaults, warnings=result.warnings
    )
    for role, adds in (("bos", defaults.adds_bos), ("eos", defaults.adds_eos)):
        if adds and source.document:  # unless the tokenizer does, it has to be said
            result.metadata.setdefault(keys.ADD_TOKEN[role], scalar("bool", data=False))
    result.metadata |= templates.to_gguf(source, result.warnings)
    result.metadata |= normalizers.to_gguf(source.document, assumed=defaults.normalizes)
    if FILE in files:
        result.metadata[keys.HUGGING_FACE_JSON] = string(templates.decode(files[FILE], FILE))
    _check_text(result.metadata)
    return result


def _check_text(metadata: Metadata) -> None:
    """Reject text that JSON can escape and UTF-8 cannot hold: half of a surrogate pair."""
    for key, value in metadata.items():
        if "string" in (value.type, value.items):
            text = value.data if isinstance(value.data, str) else "".join(value.data)  # type: ignore[arg-type]
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InvalidFile(
                    f"{key} would not be UTF-8", rule="utf-8", path=FILE, got=error.reason
                ) from None


def from_gguf(metadata: Metadata) -> dict[str, bytes]:
    """Return the side files that the ``tokenizer.*`` key-values of a GGUF stand for.

    tokenizer.json is the one that the file carries, else it is built from the arrays.

    Returns:
        tokenizer.json, tokenizer_config.json and the chat templates, by name.

    Raises:
        Unsupported: (rules ``tokenizer-model``, ``pre-tokenizer``) for names that are not known.
        InvalidFile: (rule ``tokenizer-mismatch``) when the carried tokenizer.json and the arrays
            have different tokens; and for key-values that make no tokenizer.
    """
    kind = kinds.of_metadata(metadata)
    tokens = keys.texts(metadata, keys.TOKENS) or []
    carried = keys.text(metadata, keys.HUGGING_FACE_JSON)
    try:
        if carried is None:
            document = json.dumps(
                kind.from_gguf(metadata), ensure_ascii=False, separators=(",", ":")
            ).encode()
        else:
            document = carried.encode()
            _check_carried(document, kind.texts(metadata), metadata)
        files = {
            FILE: document,
            SETTINGS_FILE: dump_json(_settings(metadata, tokens, kind.defaults(metadata))),
        }
        return files | templates.from_gguf(metadata)
    except UnicodeEncodeError as error:
        raise InvalidFile(
            "a token or a chat template is not UTF-8", rule="utf-8", got=error.reason
        ) from None


def _check_carried(content: bytes, tokens: list[str], metadata: Metadata) -> None:
    """Reject a tokenizer.json that another program's change of the arrays left behind."""
    types = keys.numbers(metadata, keys.TOKEN_TYPE) or []
    for text, token in ids(parse_json(content, keys.HUGGING_FACE_JSON)).items():
        normal = token >= len(types) or types[token] == TokenType.NORMAL
        if token >= len(tokens) or (normal and tokens[token] != text):
            raise InvalidFile(
                f"{keys.HUGGING_FACE_JSON} and {keys.TOKENS} are of different tokenizers",
                rule="tokenizer-mismatch",
                got=repr(tokens[token]) if token < len(tokens) else f"{len(tokens)} tokens",
                expected=f"{text!r} as token {token}",
                hint=f"remove {keys.HUGGING_FACE_JSON} to build the tokenizer from the arrays",
            )


def _settings(metadata: Metadata, tokens: list[str], defaults: Defaults) -> dict[str, object]:
    """Return tokenizer_config.json."""
    flags = {f"add_{role}_token": key for role, key in keys.ADD_TOKEN.items()}
    flags["add_prefix_space"] = keys.ADD_PREFIX_SPACE
    said = {name: keys.flag(metadata, key) for name, key in flags.items()}
    roles = special.by_role(metadata, tokens)
    if {"bos", "sep"} <= roles.keys():  # GGUF has no key for the token that an encoder begins with
        roles["cls"] = roles["bos"]
    settings = {
        "tokenizer_class": CLASS,
        # transformers no longer does it, and warns where it is asked for.
        **({} if defaults.tidies else {"clean_up_tokenization_spaces": False}),
        **{name: value for name, value in said.items() if value is not None},
        **{f"{role}_token": tokens[token] for role, token in roles.items()},
    }
    return dict(sorted(settings.items()))
