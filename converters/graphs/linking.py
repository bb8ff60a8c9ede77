"""Weights that stay where a checkpoint has them: a graph that points into its files.

ONNX Runtime and onnx follow only paths that stay in the directory of the graph, links resolved: so
the graph has to lie in the checkpoint's directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from weighbridge.encoding import DATA, Dense
from weighbridge.engine.torch_types import TORCH_DTYPES
from weighbridge.errors import InvalidInput
from weighbridge.tensor import Extent, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir

    from weighbridge.model import Model
    from weighbridge.tensor import Lazy


def check_place(model: Model, target: Path | None) -> Path:
    """Return the directory of a checkpoint, which is where the graph is to be.

    Raises:
        InvalidInput: (rule ``link-weights``) when the target is another, or there is none.
    """
    source = model.path
    if source is None or not source.is_dir() or target is None:
        raise InvalidInput(
            "only a checkpoint directory has weights that a graph can be linked to",
            rule="link-weights",
            path=source,
            got=model.format,
        )
    if not target.is_dir() or not source.samefile(target):
        raise InvalidInput(
            "a graph has to lie beside the weights that it is linked to",
            rule="link-weights",
            path=target,
            expected=f"the checkpoint's own directory, {source}",
            hint="name it as the target too, or leave out --link-weights",
        )
    return source.resolve()


def link(program: onnx_ir.Model, weights: Mapping[str, Lazy], directory: Path) -> dict[str, Lazy]:
    """Have a graph read weights where they are, and return those that it cannot.

    Args:
        program: the graph, changed in place; a weight of another dtype is cast as it is read.
        weights: initialiser -> its numbers.
        directory: the checkpoint's, with symbolic links resolved.
    """
    places = {name: _place(tensor, directory) for name, tensor in weights.items()}
    for name, place in places.items():
        if place is not None:
            _point(program.graph, name, cast("Tensor", weights[name]), place, directory)
    return {name: tensor for name, tensor in weights.items() if places[name] is None}


def _place(tensor: Lazy, directory: Path) -> Extent | None:
    """Return where a tensor lies as a graph can read it, None where it does not."""
    if not isinstance(tensor, Tensor) or not isinstance(tensor.encoding, Dense):
        return None
    where = tensor.parts[DATA]
    if (
        not isinstance(where, Extent)
        or where.order != "<"
        or tensor.encoding.name not in TORCH_DTYPES
    ):
        return None
    return where if where.file.path.resolve().is_relative_to(directory) else None


def _point(graph: onnx_ir.Graph, name: str, tensor: Tensor, place: Extent, directory: Path) -> None:
    import onnx_ir

    value = graph.initializers[name]
    stored = onnx_ir.ExternalTensor(
        place.file.path.resolve().relative_to(directory),
        place.offset,
        place.length,
        onnx_ir.DataType.from_numpy(cast("Dense", tensor.encoding).dtype),
        shape=onnx_ir.Shape(tensor.shape),
        name=name,
        base_dir=directory,
    )
    if stored.dtype != value.dtype:
        _cast(graph, value)
    value.const_value, value.dtype = stored, stored.dtype


def _cast(graph: onnx_ir.Graph, value: onnx_ir.Value) -> None:
    """Put a cast to its present dtype between a weight and whatever reads it."""
    import onnx_ir

    wanted = cast("onnx_ir.DataType", value.dtype)
    node = onnx_ir.node("Cast", [value], attributes={"to": wanted.value})
    output = node.outputs[0]
    output.shape, output.dtype, output.name = value.shape, wanted, f"{value.name}.cast"
    value.replace_all_uses_with(output)
    node.replace_input_with(0, value)
    graph.insert_before(graph[0], node)
