"""The header of a safetensors file, validated as a whole.

Sources: the format's description in the README of huggingface/safetensors, section "Format", and
its Rust crate (``safetensors/src/tensor.rs``), whose reader is the judge of what a valid file is.
This one never accepts what that one rejects. It is stricter where a header could be understood in
two ways or carries what would be lost; ``tests/test_safetensors.py`` lists every such case.
"""

from __future__ import annotations

import json
import math
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from weighbridge.checked import LIMIT, MAX_DIMENSIONS, Reader, product
from weighbridge.errors import InvalidFile
from weighbridge.formats.safetensors.dtypes import DTYPES
from weighbridge.formats.safetensors.plain import read_entries
from weighbridge.tensor import stored

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.file import File
    from weighbridge.tensor import Row, Tensor

PREFIX = 8
"""Bytes of the header's length, and what the header is padded to."""

MAX_HEADER = 100_000_000
"""The most bytes that a header may have: the reference's own limit."""

METADATA = "__metadata__"

_BEFORE = f'{{"{METADATA}":'

FIELDS = {"dtype", "shape", "data_offsets"}

Entry = dict[str, Any]
"""What the header says about a tensor, as JSON gives it: the three `FIELDS`, valid."""


class Header(NamedTuple):
    """A valid header.

    Attributes:
        tensors: the tensors by name, in the order of the data.
        metadata: the free text that it carries.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(file: File) -> Header:
    """Read and validate the header of `file`.

    Raises:
        InvalidFile: with the rule that it breaks.
    """
    text, start = _text(file)
    metadata, rest = _plain_metadata(text)
    tensors = read_entries(rest, file, start) if rest else None
    if tensors is None or METADATA in tensors:
        return _read_any(file, text, start)
    return Header(tensors, metadata)


def _plain_metadata(text: str) -> tuple[dict[str, str], str]:
    """Split a plain header into the free text that comes first and its entries; see `plain`.

    Nothing is left of the entries where the header has another form.
    """
    body = text.rstrip(" ")
    if not body.endswith("}}"):
        return {}, ""
    if not body.startswith(_BEFORE):
        return {}, body[1:-1]
    try:
        metadata, end = _METADATA.raw_decode(body, len(_BEFORE))
    except (ValueError, RecursionError):
        return {}, ""
    plain = type(metadata) is dict and all(type(value) is str for value in metadata.values())
    return (metadata, body[end + 1 : -1]) if plain and body[end] == "," else ({}, "")


def _read_any(file: File, text: str, start: int) -> Header:
    path = file.path
    entries = _parse(text, path)
    keys = len(entries)
    metadata = _metadata(entries.pop(METADATA, {}), path)
    entries = _in_order(entries, path)
    keys += len(metadata) + len(entries) * len(FIELDS)
    _check_text(text, "".join(chain(entries, metadata, metadata.values())), keys, path)
    _check_end(entries, file.size - start, path)
    rows = (_row(name, entry, start) for name, entry in entries.items())
    return Header(stored(file, rows), metadata)


def _row(name: str, entry: Entry, start: int) -> Row:
    begin, end = entry["data_offsets"]
    return name, tuple(entry["shape"]), DTYPES[entry["dtype"]], start + begin, end - begin


def _text(file: File) -> tuple[str, int]:
    prefix = Reader(memoryview(file.read(0, min(file.size, PREFIX))), file.path)
    length = prefix.integer("Q")
    if length > MAX_HEADER:
        prefix.fail(
            "the header is too long", "header-size", got=length, expected=f"at most {MAX_HEADER}"
        )
    raw = file.read(PREFIX, length)
    if raw[:1] != b"{":
        prefix.fail("the header is not a JSON object", "header-start", got=raw[:1], expected=b"{")
    try:
        return raw.decode(), PREFIX + length
    except UnicodeDecodeError as error:
        prefix.fail(f"the header is not UTF-8: {error.reason}", "utf-8")


def _parse(text: str, path: Path, **hooks: Any) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(text, **hooks)
    except InvalidFile:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"the header is not JSON: {error}", rule="json", path=path) from None
    return header


def _metadata(metadata: Any, path: Path) -> dict[str, str]:
    if type(metadata) is dict and all(type(value) is str for value in metadata.values()):
        return metadata
    raise InvalidFile(f"{METADATA} does not map text to text", rule="metadata-type", path=path)


def _in_order(entries: dict[str, Any], path: Path) -> dict[str, Entry]:
    """Return the entries, valid each and together, in the order of their data."""
    ordered = True
    end = 0
    for name, entry in entries.items():
        begin, stop = _check_entry(name, entry, path)
        ordered = ordered and begin == end
        end = stop
    if ordered:
        return entries
    entries = dict(sorted(entries.items(), key=lambda item: item[1]["data_offsets"]))
    _check_contiguous(entries, path)
    return entries


def _check_contiguous(entries: dict[str, Entry], path: Path) -> None:
    end = 0
    for name, entry in entries.items():
        begin, stop = entry["data_offsets"]
        if begin != end:
            raise InvalidFile(
                "its data do not begin where those before them end",
                rule="hole" if begin > end else "overlap",
                path=path,
                tensor=name,
                got=begin,
                expected=end,
            )
        end = stop


def _check_entry(name: str, entry: Any, path: Path) -> list[int]:
    """Return the data offsets of an entry whose fields are right and agree with each other."""
    if type(entry) is not dict or entry.keys() != FIELDS:
        _reject(path, name, "its entry is not dtype, shape and data_offsets", "fields", entry)
    dtype, shape = entry["dtype"], entry["shape"]
    span: list[int] = entry["data_offsets"]
    dense = DTYPES.get(dtype) if type(dtype) is str else None
    if dense is None:
        _reject(path, name, "its dtype is unknown", "dtype", dtype)
    if not _are_sizes(shape):
        _reject(path, name, "its shape is not a list of sizes", "shape", shape)
    if len(shape) > MAX_DIMENSIONS:
        _reject(path, name, "it has too many axes", "dimensions", len(shape), MAX_DIMENSIONS)
    if not _are_sizes(span) or len(span) != 2:
        _reject(path, name, "its data_offsets are not two offsets", "data-offsets", span)
    bits = math.prod(shape) * dense.bits
    if not bits:
        product(filter(None, shape), path=path, tensor=name)
    if bits % 8:
        _reject(path, name, "its numbers do not fill whole bytes", "sub-byte", f"{bits} bits")
    begin, end = span
    if end - begin != bits // 8:
        problem = "its data do not have the size of its shape and dtype"
        _reject(path, name, problem, "tensor-size", f"{end - begin} bytes", f"{bits // 8} bytes")
    return span


def _reject(
    path: Path, tensor: str, problem: str, rule: str, got: object, expected: object = None
) -> NoReturn:
    raise InvalidFile(problem, rule=rule, path=path, tensor=tensor, got=got, expected=expected)


def _are_sizes(numbers: Any) -> bool:
    if type(numbers) is not list:
        return False
    # Here opening spends its time, and all() with a generator would take twice as much of it.
    for number in numbers:  # noqa: SIM110
        # isinstance would let True through, and a comparison alone 1.0.
        if type(number) is not int or not 0 <= number <= LIMIT:
            return False
    return True


def _check_text(text: str, strings: str, keys: int, path: Path) -> None:
    """Refuse what `json` forgives: a key given twice, ``-0``, a NUL, half a surrogate pair.

    Outside of strings every key has one colon and nothing has a minus sign, and only a string with
    an escape can hold a NUL or half a pair. So a text without escapes is shown to be strict by
    counting; any other is parsed once more, slowly.

    Args:
        text: the header.
        strings: all names and free texts that were parsed from it.
        keys: how many keys were parsed from it.
        path: the file.
    """
    colons = keys + strings.count(":")
    if "\\" in text or text.count(":") != colons or text.count("-") != strings.count("-"):
        _parse(text, path, object_pairs_hook=_Strict(path), parse_int=_natural)


def _natural(digits: str) -> int:
    if digits.startswith("-"):
        raise ValueError(f"{digits} is not a size")
    return int(digits)


class _Strict:
    """Makes an object of its pairs, refusing what the reference refuses."""

    def __init__(self, path: Path | str) -> None:
        self.path = path

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise InvalidFile(
                    "a key is given twice", rule="duplicate-key", path=self.path, got=key
                )
            self._check(key)
            if type(value) is str:
                self._check(value)
            made[key] = value
        return made

    def _check(self, text: str) -> None:
        if not is_text(text):
            raise InvalidFile(
                "a name holds a NUL or half a surrogate pair", rule="text", path=self.path, got=text
            )


def is_text(text: str) -> bool:
    r"""Tell whether the reference takes a name: Unicode without NUL.

    Example:
        >>> is_text("重み"), is_text("a\0b"), is_text("\ud800")
        (True, False, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


_METADATA = json.JSONDecoder(object_pairs_hook=_Strict(METADATA))
"""Parses free text; what it refuses is parsed again, for a message that names the file."""


def _check_end(entries: dict[str, Entry], room: int, path: Path) -> None:
    end = entries[next(reversed(entries))]["data_offsets"][1] if entries else 0
    if end != room:
        raise InvalidFile(
            "the file ends inside its data" if end > room else "data follow the last tensor",
            rule="truncated" if end > room else "trailing-bytes",
            path=path,
            got=f"{room} bytes of data",
            expected=f"{end} bytes",
        )
