"""One file's header: walked once, and validated whole before a tensor is handed out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from weighbridge.checked import Reader, product
from weighbridge.encoding import Blocked
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.formats.gguf.types import (
    ALIGNMENT,
    DEFAULT_ALIGNMENT,
    ENCODINGS,
    FORMER_MAGICS,
    MAGIC,
    MAX_DIMENSIONS,
    REMOVED_TYPES,
    VERSIONS,
)
from weighbridge.formats.gguf.values import KeyValues, read_key_values
from weighbridge.layout import align
from weighbridge.tensor import stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from weighbridge.encoding import Encoding
    from weighbridge.file import File
    from weighbridge.metadata import Value
    from weighbridge.region import Shape
    from weighbridge.tensor import Tensor

_SMALLEST_INFO = 24
"""Bytes in the description of a tensor that has no name and no axes."""


@dataclass(frozen=True)
class Part:
    """What one file says.

    Attributes:
        file: the file.
        metadata: its key-values.
        tensors: its tensors by name, in the order of the header.
    """

    file: File
    metadata: KeyValues
    tensors: Mapping[str, Tensor]


class _Info(NamedTuple):
    """A tensor as the header describes it; `offset` counts from the beginning of the data."""

    name: str
    shape: Shape
    encoding: Encoding
    offset: int
    nbytes: int


def parse(file: File) -> Part:
    """Read and validate the header of one file; no weights are read.

    Data may lie in any order and with holes in between: the specification forbids neither, though
    llama.cpp itself wants every tensor right behind the one before. No two may overlap.

    Raises:
        InvalidFile: with the rule that the file breaks.
    """
    reader = Reader(file.view(), file.path)
    _magic(reader)
    reader.order = _order(reader)
    tensors = reader.count("Q", _SMALLEST_INFO)
    metadata = read_key_values(reader, reader.integer("Q"), tensors * _SMALLEST_INFO)
    alignment = checked_alignment(metadata, file.path)
    infos: dict[str, _Info] = {}
    for _ in range(tensors):
        info = _info(reader, file.path)
        if info.name in infos:
            raise _broken(file.path, info.name, "appears twice", "duplicate-tensor")
        infos[info.name] = info
    start = align(reader.offset, alignment)
    _check_places(infos.values(), start, alignment, file)
    rows = (
        (name, shape, encoding, start + offset, nbytes)
        for name, shape, encoding, offset, nbytes in infos.values()
    )
    return Part(file, metadata, stored(file, rows, reader.order))


def _magic(reader: Reader) -> None:
    magic = bytes(reader.take(len(MAGIC)))
    if magic in FORMER_MAGICS:
        raise InvalidFile(
            f"is a {FORMER_MAGICS[magic]} file, which GGUF replaced in 2023",
            rule="magic",
            path=reader.path,
            got=magic,
            expected=MAGIC,
            hint="look for a GGUF of the same model",
        )
    if magic != MAGIC:
        reader.fail("is not a GGUF file", "magic", got=magic, expected=MAGIC)


def _order(reader: Reader) -> str:
    """Read the version, and tell the byte order from it: there is no other sign of it."""
    raw = bytes(reader.take(4))
    little, big = int.from_bytes(raw, "little"), int.from_bytes(raw, "big")
    if little in VERSIONS:
        return "<"
    if big in VERSIONS:
        return ">"
    raise InvalidFile(
        "is of a version of GGUF that is not understood",
        rule="version",
        path=reader.path,
        got=big if big < little else little,
        expected="2 or 3",
        hint="version 1 was given up in 2023: convert the model anew"
        if 1 in (little, big)
        else None,
    )


def checked_alignment(metadata: Mapping[str, Value], path: Path | str | None) -> int:
    """Return the alignment that `metadata` asks for, 32 where it does not.

    Raises:
        InvalidFile: (rule ``alignment``) when it is not a u32, a power of two and a multiple of 8.
    """
    if ALIGNMENT not in metadata:
        return DEFAULT_ALIGNMENT
    value = metadata[ALIGNMENT]
    number = value.data
    if value.type != "u32" or not isinstance(number, int) or number % 8 or number.bit_count() != 1:
        raise InvalidFile(
            f"{ALIGNMENT} is not one that tensors can have",
            rule="alignment",
            path=path,
            got=f"{value.type} {number}",
            expected="a u32 that is a power of two and a multiple of 8",
        )
    return number


def _info(reader: Reader, path: Path | str) -> _Info:
    name = reader.text("Q")
    axes = reader.integer("I")
    if axes > MAX_DIMENSIONS:
        raise _broken(
            path, name, "has too many axes", "dimensions", axes, f"at most {MAX_DIMENSIONS}"
        )
    *lengths, type, offset = reader.numbers(f"{axes}QIQ")
    if 0 in lengths:
        raise _broken(path, name, "has an axis of length 0", "zero-dimension", lengths)
    product(lengths, path=path, tensor=name)
    encoding = _encoding(type, path, name)
    if reader.order == ">":
        _check_swappable(encoding, path, name)
    shape = tuple(reversed(lengths))
    try:
        nbytes = encoding.nbytes(shape)
    except Unsupported as error:
        raise _broken(path, name, error.problem, error.rule, error.got, error.expected) from None
    return _Info(name, shape, encoding, offset, nbytes)


def _encoding(type: int, path: Path | str, name: str) -> Encoding:
    if type in ENCODINGS:
        return ENCODINGS[type]
    if type in REMOVED_TYPES:
        problem = f"is of the type {REMOVED_TYPES[type]}, which ggml has given up"
    else:
        problem = "is of a type that is not known here"
    raise _broken(path, name, problem, "unknown-type", type)


def _check_swappable(encoding: Encoding, path: Path | str, name: str) -> None:
    """Refuse blocks whose bytes are looked at both one by one and as larger integers.

    In a big-endian file every field of a block is big-endian. What that means for such fields no
    tool has settled: those of ggml that swap files do not handle these types.
    """
    fields = encoding.dtype.fields if isinstance(encoding, Blocked) else None
    kinds = [field[0].base for field in (fields or {}).values()]
    if any(kind.kind == "u" and kind.itemsize > 1 for kind in kinds):
        raise Unsupported(
            f"{encoding} is not understood in big-endian files",
            rule="byte-order",
            path=path,
            tensor=name,
            hint="look for a little-endian file of the same model",
        )


def _check_places(infos: Iterable[_Info], start: int, alignment: int, file: File) -> None:
    end, before = start, ""
    for info in sorted(infos, key=lambda info: info.offset):
        begin = start + info.offset
        if info.offset % alignment:
            raise _broken(
                file.path,
                info.name,
                "its offset is not aligned",
                "offset-alignment",
                info.offset,
                f"a multiple of {alignment}",
            )
        if begin < end:
            raise _broken(file.path, info.name, f"overlaps '{before}'", "overlap")
        end, before = begin + info.nbytes, info.name
        if end > file.size:
            raise InvalidFile(
                "its data lies outside of the file",
                rule="outside-file",
                path=file.path,
                tensor=info.name,
                got=f"{file.size} bytes",
                expected=f"at least {end} bytes",
                hint="the file may be incomplete: fetch it again",
            )


def _broken(
    path: Path | str, tensor: str, problem: str, rule: str, got: Any = None, expected: Any = None
) -> InvalidFile:
    return InvalidFile(problem, rule=rule, path=path, tensor=tensor, got=got, expected=expected)
