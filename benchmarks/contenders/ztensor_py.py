"""ztensor: one reader for many formats, in Rust."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.weights import loaded, name_of

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


def load_all(source: Path, scratch: Path) -> Timed:
    """Take every tensor, through DLPack."""
    del scratch
    import ztensor
    from torch.utils.dlpack import from_dlpack

    def call() -> Outcome:
        opened = ztensor.open(str(source))
        return loaded([from_dlpack(tensor) for tensor in opened.values()], opened)

    return call


def load_one(source: Path, scratch: Path, which: str) -> Timed:
    """Open, and take one tensor."""
    del scratch
    import ztensor
    from torch.utils.dlpack import from_dlpack

    name = name_of(source, which)

    def call() -> Outcome:
        opened = ztensor.open(str(source))
        return loaded([from_dlpack(opened[name])], opened)

    return call
