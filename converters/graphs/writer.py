"""The components of one target, their tensors, and what is said of them beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from weighbridge.converters.graphs import linking
from weighbridge.converters.graphs.quantized import InBlocks, quantize
from weighbridge.converters.graphs.tracing import serialised, traced
from weighbridge.encoding import DENSE
from weighbridge.graph import OURS, PARTS_OF, PROPERTY
from weighbridge.model import Component, Reading
from weighbridge.recode import recode
from weighbridge.sidefiles import dump_json

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

    import onnx_ir

    from weighbridge.converters.graphs.expressions import Made, Named
    from weighbridge.converters.graphs.folding import Style
    from weighbridge.converters.graphs.quantized import Choice
    from weighbridge.converters.graphs.skeleton import Skeleton
    from weighbridge.converters.graphs.stages import Stage
    from weighbridge.converters.graphs.tracing import Traced
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

SCHEMA = 1
"""The version of its form that is written."""


class Writer:
    """Makes the components of one target, and collects their tensors, each of them once.

    Attributes:
        tensors: what the components read, by the names that they have in the plan.
        versions: which IR and operator sets the graphs are of, in words.
    """

    def __init__(
        self,
        source: Mapping[str, Lazy],
        made: Skeleton,
        style: Style,
        report: Report,
        *,
        choice: Choice | None,
        link: Path | None,
    ) -> None:
        """Start with no component.

        Args:
            source: the checkpoint's tensors.
            made: the model that stages are parts of.
            style: what the graphs are to look like.
            report: is told what becomes of quantised weights.
            choice: how weights are quantised, None: not at all.
            link: the directory in whose files weights may stay, None: in none.
        """
        self.tensors: dict[str, Lazy] = {}
        self.versions = ""
        self._source = source
        self._made = made
        self._style = style
        self._report = report
        self._choice = choice
        self._link = link
        self._names: dict[Hashable, str] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._read: set[str] = set()

    def component(self, stage: Stage) -> Component:
        """Trace a stage, and return it with its weights among the tensors."""
        graph = traced(stage, self._made, self._style)
        weights = self._stored(graph)
        named = graph.weights if self._choice is None else weights
        said = {name: _said(name, graph.weights) for name in named}
        program = graph.program
        readings = {name: self._reading(name, stage, each) for name, each in weights.items()}
        file = f"{stage.name}.onnx"
        self._entries[stage.name] = {"file": file, "metadata": dict(graph.metadata)}
        self.versions = _versions(program)
        return Component(stage.name, serialised(program, weights, {PROPERTY: said}), readings)

    def manifest(self, task: str) -> bytes:
        """Return the file that lists the components, as `transformers` reads it."""
        return dump_json(
            {
                "schema_version": SCHEMA,
                "export_format": "onnx",
                "components": self._entries,
                OURS: {"task": task},
            }
        )

    def note_unread(self) -> None:
        """Report the checkpoint's tensors that no component reads."""
        for name in self._source:
            if name not in self._read:
                self._report.note("dropped", name, "no graph reads it")

    def _stored(self, graph: Traced) -> dict[str, Lazy]:
        """Return the tensors that are written, by the initialisers that they are."""
        for each in graph.weights.values():
            self._read.update(each.leaves())
        weights = {name: each.lazy(self._source) for name, each in graph.weights.items()}
        if self._choice is not None:
            return quantize(graph.program, weights, self._choice, self._report)
        if self._link is not None:
            weights = linking.link(graph.program, weights, self._link)
        return {name: _typed(graph.program, name, each) for name, each in weights.items()}

    def _reading(self, name: str, stage: Stage, tensor: Lazy) -> Reading:
        """Keep a tensor, unless it is kept already, and return how it is read."""
        stored = tensor.inner if isinstance(tensor, InBlocks) else tensor
        if stored not in self._names:
            free = name if name not in self.tensors else f"{stage.name}.{name}"
            self._names[stored] = free
            self.tensors[free] = stored
        return Reading(self._names[stored], tensor.shape)


def _said(name: str, weights: Mapping[str, Named | Made]) -> object:
    """Return what is noted of an initialiser: what it is made of, or whose part it is.

    Parts of a weight that is stored quantised are called by its name and what they are.
    """
    if name in weights:
        return weights[name].to_json()
    whole = max((each for each in weights if name.startswith(f"{each}.")), key=len, default="")
    named = weights[whole].leaves() if whole else ()
    return {PARTS_OF: " and ".join(named)}


def _typed(program: onnx_ir.Model, name: str, tensor: Lazy) -> Lazy:
    """Return a tensor in the dtype that the graph reads it in."""
    from weighbridge.tensor import dense_of

    dtype = cast("onnx_ir.DataType", program.graph.initializers[name].dtype)
    return recode(tensor, DENSE[dense_of(dtype.numpy()).name])


def _versions(program: onnx_ir.Model) -> str:
    sets = ", ".join(
        f"{domain or 'ai.onnx'} {number}"
        for domain, number in sorted(program.opset_imports.items())
    )
    return f"IR version {program.ir_version}, operator sets {sets}"
