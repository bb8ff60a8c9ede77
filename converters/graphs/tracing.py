"""From a stage to a component: traced, its weights tensors of the target, its axes named."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from weighbridge import __version__
from weighbridge.converters.graphs import folding, seams
from weighbridge.converters.graphs.folding import Turn
from weighbridge.errors import Error, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx_ir
    import torch

    from weighbridge.converters.graphs.expressions import Made, Named
    from weighbridge.converters.graphs.folding import Style
    from weighbridge.converters.graphs.skeleton import Skeleton
    from weighbridge.converters.graphs.stages import Stage

PRODUCER = "weighbridge"

SYMBOL = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Traced:
    """A graph without the numbers of its weights.

    Attributes:
        name: of the component.
        program: the graph; weights are initialisers without values.
        weights: initialiser -> what it stands for.
        metadata: what transformers records of an export.
    """

    name: str
    program: onnx_ir.Model
    weights: Mapping[str, Named | Made]
    metadata: Mapping[str, Any]


def traced(stage: Stage, made: Skeleton, style: Style) -> Traced:
    """Trace a stage.

    Args:
        stage: the module and its sample inputs.
        made: the model that it is a part of.
        style: what the graph is to look like.

    Raises:
        Unsupported: (rule ``export``) for a model that the exporters cannot trace, (rule
            ``lost-weight``) where a weight lost its name on the way.
    """
    try:
        program, metadata = seams.exported(stage, _shapes(stage), made.expressions, style)
    except Error:
        raise
    except Exception as error:  # exporters raise anything
        raise _refused(stage, error) from error
    folding.fold_transposes(program, style.turn)
    if style.turn is not Turn.NEVER:
        folding.fold_concats(program)
    _check(program, stage)
    _forget_origins(program)
    _fix_scalars(program, stage)
    _name_axes(program, stage)
    return Traced(
        stage.name,
        program,
        folding.weights(program),
        _recorded(metadata, stage, style),
    )


def _refused(stage: Stage, error: Exception) -> Unsupported:
    said = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return Unsupported(
        f"the exporter cannot trace '{stage.name}' of {type(stage.module).__name__}: {said}",
        rule="export",
    )


def _recorded(metadata: Any, stage: Stage, style: Style) -> dict[str, Any]:
    """Return what transformers records, of the class that a checkpoint is of."""
    kind = type(getattr(stage.module, "pooled", stage.module))
    config = {"export_format": "onnx", "dynamic": True, "ort_fusions": style.fuse}
    return dataclasses.asdict(
        dataclasses.replace(metadata, architecture=kind.__name__, export_config=config)
    )


def _shapes(stage: Stage) -> dict[str, Any]:
    """Return the axes that vary as ``torch.export`` wants them: it finds out which are equal."""
    import torch

    def shape(axes: Any) -> Any:
        if axes is None:
            return None
        if isinstance(axes, list):
            return [shape(each) for each in axes]
        return dict.fromkeys(axes, torch.export.Dim.AUTO)

    return {name: shape(axes) for name, axes in stage.axes.items()}


def _check(program: onnx_ir.Model, stage: Stage) -> None:
    """Refuse a graph with an initialiser that has neither a value nor a name.

    Raises:
        Unsupported: (rule ``lost-weight``).
    """
    for name, value in program.graph.initializers.items():
        if value.const_value is None and folding.expression_of(value) is None:
            raise Unsupported(
                f"the exporter lost what an initialiser of '{stage.name}' stands for",
                rule="lost-weight",
                tensor=name,
            )


def _fix_scalars(program: onnx_ir.Model, stage: Stage) -> None:
    """Make constants of inputs without axes: settings that a cache carries, as its window."""
    import onnx_ir

    for value, sample in _fed(program, stage):
        if value is not None and not sample.ndim:
            place = list(program.graph.inputs).index(value)
            del program.graph.inputs[place]
            value.const_value = onnx_ir.tensor(sample.numpy(), name=value.name)
            program.graph.register_initializer(value)


def _forget_origins(program: onnx_ir.Model) -> None:
    """Drop what the exporter noted of the Python code that each node comes from."""
    for node in program.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*program.graph.inputs, *program.graph.initializers.values()):
        value.metadata_props.clear()


def _name_axes(program: onnx_ir.Model, stage: Stage) -> None:
    """Call the lengths that vary as the stage does, instead of by the tracer's symbols."""
    import onnx_ir

    names = dict(_symbols(program, stage))
    for value in _values(program.graph):
        if value.shape is not None:
            value.shape = onnx_ir.Shape([_named(length, names) for length in value.shape])


def _named(length: int | onnx_ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    if isinstance(length, int) or length.value is None:
        return None if not isinstance(length, int) else length
    said = SYMBOL.sub(lambda found: names.get(found[0], found[0]), length.value)
    return int(said) if said.isdigit() else said


def _symbols(program: onnx_ir.Model, stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield the tracer's symbol and the name of each length of an input."""
    import torch.utils._pytree as pytree

    tensors = {name: each for name, each in stage.axes.items() if each is not None}
    axes = pytree.tree_leaves(tensors, is_leaf=_is_axes)
    for (value, _), named in zip(_fed(program, stage), axes, strict=True):
        for axis, name in named.items():
            length = cast("onnx_ir.Shape", value.shape)[axis] if value is not None else None
            symbol = getattr(length, "value", None)
            if symbol is not None and SYMBOL.fullmatch(symbol):
                yield symbol, name


def _is_axes(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(axis, int) for axis in value)


def _fed(
    program: onnx_ir.Model, stage: Stage
) -> Sequence[tuple[onnx_ir.Value | None, torch.Tensor]]:
    """Return the graph's input for each tensor of the stage's, None where it reads it not."""
    from transformers.exporters.utils import get_leaf_tensors

    found = {
        cast("str", value.name).removeprefix("input."): value for value in program.graph.inputs
    }
    leaves = get_leaf_tensors(dict(stage.inputs))
    return [(found.get(path), tensor) for path, tensor in leaves.items()]


def _values(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Value]:
    yield from graph.inputs
    for node in graph.all_nodes():
        yield from node.outputs


def serialised(
    program: onnx_ir.Model, weights: Iterable[str], props: Mapping[str, object]
) -> bytes:
    """Return a graph as bytes.

    Args:
        program: the graph; it loses its weights.
        weights: the initialisers whose numbers are elsewhere.
        props: properties of the graph, which are kept as JSON.
    """
    import onnx_ir

    for name in weights:
        del program.graph.initializers[name]
    program.metadata_props.update({key: json.dumps(value) for key, value in props.items()})
    program.producer_name, program.producer_version = PRODUCER, __version__
    data: bytes = onnx_ir.to_proto(program).SerializeToString()
    return data
