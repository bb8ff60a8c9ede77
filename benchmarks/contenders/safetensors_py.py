"""The `safetensors` package."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.weights import loaded, name_of

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed


def shards(source: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint directory, or the file itself."""
    return sorted(source.glob("*.safetensors")) if source.is_dir() else [source]


def read(source: Path, scratch: Path) -> Timed:
    """Open and list names and shapes."""
    del scratch
    from safetensors import safe_open

    files = shards(source)

    def call() -> Outcome:
        opened = [safe_open(file, "np") for file in files]
        sizes = [math.prod(shape) for file in opened for shape in _shapes(file)]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, opened)

    return call


def _shapes(opened: Any) -> list[list[int]]:
    names = opened.keys()
    return [opened.get_slice(name).get_shape() for name in names]


def load_all(source: Path, scratch: Path, device: str = "cpu") -> Timed:
    """Load every tensor."""
    del scratch
    from safetensors.torch import load_file

    files = shards(source)

    def call() -> Outcome:
        return loaded([x for file in files for x in load_file(file, device=device).values()])

    return call


def load_one(source: Path, scratch: Path, which: str) -> Timed:
    """Open, and read one tensor."""
    del scratch
    import torch  # noqa: F401  # what the tensors are of
    from safetensors import safe_open

    name, files = name_of(source, which), shards(source)

    def call() -> Outcome:
        for file in files:
            with safe_open(file, "pt") as opened:
                if name in opened.keys():  # noqa: SIM118  # it is no mapping
                    return loaded([opened.get_tensor(name)])
        raise KeyError(name)

    return call


def load_as(source: Path, scratch: Path, dtype: str) -> Timed:
    """Load every tensor, and cast it."""
    del scratch
    import torch
    from safetensors.torch import load_file

    files, target = shards(source), getattr(torch, dtype)

    def call() -> Outcome:
        return loaded([x.to(target) for file in files for x in load_file(file).values()])

    return call


def cast(source: Path, scratch: Path, dtype: str) -> Timed:
    """Load a file, cast it, save it."""
    import torch
    from safetensors.torch import load_file, save_file

    target = getattr(torch, dtype)

    def call() -> Outcome:
        cast_all = {name: x.to(target) for name, x in load_file(source).items()}
        save_file(cast_all, scratch / "out.safetensors")
        return Outcome({})

    return call


def import_package(source: Path, scratch: Path) -> list[list[str]]:
    """Import the package."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "import safetensors"]]
