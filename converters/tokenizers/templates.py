"""Chat templates: one, or several with names; in tokenizer_config.json, in files, in key-values.

Sources: transformers (a file ``chat_template.jinja``, more under ``additional_chat_templates``, and
older files' ``chat_template`` entry, as a text or a list of named ones; a file wins); llama.cpp's
converter for the key-values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from weighbridge.converters.tokenizers import keys
from weighbridge.errors import InvalidFile
from weighbridge.metadata import array, string
from weighbridge.sidefiles import parse_json

if TYPE_CHECKING:
    from weighbridge.converters.tokenizers.document import Source
    from weighbridge.metadata import Metadata, Value

DEFAULT = "default"
FILE = "chat_template.jinja"
OLD_FILE = "chat_template.json"
FOLDER = "additional_chat_templates/"
SUFFIX = ".jinja"

FOREIGN = re.compile("[^A-Za-z0-9]")
"""What a template's name in a key may not have."""


def to_gguf(source: Source, warnings: list[str]) -> dict[str, Value]:
    """Return the key-values of the chat templates; the default one comes last.

    Raises:
        InvalidFile: (rule ``chat-template``) for one that is not text.
    """
    found = _from_files(source.files)
    settings = _named(source.setting("chat_template"))
    if found and settings and found != settings:
        warnings.append(f"tokenizer_config.json has another chat template than {FILE}, which wins")
    templates = found or settings or _old(source.files)
    named = {
        FOREIGN.sub("_", name): text for name, text in templates.items() if name != DEFAULT and name
    }
    metadata = {f"{keys.CHAT_TEMPLATE}.{name}": string(text) for name, text in named.items()}
    if named:
        metadata[keys.CHAT_TEMPLATES] = array("string", list(named))
    if DEFAULT in templates:
        metadata[keys.CHAT_TEMPLATE] = string(templates[DEFAULT])
    return metadata


def _from_files(files: Mapping[str, bytes]) -> dict[str, str]:
    templates = {DEFAULT: decode(files[FILE], FILE)} if FILE in files else {}
    for name in sorted(files):
        if name.startswith(FOLDER) and name.endswith(SUFFIX):
            templates[name[len(FOLDER) : -len(SUFFIX)]] = decode(files[name], name)
    return templates


def _old(files: Mapping[str, bytes]) -> dict[str, str]:
    if OLD_FILE not in files:
        return {}
    return _named(parse_json(files[OLD_FILE], OLD_FILE).get("chat_template"))


def _named(entry: object) -> dict[str, str]:
    """Return the templates of an entry by name: a text, or a list of objects.

    Raises:
        InvalidFile: (rule ``chat-template``) for anything else.
    """
    if entry is None:
        return {}
    if isinstance(entry, str):
        return {DEFAULT: entry}
    if not isinstance(entry, list):
        _wrong("the chat template is neither a text nor a list", got=type(entry).__name__)
    templates = {}
    for choice in entry:
        name, text = (
            (choice.get("name"), choice.get("template"))
            if isinstance(choice, Mapping)
            else (None, None)
        )
        if not isinstance(name, str) or not isinstance(text, str):
            _wrong("a chat template has no name or no text", got=choice)
        templates[name] = text
    return templates


def decode(content: bytes, name: str) -> str:
    """Return the text of a side file.

    Raises:
        InvalidFile: (rule ``utf-8``) when it is not text.
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidFile("is not UTF-8", rule="utf-8", path=name) from None


def from_gguf(metadata: Metadata) -> dict[str, bytes]:
    """Return the files that hold the chat templates.

    Raises:
        InvalidFile: (rule ``chat-template``) for a name that cannot be a file's, (rule
            ``value-type``) for one that is not text.

    Example:
        >>> from_gguf({"tokenizer.chat_template": string("{{ x }}")})
        {'chat_template.jinja': b'{{ x }}'}
    """
    files: dict[str, bytes] = {}
    default = keys.text(metadata, keys.CHAT_TEMPLATE)
    if default is not None:
        files[FILE] = default.encode()
    for key in metadata:
        prefix, _, name = key.partition(f"{keys.CHAT_TEMPLATE}.")
        if prefix or not name:
            continue
        if FOREIGN.sub("_", name) != name:
            _wrong("the name of a chat template has foreign characters", got=name)
        files[f"{FOLDER}{name}{SUFFIX}"] = (keys.text(metadata, key) or "").encode()
    return files


def _wrong(problem: str, *, got: object) -> NoReturn:
    raise InvalidFile(problem, rule="chat-template", got=got)
