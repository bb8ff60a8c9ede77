"""How a component's inputs and outputs are built up, checked before anything is built by it.

An export carries it as torch's pytree specification, a JSON document whose nodes name classes, and
whose contexts, JSON once more, name others. transformers imports what they name and calls it with
what they hold, so that a specification from a stranger could run anything. What passes here are
containers, and outputs and caches of transformers.

Source: ``torch/utils/_pytree.py``, and ``_unflatten_from_context`` of
``transformers/exporters/exporter_dynamo.py`` 5.23.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from weighbridge.errors import InvalidFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SPECIFICATIONS = ("in_spec", "out_spec")

CONTAINERS = frozenset(
    {"builtins.dict", "builtins.list", "builtins.tuple", "collections.OrderedDict"}
)

NODE = re.compile(
    r"transformers\.(modeling_outputs|cache_utils|utils\.generic|models\.\w+\.\w+)"
    r"[.:]\w*(Output\w*|Cache)"
)
"""The classes of nodes: what models return, and caches."""

OBJECT = re.compile(r"transformers\.(cache_utils|models\.\w+\.\w+)[.:]\w*(Cache|Layer)")
"""The classes within a cache."""

PLAIN = frozenset({"device", "dtype", "items", "layout", "size", "sym", "tensor"})
"""The tags of values that name no class."""

MARK = "_t"


def check_structures(metadata: Mapping[str, Any], place: Path) -> None:
    """Refuse a component's metadata that names a class which is no part of an output or a cache.

    Raises:
        InvalidFile: (rule ``export-structure``).

    Example:
        >>> from pathlib import Path
        >>> context = json.dumps({"_t": "seq", "p": "subprocess:call", "v": ["true"]})
        >>> node = {"type": "builtins.tuple", "context": context, "children_spec": []}
        >>> check_structures({"out_spec": json.dumps([1, node])}, Path("export.json"))
        Traceback (most recent call last):
        weighbridge.errors.InvalidFile: export.json: names a class that is no part of an output \
(got subprocess:call) [export-structure]
    """
    for name in SPECIFICATIONS:
        text = metadata.get(name)
        if text is None:
            continue
        for wrong in _wrong(_parsed(text, place), place):
            raise InvalidFile(
                "names a class that is no part of an output",
                rule="export-structure",
                path=place,
                got=wrong,
            )


def _parsed(text: Any, place: Path) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise InvalidFile(
            "does not say how its outputs are built up", rule="export-structure", path=place
        ) from None


def _wrong(specification: Any, place: Path) -> Iterator[object]:
    """Yield what may not be there, node by node."""
    waiting = [specification]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            kind, context = node.get("type"), node.get("context")
            if kind is not None and kind not in CONTAINERS and not _is(NODE, kind):
                yield kind
            if context is not None:
                yield from _wrong_within(_parsed(context, place))
            waiting.append(node.get("children_spec"))


def _wrong_within(context: Any) -> Iterator[object]:
    """Yield what may not be in a context."""
    waiting = [context]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if not _is_harmless(value):
                yield value.get("p", value.get(MARK, ", ".join(value)))
            waiting += value.values()


def _is_harmless(value: Mapping[str, Any]) -> bool:
    """Return whether nothing that a dictionary of a context names is called."""
    tag = value.get(MARK)
    if tag is None:
        return not {"__enum__", "default_factory_module"} & set(value)
    if tag in ("seq", "map"):
        return str(value.get("p")).replace(":", ".") in CONTAINERS
    return tag in PLAIN or (tag in ("obj", "type") and _is(OBJECT, value.get("p")))


def _is(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.fullmatch(name) is not None
