"""The `onnx` package, and `onnx-ir`."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from weighbridge.benchmarks.contender import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed


def load(source: Path, scratch: Path) -> Timed:
    """Load the model, external data included, and list names and shapes."""
    return _load(source, external=True)


def load_without_data(source: Path, scratch: Path) -> Timed:
    """Load the model and leave external data where it is."""
    return _load(source, external=False)


def _load(source: Path, *, external: bool) -> Timed:
    import onnx

    def call() -> Outcome:
        model = onnx.load(source, load_external_data=external)
        sizes = [math.prod(tensor.dims) for tensor in model.graph.initializer]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, model)

    return call


def load_ir(source: Path, scratch: Path) -> Timed:
    """Load the model with onnx-ir, whose external tensors are mapped when they are used."""
    del scratch
    import onnx_ir

    def call() -> Outcome:
        model = onnx_ir.load(source)
        shapes = [value.shape for value in model.graph.initializers.values()]
        sizes = [math.prod(shape.numpy()) for shape in shapes if shape is not None]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, model)

    return call


def import_package(source: Path, scratch: Path) -> list[list[str]]:
    """Import the package."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "import onnx"]]
