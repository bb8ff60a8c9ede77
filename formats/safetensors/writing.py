"""Laying out safetensors files, byte for byte as the reference's own writer does.

Sources: ``prepare`` of the crate's ``safetensors/src/tensor.rs`` for a file, and
``split_state_dict_into_shards_factory`` of ``huggingface_hub`` with ``save_pretrained`` of
transformers 5 for shards and their index.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from weighbridge.encoding import DATA
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.formats.safetensors.dtypes import NAMES, RANKS
from weighbridge.formats.safetensors.header import MAX_HEADER, METADATA, PREFIX, is_text
from weighbridge.formats.safetensors.reading import INDEX_SUFFIX, SUFFIX
from weighbridge.layout import Layout, OutputFile, Slot, align, plain_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.metadata import Metadata
    from weighbridge.tensor import Lazy

Shard = dict[str, "Lazy"]


def lay_out(
    tensors: Mapping[str, Lazy], metadata: Metadata, name: str, shard_size: int | None
) -> Layout:
    """Lay out one file, or shards and their index where one would exceed `shard_size`.

    Raises:
        Unsupported: (rules ``encoding``, ``sub-byte``, ``tensor-name``, ``metadata-type``,
            ``header-size``) for what the format cannot say.
        InvalidInput: (rule ``shard-size``) for a size that is not positive.
    """
    text = _text(metadata)
    for tensor_name, tensor in tensors.items():
        _check(tensor_name, tensor)
    shards = _cut(tensors, shard_size)
    stem = name.removesuffix(INDEX_SUFFIX).removesuffix(SUFFIX)
    names = [name] if len(shards) == 1 else _shard_names(stem, len(shards))
    files: list[OutputFile] = []
    slots: dict[tuple[str, str], Slot] = {}
    for number, (file_name, shard) in enumerate(zip(names, shards, strict=True)):
        files.append(_file(file_name, shard, text, number, slots))
    if len(shards) > 1:
        files.append(plain_file(stem + INDEX_SUFFIX, _index(names, shards)))
    return Layout(tuple(files), slots)


def _text(metadata: Metadata) -> dict[str, str]:
    """Return the metadata in the order of their keys: the reference's own order is random."""
    for key, value in metadata.items():
        if value.type != "string":
            raise Unsupported(
                f"metadata can hold text only: {key}",
                rule="metadata-type",
                got=value.type,
                expected="string",
            )
        _check_text(key, None)
        _check_text(str(value.data), None)
    return {key: str(metadata[key].data) for key in sorted(metadata)}


def _check(name: str, tensor: Lazy) -> None:
    encoding = tensor.encoding
    if encoding.name not in NAMES:
        raise Unsupported(
            "its encoding cannot be stored", rule="encoding", tensor=name, got=encoding
        )
    if encoding.grain > 1 and tensor.size % encoding.grain:
        raise Unsupported(
            f"its numbers do not fill whole bytes of {encoding}",
            rule="sub-byte",
            tensor=name,
            got=f"{tensor.size} numbers",
            expected=f"a multiple of {encoding.grain}",
        )
    if name == METADATA:
        raise Unsupported("a tensor cannot have this name", rule="tensor-name", tensor=name)
    _check_text(name, name)


def _check_text(text: str, tensor: str | None) -> None:
    if not is_text(text):
        raise Unsupported(
            "names and metadata must be Unicode without NUL",
            rule="metadata-text" if tensor is None else "tensor-name",
            tensor=tensor,
            got=text,
        )


def natural(name: str) -> list[tuple[bool, str, int, str]]:
    """Return the key by which layer 2 comes before layer 10 and ``w2`` before ``w10``.

    transformers sorts so before it cuts (``dot_natural_key``).

    Example:
        >>> sorted(["layers.10.k", "layers.2.k10", "layers.2.k9", "embed"], key=natural)
        ['embed', 'layers.2.k9', 'layers.2.k10', 'layers.10.k']
    """
    return [_natural(part) for part in name.split(".")]


def _natural(part: str) -> tuple[bool, str, int, str]:
    text = part.rstrip("0123456789")
    digits = part[len(text) :]
    return bool(text), text, len(digits.lstrip("0")), digits.lstrip("0")


def _cut(tensors: Mapping[str, Lazy], most: int | None) -> list[Shard]:
    """Fill shards in natural order; a tensor that is larger than a shard has its own."""
    if most is None or not tensors:
        return [dict(tensors)]
    if most <= 0:
        raise InvalidInput("a shard must have room", rule="shard-size", got=most)
    shards: list[Shard] = []
    current: Shard = {}
    filled = 0
    for name in sorted(tensors, key=natural):
        tensor = tensors[name]
        size = tensor.nbytes
        if size > most:
            shards.append({name: tensor})
            continue
        if filled + size > most:
            shards.append(current)
            current, filled = {}, 0
        current[name] = tensor
        filled += size
    return [*shards, current] if current else shards


def _shard_names(stem: str, count: int) -> list[str]:
    return [f"{stem}-{number:05d}-of-{count:05d}{SUFFIX}" for number in range(1, count + 1)]


def _file(
    name: str,
    tensors: Shard,
    metadata: Mapping[str, str],
    number: int,
    slots: dict[tuple[str, str], Slot],
) -> OutputFile:
    """Return the file of that number, and enter where its tensors go into `slots`."""
    header: dict[str, object] = {METADATA: metadata} if metadata else {}
    spans: dict[str, tuple[int, int]] = {}
    end = 0
    for tensor_name in sorted(tensors, key=lambda n: (-RANKS[tensors[n].encoding.name], n)):
        tensor = tensors[tensor_name]
        begin, end = end, end + tensor.nbytes
        spans[tensor_name] = begin, end
        header[tensor_name] = {
            "dtype": NAMES[tensor.encoding.name],
            "shape": tensor.shape,
            "data_offsets": (begin, end),
        }
    prefix = _header(header, name)
    for tensor_name, (begin, end) in spans.items():
        slots[tensor_name, DATA] = Slot(number, len(prefix) + begin, end - begin)
    return OutputFile(name, len(prefix) + end, ((0, prefix),))


def _header(header: Mapping[str, object], name: str) -> bytes:
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    length = align(len(text), PREFIX)
    if length > MAX_HEADER:
        raise Unsupported(
            "the header would be too long",
            rule="header-size",
            path=name,
            got=length,
            expected=f"at most {MAX_HEADER} bytes",
            hint="write several shards",
        )
    return struct.pack("<Q", length) + text.ljust(length)


def _index(names: Sequence[str], shards: Sequence[Shard]) -> bytes:
    tensors = [tensor for shard in shards for tensor in shard.values()]
    index = {
        "metadata": {
            "total_parameters": sum(tensor.size for tensor in tensors),
            "total_size": sum(tensor.nbytes for tensor in tensors),
        },
        "weight_map": {
            tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard
        },
    }
    return (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()
