"""llama.cpp's own `gguf` package."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from weighbridge.benchmarks.contender import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed


def read(source: Path, scratch: Path) -> Timed:
    """Open with the reader and list names and shapes."""
    del scratch
    from gguf import GGUFReader

    def call() -> Outcome:
        reader = GGUFReader(source)
        sizes = [int(tensor.n_elements) for tensor in reader.tensors]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, reader)

    return call


def import_package(source: Path, scratch: Path) -> list[list[str]]:
    """Import the package."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "import gguf"]]
