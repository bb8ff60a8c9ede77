"""A Hugging Face checkpoint directory as one model: config, weights and side files.

Source: what ``from_pretrained`` of transformers 5 looks for in a local directory
(``modeling_utils._get_resolved_checkpoint_files``) and what ``save_pretrained`` leaves in one.

The weights are, the first that there is: what ``transformers_weights`` in the config names;
``model.safetensors``; the shards of ``model.safetensors.index.json``; the only other index; the
only other safetensors file. So a single file wins over an index, as in transformers. Side files are
those of `weighbridge.formats.directory`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge import registry
from weighbridge.errors import Error, InvalidFile, InvalidInput, NotFound, Unsupported
from weighbridge.format import Format
from weighbridge.formats import directory
from weighbridge.layout import Layout, LayoutOptions, Slot, plain_file
from weighbridge.metadata import string
from weighbridge.sidefiles import CONFIG, dump_json

if TYPE_CHECKING:
    from collections.abc import Sequence
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
        """Tell a directory with weights that transformers would look for, or with a config.

        One whose weights are ONNX alone is not: pickles beside them are no weights here.
        """
        del head
        if not path.is_dir():
            return False
        names = directory.names_in(path)
        if any(name.endswith((SUFFIX, INDEX_SUFFIX)) for name in names):
            return True
        known = any(name == CONFIG or _is_pickle(name) for name in names)
        return known and not directory.onnx_files(path)

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
        names = directory.names_in(path)
        config = _config(path, names)
        files = directory.side_files(path)
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
        directory.check_names(model.files)
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


def _is_pickle(name: str) -> bool:
    return name.startswith("pytorch_model") and name.endswith((".bin", ".bin.index.json"))


def _config(path: Path, names: Sequence[str]) -> Config:
    if CONFIG in names:
        return directory.read_config(path)
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
    others = [name for name in names if directory.is_weights(name)]
    return NotFound(
        "has no safetensors weights",
        rule="no-weights",
        path=path,
        hint=f"open {others[0]} in it instead" if len(others) == 1 else None,
    )
