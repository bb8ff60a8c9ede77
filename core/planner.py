"""From a model and a wish to a plan, out of headers alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from weighbridge import kernels, registry
from weighbridge.canonical import canonical
from weighbridge.dialect import DialectOptions
from weighbridge.encoding import DENSE, Dense, Encoding, dense, is_float
from weighbridge.errors import Error, InvalidInput, Unsupported
from weighbridge.layout import Layout, LayoutOptions
from weighbridge.recode import recode
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
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from weighbridge.format import Format
    from weighbridge.layout import Slot
    from weighbridge.model import Model
    from weighbridge.tensor import Lazy

IN_MEMORY = "memory"
"""What the format of a model is called that no file holds."""

WIDER = {True: ("bf16", "f16", "f32", "f64"), False: ("i8", "i16", "i32", "i64")}
"""What numbers become, without loss, in a format that lacks their encoding: floats, and others."""


@dataclass(frozen=True)
class Wish:
    """What the user asks of a conversion.

    Attributes:
        to: the target format's name; None reads it off the target.
        dtype: the dense type of every tensor of floating-point numbers.
        quantize: the encoding of the weight matrices, as the target's dialect lays it out. With
            `weights_only`, of all that have two axes or more and whose rows are whole blocks.
        weights_only: move tensors under their own names, without config, tokenizer or family.
        overwrite: whether an existing target may be replaced.
        layout: the target's shape on disk.
        pre_tokenizer: the pre-tokenizer's name, where it is not to be recognised.
    """

    to: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    weights_only: bool = False
    overwrite: bool = False
    layout: LayoutOptions = field(default_factory=LayoutOptions)
    pre_tokenizer: str | None = None


def make_plan(source: Model, target: Path, wish: Wish) -> Plan:
    """Return the plan that writes `source` to `target`; what is wrong is in the plan.

    Raises:
        InvalidInput: for a wish that makes no sense whatever the model.
        Unsupported: (rule ``encoding-unsupported``) for an encoding that the format does not have.
    """
    container = target_format(target, wish.to)
    wanted = wanted_encoding(wish)
    if wanted and wanted.name not in container.encodings:
        raise _not_storable(container, wanted)
    report = Report()
    model = _translated(source, container, target, wish, report)
    model = _encoded(model, container, wanted, wish, report)
    _note_losses(model, container, wish, report)
    layout = _layout(model, container, target, wish, report)
    replaces = _check_target(source, target, container, layout, wish, report)
    return Plan(
        source=source,
        target=target,
        format=container.name,
        directory=container.directory,
        replaces=replaces,
        model=model,
        layout=layout,
        steps=_steps(model, layout),
        problems=tuple(_located(report.problems, source)),
        notes=tuple(report.notes),
    )


def target_format(target: Path, to: str | None) -> Format:
    """Return the format that a target is to have, by its name, its suffix, or as a directory.

    Raises:
        InvalidInput: (rule ``target-format``) when neither tells.
    """
    formats = registry.formats()
    to = to.lower() if to else None
    by_suffix = [f for f in formats.values() if target.suffix.lower() in f.suffixes]
    directories = [f for f in formats.values() if f.directory]
    if to is None:
        chosen = by_suffix or (directories if not target.suffix or target.is_dir() else [])
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


def wanted_encoding(wish: Wish) -> Encoding | None:
    """Return the encoding that ``dtype`` or ``quantize`` names.

    Raises:
        InvalidInput: (rule ``options``) when both are given, (rule ``encoding``) for no such dtype.
        Unsupported: (rule ``unknown-encoding`` or ``no-encoder``) for one that cannot be written.
    """
    if wish.dtype and wish.quantize:
        raise InvalidInput("give a dtype or a quantisation, not both", rule="options")
    if wish.dtype:
        return _of_weights(dense(wish.dtype), wish.dtype)
    if wish.quantize:
        codec = kernels.codec_for(wish.quantize.lower())
        if codec.encode is None:
            raise Unsupported(f"{codec.encoding} can be decoded but not encoded", rule="no-encoder")
        return _of_weights(codec.encoding, wish.quantize)
    return None


def _of_weights(encoding: Encoding, name: str) -> Encoding:
    if not is_float(encoding):
        raise InvalidInput("is not a dtype of weights", rule="encoding", got=name)
    return encoding


def _translated(
    source: Model, container: Format, target: Path, wish: Wish, report: Report
) -> Model:
    if wish.weights_only:
        if source.config or source.files:
            report.note("dropped", "config and side files", "only the weights are moved")
        return _with_metadata(replace(source, config=None, files={}), container, report)
    if source.dialect == container.dialect:
        return _with_metadata(source, container, report)
    middle = canonical(source, report)
    options = DialectOptions(_name_of(source, target), wish.pre_tokenizer)
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


def _encoded(
    model: Model, container: Format, wanted: Encoding | None, wish: Wish, report: Report
) -> Model:
    dialect = registry.dialect(container.dialect)
    tensors: dict[str, Lazy] = {}
    for name, tensor in model.tensors.items():
        asked = _asked(tensor, wanted, wish)
        with report.collect(name):
            if wish.weights_only:
                encoding = asked or tensor.encoding
            else:
                encoding = dialect.encoding(name, tensor, asked)
            tensors[name] = recode(tensor, _storable(tensor, encoding, asked, container))
    _note_changes(model.tensors, tensors, report)
    recoded = replace(model, tensors=tensors)
    return recoded if wish.weights_only else dialect.complete(recoded)


def _asked(tensor: Lazy, wanted: Encoding | None, wish: Wish) -> Encoding | None:
    """Return what the user asks of one tensor."""
    if wanted is None or not is_float(tensor.encoding):
        return None
    matrix = tensor.ndim > 1 and wanted.fits(tensor.shape)
    return wanted if matrix or not (wish.quantize and wish.weights_only) else None


def _storable(
    tensor: Lazy, encoding: Encoding, asked: Encoding | None, container: Format
) -> Encoding:
    """Return `encoding` if the container has it, else the smallest that holds the same numbers."""
    if encoding.name in container.encodings:
        encoding.sizes(tensor.shape)
        return encoding
    if encoding != asked:
        for wider in (DENSE[candidate] for candidate in WIDER[is_float(encoding)]):
            if wider.name in container.encodings and _keeps(encoding, wider):
                return wider
    raise _not_storable(container, encoding)


def _keeps(encoding: Encoding, wider: Encoding) -> bool:
    """Tell whether every number is kept: those of blocks are float32 by definition."""
    blocks = wider == DENSE["f32"] and not isinstance(encoding, Dense)
    return blocks or kernels.lossless(encoding, wider)


def _not_storable(container: Format, encoding: Encoding) -> Unsupported:
    return Unsupported(
        f"{container.title} cannot store {encoding}",
        rule="encoding-unsupported",
        hint="choose another with --dtype",
    )


def _note_changes(before: Mapping[str, Lazy], after: Mapping[str, Lazy], report: Report) -> None:
    changes: Counter[tuple[str, str]] = Counter()
    for name, tensor in after.items():
        old, new = before[name].encoding, tensor.encoding
        kept = getattr(tensor, "exact", False) or _keeps(old, new)
        if old != new:
            changes["decoded" if kept else "rounded", f"{old} to {new}"] += 1
    for (kind, change), count in sorted(changes.items()):
        effect = "every number is kept" if kind == "decoded" else "numbers are rounded"
        report.note(kind, counted(count, "tensor"), f"{change}: {effect}")


def _note_losses(model: Model, container: Format, wish: Wish, report: Report) -> None:
    if model.graph and model.graph.nodes:
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
    container: Format,
    layout: Layout | None,
    wish: Wish,
    report: Report,
) -> frozenset[Path]:
    """Report what is wrong with the target, and return what is replaced there."""
    known = layout or Layout((), {})
    directory = container.directory
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
