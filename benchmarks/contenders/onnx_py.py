"""The `onnx` package, `onnx-ir`, and ONNX Runtime."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.weights import loaded, name_of

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


def load_all(source: Path, scratch: Path) -> Timed:
    """Load the model, and take every initialiser as an array."""
    del scratch
    import onnx
    from onnx.numpy_helper import to_array

    def call() -> Outcome:
        model = onnx.load(source)
        return loaded([to_array(tensor) for tensor in model.graph.initializer], model)

    return call


def load_one(source: Path, scratch: Path, which: str) -> Timed:
    """Load the model, and take one initialiser."""
    del scratch
    import onnx
    from onnx.numpy_helper import to_array

    name = name_of(source, which)

    def call() -> Outcome:
        model = onnx.load(source)
        found = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        return loaded([to_array(found)], model)

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


def load_all_ir(source: Path, scratch: Path) -> Timed:
    """Load the model with onnx-ir, and take every initialiser as an array."""
    del scratch
    import onnx_ir

    def call() -> Outcome:
        model = onnx_ir.load(source)
        return loaded([_array(value) for value in model.graph.initializers.values()], model)

    return call


def load_one_ir(source: Path, scratch: Path, which: str) -> Timed:
    """Load the model with onnx-ir, and take one initialiser."""
    del scratch
    import onnx_ir

    name = name_of(source, which)

    def call() -> Outcome:
        model = onnx_ir.load(source)
        return loaded([_array(model.graph.initializers[name])], model)

    return call


def _array(value: Any) -> Any:
    return value.const_value.numpy()


def session(source: Path, scratch: Path) -> Timed:
    """Make a session of ONNX Runtime, which loads and prepares the weights."""
    del scratch
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3

    def call() -> Outcome:
        return Outcome({}, onnxruntime.InferenceSession(source, options))

    return call


def to_safetensors(source: Path, scratch: Path) -> Timed:
    """Load a model of numbers in float32 and float16, and save what it holds as safetensors."""
    import onnx
    from onnx.numpy_helper import to_array
    from safetensors.numpy import save_file

    def call() -> Outcome:
        initializers = onnx.load(source).graph.initializer
        arrays = {tensor.name: to_array(tensor) for tensor in initializers}
        save_file(arrays, scratch / "out.safetensors")
        return Outcome({})

    return call


def from_safetensors(source: Path, scratch: Path) -> Timed:
    """Load safetensors, and save the tensors as an ONNX model with its weights beside it."""
    import onnx_ir
    from onnx_ir import tensor_adapters
    from safetensors.torch import load_file

    def call() -> Outcome:
        tensors = load_file(source)
        values = [
            onnx_ir.Value(name=name, const_value=tensor_adapters.TorchTensor(tensor, name=name))
            for name, tensor in tensors.items()
        ]
        graph = onnx_ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 21})
        model = onnx_ir.Model(graph, ir_version=10)
        onnx_ir.save(model, scratch / "out.onnx", external_data="out.data")
        return Outcome({})

    return call


def import_package(source: Path, scratch: Path) -> list[list[str]]:
    """Import the package."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "import onnx"]]
