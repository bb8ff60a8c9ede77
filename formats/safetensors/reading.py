"""Opening a safetensors file, or the shards that an index names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge.errors import InvalidFile, NotFound
from weighbridge.file import File
from weighbridge.formats.safetensors.header import MAX_HEADER, read_header
from weighbridge.metadata import string
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.sidefiles import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.tensor import Lazy

NAME = "safetensors"
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"


def open_file(path: Path) -> Model:
    """Open one file.

    Raises:
        InvalidFile: with the rule that its header breaks.
    """
    file = File(path)
    header = read_header(file)
    return Model(
        format=NAME,
        dialect=HUGGING_FACE,
        tensors=header.tensors,
        metadata={key: string(value) for key, value in header.metadata.items()},
        path=path,
        resources=(file,),
    )


def open_index(path: Path) -> Model:
    """Open the shards that an index names, as one model.

    A tensor that a shard holds and the index does not name is kept, as transformers does. What the
    shards say in their metadata is joined; where they differ, the first shard counts.

    Raises:
        InvalidFile: (rule ``weight-map``) when the index does not describe its shards, (rule
            ``shard-name``) when it names something else than a file beside it.
        NotFound: (rule ``missing-shard``) when a shard is not there.
    """
    weight_map = _weight_map(path)
    shards = {name: _open_shard(path, name) for name in sorted(set(weight_map.values()))}
    tensors = _joined(shards, path)
    for tensor, shard in weight_map.items():
        if tensor not in shards[shard].tensors:
            raise InvalidFile(
                f"the index says that it is in {shard}, and it is not",
                rule="weight-map",
                path=path,
                tensor=tensor,
            )
    models = list(shards.values())
    metadata = {key: value for model in models[::-1] for key, value in model.metadata.items()}
    return Model(
        format=NAME,
        dialect=HUGGING_FACE,
        tensors=tensors,
        metadata=metadata,
        path=path,
        resources=tuple(file for model in models for file in model.resources),
    )


def _joined(shards: Mapping[str, Model], path: Path) -> dict[str, Lazy]:
    """Return the tensors of several shards, shard after shard."""
    tensors: dict[str, Lazy] = {}
    for shard, model in shards.items():
        for name in model.tensors:
            if name in tensors:
                raise InvalidFile(
                    "two shards hold it",
                    rule="duplicate-tensor",
                    path=path,
                    tensor=name,
                    got=shard,
                )
        tensors |= model.tensors
    return tensors


def _weight_map(path: Path) -> dict[str, str]:
    file = File(path)
    if file.size > MAX_HEADER:
        raise InvalidFile(
            "the index is too long",
            rule="header-size",
            path=path,
            got=file.size,
            expected=MAX_HEADER,
        )
    try:
        weight_map: Any = parse_json(file.read(), path).get("weight_map")
    finally:
        file.close()
    if type(weight_map) is dict and all(type(name) is str for name in weight_map.values()):
        named: dict[str, str] = weight_map
        if named:
            return named
    raise InvalidFile("weight_map does not map tensors to files", rule="weight-map", path=path)


def _open_shard(index: Path, name: str) -> Model:
    if name in {"", ".", ".."} or not name.isprintable() or not {"/", "\\"}.isdisjoint(name):
        raise InvalidFile(
            "a shard is not the name of a file beside the index",
            rule="shard-name",
            path=index,
            got=name,
        )
    try:
        return open_file(index.with_name(name))
    except NotFound:
        raise NotFound(
            "a shard is missing",
            rule="missing-shard",
            path=index,
            expected=name,
            hint="download it again",
        ) from None
