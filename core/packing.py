"""What a packing is: a way to store quantised weights as several tensors of a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from weighbridge import registry
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.parted import Parted
from weighbridge.text import counted

if TYPE_CHECKING:
    from weighbridge.encoding import Scaled
    from weighbridge.model import Config, Model
    from weighbridge.recipe import Recipe
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

    Tensors = Mapping[str, Lazy]

KEY = "quantization_config"
"""The entry of config.json that says how weights are stored."""


class Packing(ABC):
    """The tensors of quantised weights, as one kind of checkpoint names, shapes and packs them.

    One instance is registered under ``weighbridge.packings`` by the ``quant_method`` that
    config.json names. Nothing is read: what is wrong with names and shapes goes into the report.
    """

    name: ClassVar[str]

    @abstractmethod
    def unpacked(self, tensors: Tensors, settings: Config, report: Report) -> dict[str, Lazy]:
        """Return the tensors that a checkpoint would have unquantised, in the same order.

        Args:
            tensors: the checkpoint's own.
            settings: the ``quantization_config``.
            report: takes what is wrong, and what has no place elsewhere.

        Raises:
            Error: when the settings say what is not known.
        """

    def recipe(self, name: str) -> Recipe | None:
        """Return how weights are packed so, by the name that users give it; None: not by this."""
        del name
        return None


def recipe(name: str) -> Recipe | None:
    """Return the recipe of that name, out of those of every packing."""
    found = (packing.recipe(name) for packing in registry.packings().values())
    return next(filter(None, found), None)


def unpacked(model: Model, report: Report) -> Model:
    """Return a checkpoint with each quantised weight as one tensor, and a config that says so.

    A model whose config has no ``quantization_config`` is returned as it is.
    """
    settings = settings_of(model)
    if not settings:
        return model
    tensors: Mapping[str, Lazy] = model.tensors
    with report.collect():
        packing = _packing(settings)
        tensors = packing.unpacked(model.tensors, settings, report)
        _note(tensors, packing.name, report)
    config = {key: value for key, value in (model.config or {}).items() if key != KEY}
    return replace(model, tensors=tensors, config=config)


def settings_of(model: Model) -> Mapping[str, Any]:
    """Return what the config says of how weights are stored, empty where they are plain."""
    settings = (model.config or {}).get(KEY)
    if isinstance(settings, Mapping) or not settings:
        return settings or {}
    return {"quant_method": settings}


def _packing(settings: Config) -> Packing:
    method = settings.get("quant_method")
    known = registry.packings()
    if isinstance(method, str) and method in known:
        return known[method]
    raise Unsupported(
        "the checkpoint's weights are quantised in a way that is not known",
        rule="quantized-checkpoint",
        got=method,
        expected=f"one of {', '.join(sorted(known))}",
        hint="convert the checkpoint that it was made from",
    )


def _note(tensors: Tensors, name: str, report: Report) -> None:
    """Tell what the weights were, a line for each encoding."""
    found: dict[Scaled, int] = {}
    for tensor in tensors.values():
        if isinstance(tensor, Parted):
            found[tensor.encoding] = found.get(tensor.encoding, 0) + 1
    for encoding, count in found.items():
        report.note("unpacked", counted(count, "tensor"), f"{encoding}, as {name} stores them")


def missing_part(name: str, part: str) -> InvalidFile:
    """Return the error of a quantised weight that lacks a tensor."""
    return InvalidFile(
        "a part of a quantised weight is missing", rule="missing-part", tensor=name, expected=part
    )
