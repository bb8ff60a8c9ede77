"""The `safetensors` package."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from weighbridge.benchmarks.contender import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed


def read(source: Path, scratch: Path) -> Timed:
    """Open and list names and shapes."""
    del scratch
    from safetensors import safe_open

    def call() -> Outcome:
        opened = safe_open(source, "np")
        names = opened.keys()  # type: ignore[no-untyped-call]
        sizes = [math.prod(opened.get_slice(name).get_shape()) for name in names]  # type: ignore[no-untyped-call]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, opened)

    return call


def import_package(source: Path, scratch: Path) -> list[list[str]]:
    """Import the package."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "import safetensors"]]
