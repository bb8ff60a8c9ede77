"""Side files (config.json, tokenizer_config.json) kept as key-values of a single-file container."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from weighbridge.errors import InvalidFile, InvalidInput
from weighbridge.metadata import Value, array, string

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.model import Config

PREFIX = "weighbridge.file."
"""What a key that holds a side file begins with; the file's name follows."""

CONFIG = "config.json"


def to_metadata(files: Mapping[str, bytes]) -> dict[str, Value]:
    """Return `files` as key-values: text as a string, anything else as an array of u8.

    Example:
        >>> to_metadata({"a.json": b"{}"})
        {'weighbridge.file.a.json': Value(type='string', data='{}', items=None)}
    """
    return {PREFIX + name: _value(content) for name, content in files.items()}


def _value(content: bytes) -> Value:
    try:
        return string(content.decode())
    except UnicodeDecodeError:
        return array("u8", list(content))


def from_metadata(metadata: Mapping[str, Value]) -> dict[str, bytes]:
    """Return the side files that `metadata` holds.

    Raises:
        InvalidFile: (rule ``file-name``) for a name that leads out of a directory, (rule
            ``value-type``) for a value that is no file's content.
    """
    return {
        _checked(key.removeprefix(PREFIX)): _content(key, value)
        for key, value in metadata.items()
        if key.startswith(PREFIX)
    }


def _checked(name: str) -> str:
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or {"", ".", ".."} & set(parts):
        raise InvalidFile(
            "holds a side file that no directory may have", rule="file-name", got=name
        )
    return name


def _content(key: str, value: Value) -> bytes:
    if value.type == "string":
        return str(value.data).encode("utf-8", "surrogateescape")
    if (value.type, value.items) != ("array", "u8"):
        raise InvalidFile(
            f"{key} is not the content of a file",
            rule="value-type",
            got=value.items or value.type,
            expected="a string or an array of u8",
        )
    return bytes(value.data)  # type: ignore[arg-type]


def dump_json(document: object) -> bytes:
    r"""Return a document as Hugging Face writes its side files: two spaces, a final newline.

    Raises:
        InvalidInput: (rule ``json``) when it is nested more deeply than can be written.

    Example:
        >>> dump_json({"a": "é"}).decode()
        '{\n  "a": "é"\n}\n'
    """
    try:
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair: only an escape can say it
        return (json.dumps(document, indent=2) + "\n").encode()
    except RecursionError:
        raise InvalidInput("a document is nested too deeply", rule="json") from None


def parse_json(content: bytes, path: Path | str) -> Config:
    """Return the JSON object in `content`.

    Raises:
        InvalidFile: (rule ``json``) when it is not one.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"is not JSON: {error}", rule="json", path=path) from None
    if not isinstance(document, dict):
        raise InvalidFile(
            "is not a JSON object", rule="json", path=path, got=type(document).__name__
        )
    return document
