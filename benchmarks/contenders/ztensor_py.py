"""ztensor: one reader for many formats, in Rust."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from weighbridge.benchmarks.contender import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed


def read(source: Path, scratch: Path) -> Timed:
    """Open and list names and shapes."""
    del scratch
    import ztensor

    def call() -> Outcome:
        opened = ztensor.open(str(source))
        sizes = [math.prod(tensor.shape) for tensor in opened.values()]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, opened)

    return call
