"""The ``tokenizer.*`` key-values of GGUF: their names, and reads that trust none of their types.

Source: GGUF specification, section "Tokenizer"; the token types are those of ``llama.h``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

from weighbridge.errors import InvalidFile
from weighbridge.metadata import INTEGERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.metadata import Metadata, Value

MODEL = "tokenizer.ggml.model"
PRE = "tokenizer.ggml.pre"
TOKENS = "tokenizer.ggml.tokens"
SCORES = "tokenizer.ggml.scores"
TOKEN_TYPE = "tokenizer.ggml.token_type"
MERGES = "tokenizer.ggml.merges"
LOWERCASE = "tokenizer.ggml.normalizer.lowercase"
STRIP_ACCENTS = "tokenizer.ggml.normalizer.strip_accents"
ADD_PREFIX_SPACE = "tokenizer.ggml.add_space_prefix"
MERGES_SPACES = "tokenizer.ggml.remove_extra_whitespaces"
CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
HUGGING_FACE_JSON = "tokenizer.huggingface.json"
CHAT_TEMPLATE = "tokenizer.chat_template"
CHAT_TEMPLATES = "tokenizer.chat_templates"

TOKEN_IDS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
}
"""Hugging Face's name of a special token -> the key of its id (one is misspelt in the format)."""

ADD_TOKEN = {role: f"tokenizer.ggml.add_{role}_token" for role in ("bos", "eos", "sep")}
"""Hugging Face's name of a special token -> the key that says whether a text gets it."""

NO_TOKEN = 0xFFFFFFFF
"""The id that some files hold where they mean none."""


class TokenType(IntEnum):
    """What kind of token an entry of ``tokenizer.ggml.token_type`` is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def text(metadata: Metadata, key: str) -> str | None:
    """Return a string, None where the key is absent.

    Raises:
        InvalidFile: (rule ``value-type``) for another type.

    Example:
        >>> from weighbridge.metadata import string
        >>> text({"a": string("b")}, "a"), text({}, "a")
        ('b', None)
    """
    value = metadata.get(key)
    if value is None:
        return None
    if value.type != "string" or not isinstance(value.data, str):
        _wrong(key, value, "string")
    return value.data


def flag(metadata: Metadata, key: str) -> bool | None:
    """Return a bool, None where the key is absent.

    Raises:
        InvalidFile: (rule ``value-type``) for another type.
    """
    value = metadata.get(key)
    if value is None:
        return None
    if value.type != "bool":
        _wrong(key, value, "bool")
    return bool(value.data)


def number(metadata: Metadata, key: str) -> int | None:
    """Return an integer of any width, None where the key is absent.

    Raises:
        InvalidFile: (rule ``value-type``) for another type.
    """
    value = metadata.get(key)
    if value is None:
        return None
    if value.type not in INTEGERS or not isinstance(value.data, int):
        _wrong(key, value, "an integer")
    return value.data


def texts(metadata: Metadata, key: str) -> list[str] | None:
    """Return an array of strings, None where the key is absent; a lazy one is read here.

    Raises:
        InvalidFile: (rule ``value-type``) for another type.
    """
    items = _items(metadata, key, ("string",), "an array of strings")
    return None if items is None else [str(item) for item in items]


def numbers(metadata: Metadata, key: str) -> list[int] | None:
    """Return an array of integers, None where the key is absent.

    Raises:
        InvalidFile: (rule ``value-type``) for another type.
    """
    items = _items(metadata, key, tuple(INTEGERS), "an array of integers")
    return None if items is None else [int(item) for item in items]  # type: ignore[call-overload]


def reals(metadata: Metadata, key: str) -> list[float] | None:
    """Return an array of numbers, None where the key is absent.

    Raises:
        InvalidFile: (rule ``value-type``) for another type.
    """
    items = _items(metadata, key, ("f32", "f64", *INTEGERS), "an array of numbers")
    return None if items is None else [float(item) for item in items]  # type: ignore[arg-type]


def octets(metadata: Metadata, key: str) -> bytes:
    """Return an array of bytes, empty where the key is absent.

    Raises:
        InvalidFile: (rule ``value-type``) for another type.
    """
    items = _items(metadata, key, ("u8", "i8"), "an array of bytes")
    return bytes(int(item) & 0xFF for item in items or ())  # type: ignore[call-overload]


def _items(
    metadata: Metadata, key: str, types: tuple[str, ...], expected: str
) -> Iterable[object] | None:
    value = metadata.get(key)
    if value is None:
        return None
    if value.type != "array" or value.items not in types or isinstance(value.data, str):
        _wrong(key, value, expected)
    return value.data  # type: ignore[return-value]


def _wrong(key: str, value: Value, expected: str) -> NoReturn:
    got = f"array of {value.items}" if value.type == "array" else value.type
    raise InvalidFile(f"{key} has the wrong type", rule="value-type", got=got, expected=expected)
