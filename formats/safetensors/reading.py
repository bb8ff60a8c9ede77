"""Opening a safetensors file, or the shards that an index names."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any

from weighbridge.errors import InvalidFile, NotFound
from weighbridge.file import File
from weighbridge.formats.safetensors.header import MAX_HEADER, Header, read_header
from weighbridge.metadata import string
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.sidefiles import parse_json
from weighbridge.tensor import Lazy, Tensor, stored

if TYPE_CHECKING:
    from pathlib import Path

NAME = "safetensors"
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"


class Tensors(Mapping[str, Tensor]):
    """The tensors of one file, each made when it is first looked at.

    Keeping the header's entries as they are is what makes a file of a hundred thousand tensors
    cheap to open.
    """

    def __init__(self, file: File, header: Header) -> None:
        """Keep a valid header of `file`."""
        self._file = file
        self._rows = header.rows
        self._start = header.start
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor of that name: the same object every time."""
        made = self._made.get(name)
        return self._made.setdefault(name, self._make(name)) if made is None else made

    def _make(self, name: str) -> Tensor:
        (encoding, shape, length), begin = self._rows[name]
        return stored(name, shape, encoding, self._file, self._start + begin, length)

    def _all(self) -> dict[str, Tensor]:
        made, file, start = self._made, self._file, self._start
        for name, ((encoding, shape, length), begin) in self._rows.items():
            if name not in made:
                made.setdefault(name, stored(name, shape, encoding, file, start + begin, length))
        return {name: made[name] for name in self._rows}

    def values(self) -> ValuesView[Tensor]:
        """Return the tensors in the order of the data."""
        return self._all().values()

    def items(self) -> ItemsView[str, Tensor]:
        """Return names and tensors in the order of the data."""
        return self._all().items()

    def __iter__(self) -> Iterator[str]:
        """Return the names in the order of the data."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a tensor, without making it."""
        return name in self._rows


class Joined(Mapping[str, Lazy]):
    """The tensors of several shards, shard after shard."""

    def __init__(self, shards: Mapping[str, Model], path: Path) -> None:
        """Join `shards`.

        Raises:
            InvalidFile: (rule ``duplicate-tensor``) when two of them hold a tensor of one name.
        """
        self._where: dict[str, Mapping[str, Lazy]] = {}
        for shard, model in shards.items():
            for name in model.tensors:
                if name in self._where:
                    raise InvalidFile(
                        "two shards hold it",
                        rule="duplicate-tensor",
                        path=path,
                        tensor=name,
                        got=shard,
                    )
                self._where[name] = model.tensors

    def __getitem__(self, name: str) -> Lazy:
        """Return the tensor of that name: the same object every time."""
        return self._where[name][name]

    def __iter__(self) -> Iterator[str]:
        """Return the names, shard by shard, in the order of the data."""
        return iter(self._where)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._where)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a tensor, without making it."""
        return name in self._where


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
        tensors=Tensors(file, header),
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
    tensors = Joined(shards, path)
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
