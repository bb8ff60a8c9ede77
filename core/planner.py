"""From a model and a wish to a plan, out of headers alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge import registry
from weighbridge.canonical import canonical
from weighbridge.choose import Wanted, encoded
from weighbridge.dialect import DialectOptions
from weighbridge.errors import Error, InvalidInput
from weighbridge.layout import Layout
from weighbridge.model import HUGGING_FACE
from weighbridge.packing import settings_of
from weighbridge.report import Report
from weighbridge.steps import Plan, Step
from weighbridge.target import (
    check_names,
    check_place,
    check_replaceable,
    check_source,
    check_space,
)
from weighbridge.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from weighbridge.format import Format
    from weighbridge.layout import Slot
    from weighbridge.model import Model
    from weighbridge.wish import Wish

IN_MEMORY = "memory"
"""What the format of a model is called that no file holds."""


def make_plan(source: Model, target: Path, wish: Wish) -> Plan:
    """Return the plan that writes `source` to `target`; what is wrong is in the plan.

    Raises:
        InvalidInput: for a wish that makes no sense whatever the model.
        Unsupported: (rule ``encoding-unsupported``) for an encoding that the format does not have.
    """
    container = target_format(target, wish.to)
    check_graph_wish(wish, container)
    wanted = Wanted.of(wish, container)
    report = Report()
    model = _translated(source, container, target, wish, report)
    model = encoded(model, container, wanted, report)
    _note_losses(model, container, wish, report)
    layout = _layout(model, container, target, wish, report)
    place, directory = _place(target, container, layout, model)
    replaces = _check_target(source, place, directory, container, layout, wish, report)
    return Plan(
        source=source,
        target=place,
        format=container.name,
        directory=directory,
        replaces=replaces,
        model=model,
        layout=layout,
        steps=_steps(model, layout),
        problems=tuple(_located(report.problems, source)),
        notes=tuple(report.notes),
    )


def check_graph_wish(wish: Wish, container: Format) -> None:
    """Refuse what is said of graphs for a target that has none.

    Raises:
        InvalidInput: (rule ``options``).
    """
    said = [name for name, value in vars(wish.graph).items() if value]
    if said and registry.dialect(container.dialect).universal:
        raise InvalidInput(
            f"{container.title} holds no graph that could be made so",
            rule="options",
            got=", ".join(said),
            hint="name a directory as the target, with --to onnx",
        )


def _place(
    target: Path, container: Format, layout: Layout | None, model: Model
) -> tuple[Path, bool]:
    """Return what is written: a directory of files, or the first of several beside each other."""
    if model.linked and layout:
        return target / layout.files[-1].name, False
    return target, container.directory


def target_format(target: Path, to: str | None) -> Format:
    """Return the format that a target is to have, by its name, its suffix, or as a directory.

    Raises:
        InvalidInput: (rule ``target-format``) when neither tells.
    """
    formats = registry.formats()
    to = to.lower() if to else None
    by_suffix = [f for f in formats.values() if target.suffix.lower() in f.suffixes]
    directories = [f for f in formats.values() if f.directory]
    usual = [f for f in directories if f.dialect == HUGGING_FACE]
    if to is None:
        chosen = by_suffix or (usual if not target.suffix or target.is_dir() else [])
    else:
        named = [formats[to]] if to in formats else []
        spread = [f for f in directories if to == f.weights and not by_suffix]
        chosen = spread or named
    if len(chosen) == 1:
        return chosen[0]
    raise InvalidInput(
        "cannot tell which format is to be written",
        rule="target-format",
        path=target,
        got=to or target.suffix,
        expected=f"one of {', '.join(sorted(formats))}",
        hint="use --to",
    )


def _translated(
    source: Model, container: Format, target: Path, wish: Wish, report: Report
) -> Model:
    if wish.weights_only:
        if source.config or source.files:
            report.note("dropped", "config and side files", "only the weights are moved")
        return _with_metadata(replace(source, config=None, files={}), container, report)
    if source.dialect == container.dialect:
        packed = wish.recodes and settings_of(source)
        return _with_metadata(canonical(source, report) if packed else source, container, report)
    middle = canonical(source, report)
    options = DialectOptions(
        name=_name_of(source, target),
        pre_tokenizer=wish.pre_tokenizer,
        dtype=wish.dtype,
        quantize=wish.quantize,
        graph=wish.graph,
        target=target,
    )
    return registry.dialect(container.dialect).from_canonical(middle, report, options)


def _with_metadata(source: Model, container: Format, report: Report) -> Model:
    """Return the model without the key-values that mean something to its own container only."""
    formats = registry.formats()
    own = {source.format, formats[source.format].weights if source.format in formats else None}
    if (
        not source.metadata
        or source.format == IN_MEMORY
        or own & ({container.name, container.weights} - {None})
    ):
        return source
    count = counted(len(source.metadata), "key-value")
    report.note("dropped", "metadata", f"{count} of {source.format}")
    return replace(source, metadata={})


def _name_of(source: Model, target: Path) -> str:
    path = source.path or target
    return path.resolve().name if path.is_dir() else path.stem


def _note_losses(model: Model, container: Format, wish: Wish, report: Report) -> None:
    if model.graph and model.graph.nodes and not model.components:
        count = sum(model.graph.nodes.values())
        report.note("dropped", "graph", f"{count} nodes: only the weights are converted")
    if wish.weights_only or container.carries_files or container.dialect != model.dialect:
        return
    lost = [*(["config.json"] if model.config else []), *model.files]
    for name in lost:
        report.note("dropped", name, f"{container.title} has no place for it")


def _layout(
    model: Model, container: Format, target: Path, wish: Wish, report: Report
) -> Layout | None:
    layout = None
    if not report.problems:
        with report.collect():
            layout = container.layout(model, target.name, wish.layout)
    return layout


def _steps(model: Model, layout: Layout | None) -> tuple[Step, ...]:
    slots: dict[str, dict[str, Slot]] = {name: {} for name in model.tensors}
    for (name, part), slot in (layout.slots if layout else {}).items():
        slots[name][part] = slot
    return tuple(Step(name, tensor, slots[name]) for name, tensor in model.tensors.items())


def _check_target(
    source: Model,
    target: Path,
    directory: bool,
    container: Format,
    layout: Layout | None,
    wish: Wish,
    report: Report,
) -> frozenset[Path]:
    """Report what is wrong with the target, and return what is replaced there."""
    known = layout or Layout((), {})
    replaces: frozenset[Path] = frozenset()
    with report.collect():
        check_place(target)
        with report.collect():
            check_names(known, directory=directory)
        with report.collect():
            check_source(target, known, source, directory=directory)
        with report.collect():
            replaces = check_replaceable(
                target,
                known,
                directory=directory,
                overwrite=wish.overwrite,
                endings=_weight_endings(container) if layout else ("",),
            )
        check_space(target, known)
    return replaces


def _weight_endings(container: Format) -> tuple[str, ...]:
    """Return how the names of weight files in a directory end, and of their indices."""
    suffixes = registry.formats()[container.weights].suffixes if container.weights else ()
    return (*suffixes, *(f"{suffix}.index.json" for suffix in suffixes))


def _located(problems: Iterable[Error], source: Model) -> Iterable[Error]:
    for problem in problems:
        if problem.path is None and source.path is not None:
            problem.path = str(source.path)
        yield problem
