"""Where every byte of a target goes, known before one is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class OutputFile:
    """A file to write: known bytes at known places, and room for weights.

    Bytes that neither a piece nor a slot covers are zero.

    Attributes:
        name: relative to the target's directory (for a directory format: to the target itself).
        size: the whole file's bytes.
        pieces: (offset, bytes) of headers and other content that is known already.
    """

    name: str
    size: int
    pieces: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Slot:
    """Where one part of a tensor goes.

    Attributes:
        file: the number of the file in `Layout.files`.
        offset: where in that file.
        length: how many bytes.
    """

    file: int
    offset: int
    length: int


@dataclass(frozen=True)
class Layout:
    """The target's files, and the address of every tensor part in them.

    Attributes:
        files: in the order in which they appear at the end; an index comes last.
        slots: (tensor name, part name) -> where it goes.
    """

    files: tuple[OutputFile, ...]
    slots: Mapping[tuple[str, str], Slot]


@dataclass(frozen=True)
class LayoutOptions:
    """What a user may say about a target's shape on disk.

    Attributes:
        shard_size: the most bytes of weights in one file, None for the format's own default.
        external: for formats that can keep weights beside the header file: whether to; None
            lets the format decide by size.
    """

    shard_size: int | None = None
    external: bool | None = None


def plain_file(name: str, content: bytes) -> OutputFile:
    """Return a file whose content is known.

    Example:
        >>> plain_file("config.json", b"{}").size
        2
    """
    return OutputFile(name, len(content), ((0, content),))


def align(offset: int, alignment: int) -> int:
    """Return the first multiple of `alignment` that is not before `offset`.

    Example:
        >>> align(33, 32)
        64
    """
    return -(-offset // alignment) * alignment
