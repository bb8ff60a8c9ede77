"""The places in torch's and transformers' exporters that are taken hold of.

All that change what comes out are here; those that are for speed alone are in `shortcuts`.

They are private, and were proven with the versions of `PROVEN`. Between them flows an `onnx_ir`
graph: before its optimiser sees the graph, initialisers that stand for weights lose their values
(else it would compute with them, and merge those that look alike) and are tagged.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from weighbridge.converters.graphs import folding, shortcuts
from weighbridge.converters.graphs.quiet import quiet
from weighbridge.converters.graphs.shortcuts import replaced
from weighbridge.errors import MissingDependency, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir
    from transformers.exporters.metadata import ExportMetadata

    from weighbridge.converters.graphs.expressions import Made, Named
    from weighbridge.converters.graphs.folding import Style, Turn
    from weighbridge.converters.graphs.stages import Stage

PROVEN = {"torch": "2.13", "transformers": "5.23", "onnxscript": "0.7"}
"""The versions of which every seam is known."""

PACKAGES = ("torch", "transformers", "onnx", "onnx_ir", "onnxscript")

PACKING = "_pack_sibling_matmuls"
"""The step of the fusions that computes with weights; it is replaced."""


def check_installed() -> None:
    """Refuse to start without the packages, or with others than the seams are in.

    Raises:
        MissingDependency: with the package as its rule.
        Unsupported: (rule ``exporter-version``) where a seam is missing.
    """
    from importlib.util import find_spec

    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingDependency(
                f"{package} is not installed, which graphs are made with",
                rule=package,
                hint="pip install 'weighbridge[onnx]'",
            )
    if not _seams_are_there():
        found = ", ".join(f"{package} {version(package)}" for package in PROVEN)
        raise Unsupported(
            "the exporters that are installed are not those that are known",
            rule="exporter-version",
            got=found,
            expected=", ".join(f"{package} {number}" for package, number in PROVEN.items()),
        )


def _seams_are_there() -> bool:
    try:
        import onnxscript.optimizer
        from transformers.exporters import onnxruntime_fusions
        from transformers.exporters.exporter_onnx import OnnxExporter
    except ImportError:
        return False
    steps = getattr(onnxruntime_fusions, "_STEPS", ())
    packs = any(step is getattr(onnxruntime_fusions, PACKING, None) for step, _ in steps)
    return (
        packs
        and shortcuts.are_there()
        and all(
            hasattr(owner, name)
            for owner, name in (
                (onnxscript.optimizer, "optimize_ir"),
                (OnnxExporter, "export_program"),
            )
        )
    )


def exported(
    stage: Stage,
    shapes: Mapping[str, Any],
    expressions: Mapping[int, Named | Made],
    style: Style,
) -> tuple[onnx_ir.Model, ExportMetadata]:
    """Trace a stage, with its weights tagged and out of the optimiser's sight.

    Args:
        stage: what is traced.
        shapes: the axes that vary, as ``torch.export`` takes them.
        expressions: the address of a weight's storage -> what it stands for.
        style: what the graph is to look like.

    Returns:
        The graph, in which each weight has a tag and no value, and what transformers records of it.
    """
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    config = OnnxConfig(
        dynamic=True,
        dynamic_shapes=dict(shapes),
        prefer_deferred_runtime_asserts_over_guards=True,
        ort_fusions=cast("Any", style.fuse),
    )
    with (
        quiet(),
        shortcuts.shortcuts(),
        _hidden(expressions, style.turn),
        _packing(pack=style.pack),
    ):
        exporter: Any = OnnxExporter()  # type: ignore[no-untyped-call]
        program, metadata = exporter.export_program(stage.module, dict(stage.inputs), config)
        return program, metadata


@contextlib.contextmanager
def _hidden(expressions: Mapping[int, Named | Made], turn: Turn) -> Iterator[None]:
    import onnxscript.optimizer

    original = onnxscript.optimizer.optimize_ir

    def optimize(program: onnx_ir.Model, *arguments: Any, **options: Any) -> Any:
        _hide(program, expressions)
        result = original(program, *arguments, **options)
        folding.fold_transposes(program, turn)
        return result

    with replaced(onnxscript.optimizer, "optimize_ir", optimize):
        yield


def _hide(program: onnx_ir.Model, expressions: Mapping[int, Named | Made]) -> None:
    import onnx_ir

    for value in program.graph.initializers.values():
        held = getattr(value.const_value, "raw", None)
        address = _address(held)
        if held is not None and address is not None and address in expressions:
            value.shape = onnx_ir.Shape(list(held.shape))
            value.dtype = value.const_value.dtype  # type: ignore[union-attr]
            value.const_value = None
            folding.tag(value, expressions[address])


def _address(held: Any) -> int | None:
    import torch

    return held.untyped_storage().data_ptr() if isinstance(held, torch.Tensor) else None


@contextlib.contextmanager
def _packing(*, pack: bool) -> Iterator[None]:
    """Have sibling matrices packed by tags instead of values, or not at all."""
    from transformers.exporters import onnxruntime_fusions as fusions

    theirs = getattr(fusions, PACKING)
    steps = tuple(
        (folding.pack_siblings if step is theirs else step, providers)
        for step, providers in fusions._STEPS
        if pack or step is not theirs
    )
    with replaced(fusions, "_STEPS", steps):
        yield
