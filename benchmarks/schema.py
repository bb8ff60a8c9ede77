"""The JSON Schema of the results, made from their dataclasses.

What is published is ``python -m weighbridge.benchmarks.schema > benchmarks/schema.json``.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from typing import Any, get_args, get_origin

from weighbridge.benchmarks.results import SCHEMA, Results

DRAFT = "https://json-schema.org/draft/2020-12/schema"

SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    Any: {},
}


def schema() -> dict[str, Any]:
    """Return the schema.

    Example:
        >>> schema()["properties"]["schema"]
        {'description': 'the name of this structure.', 'const': 'weighbridge-benchmarks/2'}
    """
    definitions: dict[str, Any] = {}
    top = _object(Results, definitions)
    top["properties"]["schema"] = {
        "description": top["properties"]["schema"]["description"],
        "const": SCHEMA,
    }
    return {"$schema": DRAFT, "title": SCHEMA, **top, "$defs": definitions}


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, about = typing.get_type_hints(kind), _attributes(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return {
        "type": "object",
        "description": (kind.__doc__ or "").splitlines()[0],
        "properties": {
            name: {"description": about[name], **_of(hints[name], definitions)} for name in names
        },
        "required": names,
        "additionalProperties": False,
    }


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # its own parts may name it
            definitions[hint.__name__] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    parts = [_of(part, definitions) for part in get_args(hint)]
    if get_origin(hint) is list:
        return {"type": "array", "items": parts[0]}
    if get_origin(hint) is dict:
        return {"type": "object", "additionalProperties": parts[1]}
    assert isinstance(hint, types.UnionType)
    return {"anyOf": parts}


def _attributes(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each attribute."""
    section = (kind.__doc__ or "").partition("Attributes:")[2]
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).replace("``", "") for name, text in found}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
