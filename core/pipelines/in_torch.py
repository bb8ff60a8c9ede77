"""Pipelines over models that run in torch: GGUF files, checkpoints, whatever can be opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge.api import open as open_model
from weighbridge.errors import InvalidFile, NotFound, Unsupported
from weighbridge.graph import MANIFEST
from weighbridge.pipelines.side_parts import parts_of
from weighbridge.pipelines.tasks import (
    check_head,
    classes,
    heads,
    pipeline_class,
    plain_task,
    task_of,
)
from weighbridge.tensor_names import model_class
from weighbridge.transformers import canonical_model, from_pretrained

if TYPE_CHECKING:
    from pathlib import Path

LOADING = ("dtype", "device", "memory", "model_class", "attn_implementation")
"""The options that are for loading; the others are for the pipeline."""


BARE = "AutoModel"


def in_torch(task: str | None, path: Path, options: dict[str, Any]) -> Any:
    """Return a pipeline over a model that `weighbridge.transformers` loads.

    Raises:
        NotFound: (rule ``no-export``) for a directory that holds no model of any kind.
    """
    config = _config(path)
    wanted = task or task_of(model_class(config), config, path)
    plain = plain_task(wanted)
    made = pipeline_class(plain)
    loading = {name: options[name] for name in LOADING if name in options}
    loading.setdefault("model_class", _class(plain, model_class(config), path))
    loaded = from_pretrained(path, **loading)
    others = {name: value for name, value in options.items() if name not in LOADING}
    if loaded.tokenizer is not None:
        others.setdefault("tokenizer", loaded.tokenizer)
    parts = parts_of(made, path, others) if path.is_dir() else {}
    arguments = {"device": loaded.model.device, **parts, **others}
    return made(model=loaded.model, task=wanted, **arguments)


def _config(path: Path) -> Any:
    try:
        with open_model(path) as source:
            return canonical_model(source).config or {}
    except (InvalidFile, Unsupported) as error:
        if not path.is_dir() or error.rule != "unknown-format":
            raise
        raise NotFound(
            f"holds neither a model nor an export: it has no {MANIFEST}",
            rule="no-export",
            path=path,
        ) from error


def _class(task: str, architecture: str, path: Path) -> str:
    """Return the automatic class to make; any model has the bare one within it."""
    automatic = heads(task)
    if BARE in (one.__name__ for one in automatic):
        return BARE
    check_head(task, architecture, path)
    return next(str(one.__name__) for one in automatic if architecture in classes(one))
