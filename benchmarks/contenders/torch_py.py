"""torch's own pickles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.weights import chosen, loaded

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed

MAPPED = {"mapped": "yes"}
"""The option that maps the file instead of reading it."""


def read(source: Path, scratch: Path, **options: str) -> Timed:
    """Load, and list names and shapes."""
    del scratch
    load = _loader(**options)

    def call() -> Outcome:
        state = load(source)
        sizes = [tensor.numel() for tensor in state.values()]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, state)

    return call


def load_all(source: Path, scratch: Path, **options: str) -> Timed:
    """Load every tensor."""
    del scratch
    load = _loader(**options)
    return lambda: loaded(load(source))


def load_one(source: Path, scratch: Path, which: str, **options: str) -> Timed:
    """Load, and use one tensor."""
    del scratch
    load = _loader(**options)
    shapes = {name: tuple(tensor.shape) for name, tensor in _loader(**MAPPED)(source).items()}
    name = chosen(shapes, which)

    def call() -> Outcome:
        state = load(source)
        return loaded([state[name]], state)

    return call


def _loader(mapped: str = "", device: str = "cpu") -> Any:
    import torch

    def load(path: Path) -> Any:
        return torch.load(path, map_location=device, mmap=bool(mapped), weights_only=True)

    return load
