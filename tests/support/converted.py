"""Every family's case as a checkpoint, and converted, made once for all tests of a process."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from families import CASES
from safetensors.torch import load_file, save_file

import weighbridge as wb
from support import llamacpp, tiny

if TYPE_CHECKING:
    from families.case import Case


@functools.cache
def folder() -> Path:
    """Return a directory that lives as long as the process."""
    return Path(_kept().name)


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="weighbridge-cases-")


@functools.cache
def source(name: str) -> Path:
    """Return a case's checkpoint, under the name of a model on a hub."""
    case = CASES[name]
    directory = tiny.checkpoint(
        folder() / name / "org-Tiny-0.1B-chat-v1.5",
        case.model,
        entries=case.config,
        dtype=case.dtype,
        shard_size=case.shard_size,
        tokenizer={**case.tokenizer(), **case.files},
        old_spelling=case.old_spelling,
    )
    if case.edit:
        tiny.edit_json(directory / "config.json", case.edit)
    if case.rename:
        _rename(directory / "model.safetensors", case)
    return directory


@functools.cache
def _config(name: str) -> str:
    case = CASES[name]
    settings = tiny.config(case.model, **case.config).to_dict()
    if case.old_spelling:
        tiny.spell_old(settings)
    if case.edit:
        case.edit(settings)
    return json.dumps(settings)


def config(case: Case) -> dict[str, Any]:
    """Return a case's config, without its weights."""
    document: dict[str, Any] = json.loads(_config(case.name))
    return document


def _rename(path: Path, case: Case) -> None:
    assert case.rename
    names = {name: (case.rename(name), tensor) for name, tensor in load_file(path).items()}
    kept = {new: tensor for new, tensor in names.values() if new is not None}
    save_file(kept, path, metadata={"format": "pt"})


@functools.cache
def ours(name: str, outtype: str | None = None) -> Path:
    """Return the GGUF file that we make of a case; without a type weights stay as they are."""
    path = folder() / name / f"ours-{outtype}.gguf"
    wb.convert(source(name), path, quantize=outtype)
    return path


@functools.cache
def theirs(name: str) -> Path:
    """Return the GGUF file that llama.cpp's converter makes of a case."""
    return llamacpp.convert(source(name), folder() / name / "theirs.gguf", CASES[name].outtype)


@functools.cache
def again(name: str) -> Path:
    """Return the checkpoint that we make of our GGUF file of a case, sharded as the source."""
    directory = folder() / name / "again"
    wb.convert(ours(name), directory, shard_size=CASES[name].shard_size)
    return directory
