"""A directory of a model: its config, and the files that go where the weights go.

A *side file* is any other regular file of the directory and of its sub-directories, one level
deep (``1_Pooling/config.json``, ``additional_chat_templates/x.jinja``), but for

- hidden files, and all of a hidden sub-directory (``.git``, ``.cache``);
- weights of any framework, by suffix (`WEIGHT_SUFFIXES`), and their indexes;
- sub-directories that hold weights: those are checkpoints of their own (``onnx``, ``original``).

The model card and the licence are side files like the others: they go where the weights go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from weighbridge.errors import InvalidFile, InvalidInput, NotFound, Unsupported
from weighbridge.file import File
from weighbridge.graph import MANIFEST
from weighbridge.sidefiles import CONFIG, parse_json

if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from pathlib import Path

    from weighbridge.model import Config

LARGEST = 64_000_000
"""The most bytes of a side file. The largest tokenizers have about 35 MB."""

LONGEST = 255
"""The most bytes of a file's name: what common file systems take."""

WEIGHT_SUFFIXES = (
    ".bin", ".ckpt", ".data", ".engine", ".ggml", ".gguf", ".h5", ".index.json", ".keras",
    ".mlmodel", ".msgpack", ".npy", ".npz", ".onnx", ".onnx_data", ".ot", ".pb", ".pickle", ".pkl",
    ".pt", ".pth", ".safetensors", ".tflite",
)  # fmt: skip
"""What the names of weight files of any framework end with, in lower case."""

ONNX = ".onnx"

ONNX_FOLDER = "onnx"
"""The sub-directory in which checkpoints on the hub have their ONNX files."""


class SideFiles(Mapping[str, bytes]):
    """The side files of a directory, each read whenever it is looked at."""

    def __init__(self, directory: Path, names: Iterable[str]) -> None:
        """Keep the `names`, relative to `directory`."""
        self._directory = directory
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> bytes:
        """Read a file.

        Raises:
            InvalidFile: (rule ``file-size``) when it is too large to be a side file.
        """
        if name not in self._names:
            raise KeyError(name)
        return _read(self._directory / name)

    def __iter__(self) -> Iterator[str]:
        """Return the names, sub-directories last."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a file, without reading it."""
        return name in self._names


def names_in(path: Path, *, folders: bool = False) -> list[str]:
    """Return the names of a directory's visible files, or of its sub-directories, sorted."""
    try:
        with os.scandir(path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".")
                and (entry.is_dir() if folders else entry.is_file())
            )
    except FileNotFoundError:
        raise NotFound("there is no such directory", rule="not-found", path=path) from None
    except OSError as error:
        raise InvalidInput(
            f"cannot be listed: {error.strerror}", rule="unreadable", path=path
        ) from None


def is_weights(name: str) -> bool:
    """Tell whether a name is that of a weight file of any framework."""
    return name.lower().endswith(WEIGHT_SUFFIXES)


def onnx_side_files(home: Path) -> SideFiles:
    """Return the side files of a directory of ONNX files, without what names its components."""
    return side_files(home, but={MANIFEST})


def onnx_files(path: Path) -> list[str]:
    """Return the names of a directory's ONNX files, or of those in its sub-directory for them."""
    own = [name for name in names_in(path) if name.endswith(ONNX)]
    if own or not (path / ONNX_FOLDER).is_dir():
        return own
    inner = names_in(path / ONNX_FOLDER)
    return [f"{ONNX_FOLDER}/{name}" for name in inner if name.endswith(ONNX)]


def home_of(path: Path) -> Path | None:
    """Return the directory whose config.json is about the ONNX files in `path`: it or its parent.

    Example:
        >>> from pathlib import Path
        >>> home_of(Path("/nowhere/onnx"))
    """
    if (path / CONFIG).is_file():
        return path
    above = path.resolve()
    if above.name == ONNX_FOLDER and (above.parent / CONFIG).is_file():
        return above.parent
    return None


def read_config(directory: Path) -> Config:
    """Return config.json; see `read_json`."""
    return read_json(directory / CONFIG)


def read_json(path: Path) -> Config:
    """Return the JSON object in a file.

    Raises:
        InvalidFile: (rule ``json``) when there is none, (rule ``file-size``).
    """
    return parse_json(_read(path), path)


def side_files(path: Path, *, but: Container[str] = ()) -> SideFiles:
    """Return the side files of a directory, all but some."""
    found = [
        name
        for name in names_in(path)
        if name != CONFIG and name not in but and not is_weights(name)
    ]
    for folder in names_in(path, folders=True):
        inner = names_in(path / folder)
        if not any(map(is_weights, inner)):
            found += [f"{folder}/{name}" for name in inner]
    return SideFiles(path, found)


def check_names(names: Iterable[str]) -> None:
    """Refuse names of side files that would leave the directory, hide in it, or replace weights.

    They may come from the key-values of a file that somebody sent.
    """
    whole = list(names)
    folders = {name.partition("/")[0] for name in whole if "/" in name}
    for name in whole:
        if not _is_safe(name) or name in folders:
            raise Unsupported(
                "a side file cannot have this name in a checkpoint directory",
                rule="file-name",
                got=name,
                expected="a visible file, at most one directory deep, that is not weights",
            )


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    visible = all(part.isprintable() and part[:1] not in {"", "."} for part in parts)
    return (
        visible
        and len(parts) <= 2
        and "\\" not in name
        and all(len(part.encode()) <= LONGEST for part in parts)
        and name.lower() != CONFIG
        and not is_weights(name)
    )


def _read(path: Path) -> bytes:
    file = File(path)
    if file.size > LARGEST:
        raise InvalidFile(
            "is too large to go with a model",
            rule="file-size",
            path=path,
            got=f"{file.size} bytes",
            expected=f"at most {LARGEST}",
            hint="move it out of the model's directory",
        )
    try:
        return file.read()
    finally:
        file.close()
