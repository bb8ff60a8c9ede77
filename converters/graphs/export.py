"""A canonical model as graphs that ONNX Runtime runs, with tensors that are streamed into them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.canonical import TORCH_NAMES
from weighbridge.converters.graphs import linking, seams
from weighbridge.converters.graphs.folding import Style, Turn
from weighbridge.converters.graphs.writer import Writer
from weighbridge.encoding import Blocked, Scaled, dense
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.graph import MANIFEST

if TYPE_CHECKING:
    from weighbridge.converters.graphs.quantized import Choice
    from weighbridge.dialect import DialectOptions
    from weighbridge.model import Model
    from weighbridge.report import Report

DTYPES = ("float32", "float16", "bfloat16")
"""What graphs compute in."""

PROVIDERS = ("cpu", "cuda")
"""The execution providers whose own operators graphs may use."""

DECODED = "none"
"""The name of no way to keep quantised weights."""


def export(model: Model, report: Report, options: DialectOptions) -> Model:
    """Return a canonical model as graphs; no weight is read.

    What is wrong with the model is reported; see `weighbridge.dialect.Dialect`.
    """
    exported = replace(model, dialect="onnx", tensors={}, metadata={}, graph=None)
    with report.collect():
        seams.check_installed()
        _check(model, options)
        _fill(exported, model, report, options)
    return exported


def _check(model: Model, options: DialectOptions) -> None:
    """Refuse what makes no sense, before anything is traced.

    Raises:
        Unsupported: (rule ``no-config``) for a model that does not say what it is.
        InvalidInput: (rules ``dtype``, ``fuse``) for an option that cannot be.
    """
    if model.config is None:
        raise Unsupported(
            "holds weights alone, and no graph can be made without a config",
            rule="no-config",
            path=model.path,
            hint="open the directory that it is in; or write a file, which holds weights alone",
        )
    fuse = options.graph.fuse
    if fuse not in (None, *PROVIDERS):
        raise _unknown("fuse", fuse, PROVIDERS)
    if _dtype(options) not in DTYPES:
        raise _unknown("dtype", options.dtype, DTYPES)


def _unknown(rule: str, got: object, known: tuple[str, ...]) -> InvalidInput:
    expected = f"one of {', '.join(known)}"
    return InvalidInput(f"no graph has this {rule}", rule=rule, got=got, expected=expected)


def _dtype(options: DialectOptions) -> str:
    name = dense(options.dtype or "float32").name
    return TORCH_NAMES.get(name, name)


def _fill(exported: Model, model: Model, report: Report, options: DialectOptions) -> None:
    """Trace a model, and give the graphs and what they read to the one that is to be written."""
    from weighbridge.converters.graphs.skeleton import skeleton
    from weighbridge.converters.graphs.tasks import class_for, task_of
    from weighbridge.transformers import directory_of

    choice = _choice(model, options)
    link = linking.check_place(model, options.target) if options.graph.link else None
    style = _style(options, quantized=choice is not None)
    task = task_of(model, options.graph.task)
    with directory_of(model) as place:
        made = skeleton(model, place, class_for(task, model), _dtype(options))
    writer = Writer(model.tensors, made, style, report, choice=choice, link=link)
    stages = task.stages(made.module, model)
    exported.components = tuple(writer.component(stage) for stage in stages)
    exported.tensors = writer.tensors
    exported.linked = link is not None
    exported.files = {MANIFEST: writer.manifest(task.name), **({} if link else model.files)}
    names = ", ".join(f"{stage.name}.onnx" for stage in stages)
    report.note("generated", names, f"traced from {type(made.module).__name__} for {task.name}")
    report.note("generated", names, writer.versions)
    writer.note_unread()


def _choice(model: Model, options: DialectOptions) -> Choice | None:
    """Return how weights are quantised or stay so, None where all of them are numbers."""
    from weighbridge.converters.graphs.quantized import Choice

    kept = options.graph.kept or Choice().aim
    choice = Choice.of(options.quantize, Choice().aim if kept == DECODED else kept)
    held = (leaf.encoding for tensor in model.tensors.values() for leaf in tensor.leaves())
    blocks = any(isinstance(encoding, Blocked | Scaled) for encoding in held)
    if options.quantize is None and (not blocks or kept == DECODED):
        return None
    if options.graph.link:
        raise InvalidInput("weights that are linked stay as they are", rule="options")
    return choice


def _style(options: DialectOptions, *, quantized: bool) -> Style:
    if options.graph.link:
        return Style(options.graph.fuse, Turn.NEVER)
    if quantized:
        return Style(options.graph.fuse, Turn.ALWAYS)
    return Style(options.graph.fuse, Turn.ALONE, pack=options.graph.fuse is not None)
