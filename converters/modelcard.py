"""The front matter of a model card (README.md), as far as key-values are made from it.

The front matter is YAML between two lines of three dashes. Only what model cards use for the
entries that GGUF knows is read: a text, a list in brackets, or a list of lines with dashes; entries
of any other form are skipped. Source: Hugging Face's model card specification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

Card = Mapping[str, str | list[str]]

FENCE = "---"
ITEM = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^,])+""")
"""An item of a list in brackets; commas inside of quotes do not end it."""

PLAIN = {"true", "false", "null", "~", "yes", "no", "on", "off"}
"""Words that YAML does not take for texts; in a list (of languages) they are meant as such."""


def read(content: bytes) -> Card:
    r"""Return the entries of a card that are texts or lists of texts; nothing for no front matter.

    Example:
        >>> read(b"---\nlicense: mit\nlanguage:\n- en\n- no\ntags: [a, 'b c']\n---\n# Title")
        {'license': 'mit', 'language': ['en', 'no'], 'tags': ['a', 'b c']}
    """
    lines = content.decode(errors="replace").splitlines()
    if not lines or lines[0] != FENCE:
        return {}
    card: dict[str, str | list[str]] = {}
    name = ""
    for line in _front(lines[1:]):
        if line[0] not in " -" and ":" in line:
            name, _, rest = line.partition(":")
            entry = _entry(rest.strip())
            if entry is not None:
                card[name] = entry
            continue
        dash, _, word = line.lstrip().partition(" ")
        entry = card.get(name)
        if dash != "-":
            card.pop(name, None)  # an object, which no key-value is made from
        elif isinstance(entry, list) and (item := _text(word.strip(), listed=True)):
            card[name] = [*entry, item]
    return {name: entry for name, entry in card.items() if entry}


def write(card: Card, heading: str) -> bytes:
    r"""Return a card with these entries and nothing but a heading.

    Example:
        >>> write({"license": "mit", "language": ["en"]}, "X")
        b'---\nlicense: "mit"\nlanguage: ["en"]\n---\n\n# X\n'
    """
    lines = [f"{name}: {_printable(entry)}" for name, entry in card.items()]
    heading = " ".join(heading.split())
    return "\n".join([FENCE, *lines, FENCE, "", f"# {heading}", ""]).encode()


def _printable(entry: str | list[str]) -> str:
    """Return JSON, which is YAML where nothing in it is unprintable."""
    document = json.dumps(entry, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in document)


def _front(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if line == FENCE:
            return
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def _entry(rest: str) -> str | list[str] | None:
    if not rest:
        return []
    if rest.startswith("[") and rest.endswith("]"):
        items = (_text(item.strip(), listed=True) for item in ITEM.findall(rest[1:-1]))
        return [item for item in items if item]
    return _text(rest)


def _text(word: str, *, listed: bool = False) -> str | None:
    """Return a scalar if it is a text, without its quotes."""
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        return _unquoted(word)
    if not word or word[0] in "{[&*|>!" or ": " in word or _is_number(word):
        return None
    return None if word.lower() in PLAIN and not listed else word


def _unquoted(word: str) -> str:
    try:
        return str(json.loads(word))  # JSON's texts are YAML's
    except ValueError:
        return word[1:-1]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
