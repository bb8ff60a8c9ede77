"""Where every byte of a GGUF goes: version 3, little-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.encoding import DATA
from weighbridge.errors import Unsupported
from weighbridge.formats.gguf import split
from weighbridge.formats.gguf.parse import checked_alignment
from weighbridge.formats.gguf.serialise import key_value, label
from weighbridge.formats.gguf.types import (
    ALIGNMENT,
    ARCHITECTURE,
    ENCODINGS,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_NAME,
    TYPE_IDS,
    VERSION,
)
from weighbridge.layout import Layout, LayoutOptions, OutputFile, Slot, align
from weighbridge.metadata import scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.metadata import Metadata, Value
    from weighbridge.model import Model
    from weighbridge.tensor import Lazy


_NONE = scalar("u16", 0)


@dataclass(frozen=True)
class _Sized:
    """A tensor of which everything is known but its bytes."""

    name: str
    tensor: Lazy
    nbytes: int


def lay_out(model: Model, name: str, options: LayoutOptions) -> Layout:
    """Return the file, or the files, that hold `model`.

    Key-values and tensors keep their order, but for ``general.architecture``, which comes first.
    Each tensor is padded to the alignment, the last one too, as ggml's writers do.

    A tensor without axes is written without axes: ggml and the ``gguf`` package read such a one as
    one number.

    Raises:
        Unsupported: for what GGUF cannot hold; rules ``name-length``, ``name-zero``,
            ``dimensions``, ``zero-dimension``, ``encoding``, ``block-size`` and ``shard-count``.
        InvalidInput: for key-values that are not what their types say.
        InvalidFile: (rule ``alignment``) for a ``general.alignment`` that no file can have.
    """
    alignment = checked_alignment(model.metadata, model.path)
    sized = {key: _sized(key, tensor) for key, tensor in model.tensors.items()}
    parts = split.cut({key: one.nbytes for key, one in sized.items()}, options.shard_size)
    files: list[OutputFile] = []
    slots: dict[tuple[str, str], Slot] = {}
    for number, keys in enumerate(parts):
        tensors = [sized[key] for key in keys]
        metadata = _metadata(model.metadata, number, len(parts), len(sized))
        header = _header(metadata, tensors, alignment)
        end = align(len(header), alignment)
        for one in tensors:
            slots[one.name, DATA] = Slot(number, end, one.nbytes)
            end += align(one.nbytes, alignment)
        files.append(OutputFile(_file_name(name, number, len(parts)), end, ((0, header),)))
    return Layout(tuple(files), slots)


def _file_name(name: str, number: int, count: int) -> str:
    return name if count == 1 else split.part_name(split.stem_of(name), number, count)


def _metadata(metadata: Metadata, number: int, count: int, tensors: int) -> dict[str, Value]:
    """Return the key-values of one part.

    A custom alignment is said in every part, since each is read on its own.
    """
    keys = [ALIGNMENT] if number else [ARCHITECTURE, *metadata]
    stale = count > 1 or metadata.get(split.COUNT, _NONE).data not in (0, 1)
    own = {
        key: metadata[key]
        for key in keys
        if key in metadata and not (stale and key.startswith(split.PREFIX))
    }
    return {**own, **split.split_keys(number, count, tensors)} if count > 1 else own


def _header(metadata: Metadata, tensors: Sequence[_Sized], alignment: int) -> bytes:
    begin = struct.pack("<4sIQQ", MAGIC, VERSION, len(tensors), len(metadata))
    values = [key_value(key, value) for key, value in metadata.items()]
    infos = []
    offset = 0
    for one in tensors:
        infos.append(_info(one, offset))
        offset += align(one.nbytes, alignment)
    return b"".join([begin, *values, *infos])


def _info(one: _Sized, offset: int) -> bytes:
    axes = one.tensor.ndim
    numbers = (*reversed(one.tensor.shape), TYPE_IDS[one.tensor.encoding.name], offset)
    return label(one.name) + struct.pack(f"<I{axes}QIQ", axes, *numbers)


def _sized(name: str, tensor: Lazy) -> _Sized:
    """Return a tensor with its size, if GGUF can hold it.

    Raises:
        Unsupported: if not.
    """
    length = len(label(name)) - len(label(""))
    if "\0" in name:
        raise _refused(name, "ggml reads its name only up to the zero byte", "name-zero", name)
    if length > MAX_NAME:
        raise _refused(name, "its name is too long", "name-length", length, f"at most {MAX_NAME}")
    if tensor.ndim > MAX_DIMENSIONS:
        most = f"at most {MAX_DIMENSIONS}"
        raise _refused(name, "has too many axes", "dimensions", tensor.ndim, most)
    if 0 in tensor.shape:
        raise _refused(name, "has an axis of length 0", "zero-dimension", tensor.shape)
    type = TYPE_IDS.get(tensor.encoding.name)
    if type is None or ENCODINGS[type] != tensor.encoding:
        raise _refused(name, "GGUF has no such encoding", "encoding", tensor.encoding)
    if not tensor.encoding.fits(tensor.shape):
        blocks = f"rows of a multiple of {tensor.encoding.grain}"
        raise _refused(name, "its rows are no whole blocks", "block-size", tensor.shape, blocks)
    return _Sized(name, tensor, tensor.nbytes)


def _refused(
    tensor: str, problem: str, rule: str, got: object, expected: object = None
) -> Unsupported:
    return Unsupported(problem, rule=rule, tensor=tensor, got=got, expected=expected)
