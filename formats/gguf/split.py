"""Models in several files: finding the parts, and deciding which tensor goes into which.

Each part is a GGUF file of its own, ``name-00001-of-00003.gguf``. As ``gguf-split`` and llama.cpp's
converter write them, the first has the key-values, the others no more than ``split.no`` (u16, from
0), ``split.count`` (u16) and ``split.tensors.count`` (i32, of all parts together).
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

from weighbridge.errors import InvalidFile, NotFound, Unsupported
from weighbridge.file import File
from weighbridge.formats.gguf.parse import Part, parse
from weighbridge.metadata import INTEGERS, Value, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from weighbridge.metadata import Metadata
    from weighbridge.tensor import Tensor

PREFIX = "split."
NUMBER = "split.no"
COUNT = "split.count"
TENSORS = "split.tensors.count"

MAX_PARTS = INTEGERS["u16"][-1]
"""The most parts: their count is a u16."""

_NAME = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def part_name(stem: str, part: int, count: int) -> str:
    """Return the name of a file.

    Args:
        stem: what all parts share.
        part: from 0.
        count: how many there are.

    Example:
        >>> part_name("llama", 0, 3)
        'llama-00001-of-00003.gguf'
    """
    return f"{stem}-{part + 1:05d}-of-{count:05d}.gguf"


def stem_of(name: str) -> str:
    """Return what the parts' names begin with, from the name of the model or of one part.

    Example:
        >>> stem_of("llama.gguf"), stem_of("llama-00002-of-00003.gguf")
        ('llama', 'llama')
    """
    match = _NAME.fullmatch(name)
    return match["stem"] if match else name.removesuffix(".gguf")


def read_parts(path: Path) -> list[Part]:
    """Parse the file at `path` and all others that it is one of, in order.

    Raises:
        NotFound: (rule ``missing-shard``) when one of them is not there.
        InvalidFile: when one breaks a rule of the format, or they do not fit together: rules
            ``split-name``, ``split-number``, ``split-count``, ``split-tensors`` and
            ``duplicate-tensor``.
    """
    with ExitStack() as opened:

        def read(path: Path) -> Part:
            file = File(path)
            opened.callback(file.close)
            return parse(file)

        given = read(path)
        count = _number(given, COUNT)
        paths = _siblings(given, count) if count > 1 else [path]
        parts = [given if at == path else read(at) for at in paths]
        if count > 1:
            _check(parts, count)
        opened.pop_all()
        return parts


def _siblings(given: Part, count: int) -> list[Path]:
    path, number = given.file.path, _number(given, NUMBER)
    stem = stem_of(path.name)
    if path.name != part_name(stem, number, count):
        raise InvalidFile(
            "is one part of a model, but its name does not say so: the others cannot be found",
            rule="split-name",
            path=path,
            expected=part_name(stem, number, count),
            hint="give the parts the names that they were made with",
        )
    paths = [path.with_name(part_name(stem, part, count)) for part in range(count)]
    for number, at in enumerate(paths):
        if not at.is_file():
            raise NotFound(
                f"part {number + 1} of {count} of the model is not there",
                rule="missing-shard",
                path=at,
                hint=f"put it beside {path.name}",
            )
    return paths


def _check(parts: list[Part], count: int) -> None:
    for number, part in enumerate(parts):
        _expect(part, NUMBER, number, "split-number")
        _expect(part, COUNT, count, "split-count")
    total = sum(len(part.tensors) for part in parts)
    found: set[str] = set()
    for part in parts:
        _expect(part, TENSORS, total, "split-tensors")
        if again := found & part.tensors.keys():
            raise InvalidFile(
                "is in two parts of the model",
                rule="duplicate-tensor",
                path=part.file.path,
                tensor=min(again),
            )
        found |= part.tensors.keys()


def _expect(part: Part, key: str, expected: int, rule: str) -> None:
    got = _number(part, key)
    if got != expected:
        raise InvalidFile(
            f"the parts do not belong together: {key} is wrong",
            rule=rule,
            path=part.file.path,
            got=got,
            expected=expected,
        )


def _number(part: Part, key: str) -> int:
    """Return the number that a part has under `key`, 0 where it has none."""
    value = part.metadata.get(key, scalar("u16", 0))
    if value.type not in INTEGERS or not isinstance(value.data, int):
        raise InvalidFile(
            f"{key} is not an integer", rule="split-type", path=part.file.path, got=value.type
        )
    return value.data


def cut(sizes: Mapping[str, int], most: int | None) -> list[list[str]]:
    """Return the names of the tensors of each part.

    As llama.cpp's converter does, a part is begun when the next tensor's bytes would bring it over
    the limit; a tensor that is larger than that has a part of its own.

    Args:
        sizes: the bytes of each tensor.
        most: the most bytes of weights in one part, None for no limit.

    Raises:
        Unsupported: (rule ``shard-count``) when that makes more parts than can be counted.

    Example:
        >>> cut({"a": 3, "b": 3, "c": 9}, 6)
        [['a', 'b'], ['c']]
    """
    parts: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if parts[-1] and most is not None and filled + size > most:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
    if len(parts) > MAX_PARTS:
        raise Unsupported(
            "the model would be cut into too many files",
            rule="shard-count",
            got=len(parts),
            expected=f"at most {MAX_PARTS}",
            hint="choose a larger shard size",
        )
    return parts


def split_keys(part: int, count: int, tensors: int) -> dict[str, Value]:
    """Return the key-values that tell a part from the others.

    Example:
        >>> split_keys(1, 3, 20)["split.no"]
        Value(type='u16', data=1, items=None)
    """
    return {
        NUMBER: scalar("u16", part),
        COUNT: scalar("u16", count),
        TENSORS: scalar("i32", tensors),
    }


def all_tensors(parts: Sequence[Part]) -> Mapping[str, Tensor]:
    """Return the tensors of a model in one or several parts, in order."""
    if len(parts) == 1:
        return parts[0].tensors
    return {name: tensor for part in parts for name, tensor in part.tensors.items()}


def merged(parts: Sequence[Part]) -> Metadata:
    """Return the key-values of a model in one or several parts.

    Of several, those of the first part, as llama.cpp reads them, then what only later ones have;
    ``split.*`` are left out, since they are about files and the model is one.
    """
    if len(parts) == 1:
        return parts[0].metadata
    together = parts[0].metadata
    for part in parts[1:]:
        together = together | part.metadata | together
    return together.without(PREFIX)
