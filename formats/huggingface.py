"""A Hugging Face checkpoint directory as one model: config, weights and side files.

Source: what ``from_pretrained`` of transformers 5 looks for in a local directory
(``modeling_utils._get_resolved_checkpoint_files``) and what ``save_pretrained`` leaves in one.

The weights are, the first that there is: what ``transformers_weights`` in the config names;
``model.safetensors``; the shards of ``model.safetensors.index.json``; the only other index; the
only other safetensors file. So a single file wins over an index, as in transformers.

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
from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge import registry
from weighbridge.errors import Error, InvalidFile, InvalidInput, NotFound, Unsupported
from weighbridge.file import File
from weighbridge.format import Format
from weighbridge.layout import Layout, LayoutOptions, Slot, plain_file
from weighbridge.metadata import string
from weighbridge.sidefiles import CONFIG, dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from weighbridge.model import Config, Model

SINGLE = "model.safetensors"
SHARDED = "model.safetensors.index.json"
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"

EXPLICIT = "transformers_weights"
"""The key of config.json that names the weights where they are not in the usual place."""

SHARD_SIZE = 5_000_000_000
"""The most bytes of weights in one file: where ``huggingface_hub`` cuts (transformers 5: 50 GB)."""

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

WEIGHTS: Format = registry.load("formats", "safetensors")


class HuggingFace(Format):
    """A directory as transformers reads and writes it."""

    name = "huggingface"
    title = "Hugging Face"
    encodings = WEIGHTS.encodings
    directory = True
    weights = WEIGHTS.name
    carries_files = True

    def sniff(self, path: Path, head: bytes) -> bool:
        """Tell a directory with a config, or with weights that transformers would look for."""
        del head
        if not path.is_dir():
            return False
        names = _names(path)
        return any(
            name == CONFIG or name.endswith((SUFFIX, INDEX_SUFFIX)) or _is_pickle(name)
            for name in names
        )

    def open(self, path: Path) -> Model:
        """Open the config and the weights' header; side files are read when they are looked at.

        Raises:
            NotFound: (rule ``no-config``) without config.json, (rule ``no-weights``) without any
                weights.
            Unsupported: (rule ``pickle``) when the weights are pickles.
            InvalidInput: (rule ``which-weights``) when there are several and no usual name.
            InvalidFile: (rule ``json``) when config.json is not an object, (rule ``weights-name``)
                when it names no weights of the directory.
        """
        names = _names(path)
        config = _config(path, names)
        files = SideFiles(path, _side_files(path, names))
        model = WEIGHTS.open(path / _weights(path, names, config))
        return replace(model, format=self.name, path=path, config=config, files=files)

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        """Lay out config.json, the side files, and the weights in files of at most 5 GB each.

        Raises:
            Unsupported: (rule ``no-config``) for a model without a config, (rule ``file-name``)
                for a side file that must not be written, and what safetensors refuses.
        """
        if model.config is None:
            raise Unsupported(
                "a checkpoint directory needs a config",
                rule="no-config",
                path=name,
                hint=f"write a {SUFFIX} file instead",
            )
        _check_names(model.files)
        # The weights get the usual name, whatever they were called before.
        config = {key: value for key, value in model.config.items() if key != EXPLICIT}
        files = [plain_file(CONFIG, dump_json(config))]
        files += [plain_file(file, content) for file, content in model.files.items()]
        shard_size = SHARD_SIZE if options.shard_size is None else options.shard_size
        # transformers 4 takes no file without this, and transformers 5 still writes it.
        labelled = replace(model, metadata={"format": string("pt"), **model.metadata})
        weights = WEIGHTS.layout(labelled, SINGLE, LayoutOptions(shard_size))
        slots = {
            part: Slot(len(files) + slot.file, slot.offset, slot.length)
            for part, slot in weights.slots.items()
        }
        return Layout((*files, *weights.files), slots)


FORMAT = HuggingFace()


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


def _names(path: Path, *, folders: bool = False) -> list[str]:
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


def _is_weights(name: str) -> bool:
    return name.lower().endswith(WEIGHT_SUFFIXES)


def _is_pickle(name: str) -> bool:
    return name.startswith("pytorch_model") and name.endswith((".bin", ".bin.index.json"))


def _side_files(path: Path, names: Iterable[str]) -> list[str]:
    found = [name for name in names if name != CONFIG and not _is_weights(name)]
    for folder in _names(path, folders=True):
        inner = _names(path / folder)
        if not any(map(_is_weights, inner)):
            found += [f"{folder}/{name}" for name in inner]
    return found


def _check_names(names: Iterable[str]) -> None:
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
        and not _is_weights(name)
    )


def _config(path: Path, names: Sequence[str]) -> Config:
    if CONFIG in names:
        return parse_json(_read(path / CONFIG), path / CONFIG)
    weights = [name for name in names if name.endswith(SUFFIX)]
    raise NotFound(
        f"has no {CONFIG}",
        rule="no-config",
        path=path,
        hint=f"open {weights[0]} in it for the tensors alone" if len(weights) == 1 else None,
    )


def _weights(path: Path, names: Sequence[str], config: Config) -> str:
    explicit = config.get(EXPLICIT)
    if explicit is not None:
        for name in names:
            if name == explicit and name.endswith((SUFFIX, INDEX_SUFFIX)):
                return name
        raise InvalidFile(
            f"{EXPLICIT} does not name safetensors weights of the directory",
            rule="weights-name",
            path=path / CONFIG,
            got=explicit,
        )
    for usual in (SINGLE, SHARDED):
        if usual in names:
            return usual
    for suffix in (INDEX_SUFFIX, SUFFIX):
        others = [name for name in names if name.endswith(suffix)]
        if len(others) == 1:
            return others[0]
        if others:
            raise InvalidInput(
                "which of its weights are meant?",
                rule="which-weights",
                path=path,
                got=", ".join(others),
                hint="open one of them by its own name",
            )
    raise _no_weights(path, names)


def _no_weights(path: Path, names: Sequence[str]) -> Error:
    if any(map(_is_pickle, names)):
        return Unsupported(
            "its weights are pickles, which can run any code when they are read",
            rule="pickle",
            path=path,
            hint="load it with transformers and use save_pretrained, which writes safetensors",
        )
    others = [name for name in names if _is_weights(name)]
    return NotFound(
        "has no safetensors weights",
        rule="no-weights",
        path=path,
        hint=f"open {others[0]} in it instead" if len(others) == 1 else None,
    )
