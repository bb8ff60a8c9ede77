"""What the command prints: for people as text and tables, for programs as JSON."""

from __future__ import annotations

import math
import sys
import textwrap
from collections import Counter
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import typer

from weighbridge import registry
from weighbridge.errors import escaped, printable
from weighbridge.metadata import Value
from weighbridge.packing import settings_of
from weighbridge.sizes import human
from weighbridge.text import columns, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from weighbridge.agreement import Answer, Verification
    from weighbridge.candidates import Candidate, QuantizeErrors
    from weighbridge.compare import Difference
    from weighbridge.engine.write import Result
    from weighbridge.model import Model
    from weighbridge.steps import Plan

    Tell = Callable[[str, int, int], None]

SHOWN_ITEMS = 4
"""Items of a long array that are shown."""

LINE = 79
"""Columns of a line that is broken or overwritten."""


def print_lines(lines: Sequence[str]) -> None:
    """Print lines as they are: without colour, and without cutting them to a width."""
    typer.echo("\n".join(lines))


def encodings_of(model: Model) -> list[tuple[str, int, int, int]]:
    """Return (encoding, tensors, values, bytes), the largest first."""
    tensors: Counter[str] = Counter()
    values: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in model.tensors.values():
        name = str(tensor.encoding)
        tensors[name] += 1
        values[name] += tensor.size
        sizes[name] += tensor.nbytes
    return [(name, tensors[name], values[name], size) for name, size in sizes.most_common()]


def shortened(value: Value) -> str:
    """Return a key-value's data in one line.

    Example:
        >>> from weighbridge.metadata import array
        >>> shortened(array("u32", [1, 2, 3, 4, 5, 6]))
        '[1, 2, 3, 4, … 6 items]'
    """
    if value.type != "array":
        return printable(value.data, 120)
    items = [
        shortened(item) if isinstance(item, Value) else printable(repr(item), 40)
        for item in value.data[:SHOWN_ITEMS]  # type: ignore[index]
    ]
    count = len(value.data)  # type: ignore[arg-type]
    return f"[{', '.join(items)}{f', … {count} items' if count > SHOWN_ITEMS else ''}]"


def print_model(model: Model, *, tensors: bool) -> None:
    """Print what a model holds."""
    print_lines([_headline(model), "", *_encodings(model)])
    for title, lines in _sections(model, tensors=tensors).items():
        if lines:
            print_lines(["", f"{title}:", *(f"  {line}" for line in lines)])


def _headline(model: Model) -> str:
    values = sum(tensor.size for tensor in model.tensors.values())
    formats = registry.formats()
    title = formats[model.format].title if model.format in formats else model.format
    path = escaped(model.path or "memory")
    tensors = counted(len(model.tensors), "tensor")
    return f"{path}: {title}, {tensors}, {counted(values, 'value')}, {human(model.nbytes)}"


def _encodings(model: Model) -> list[str]:
    rows = [
        (name, f"{count:,}", f"{values:,}", human(size))
        for name, count, values, size in encodings_of(model)
    ]
    return columns([("encoding", "tensors", "values", "size"), *rows], right=[1, 2, 3])


def _sections(model: Model, *, tensors: bool) -> Mapping[str, list[str]]:
    config = model.config or {}
    classes = config.get("architectures")
    names = classes if isinstance(classes, list) else [config.get("model_type", "unknown")]
    packed = settings_of(model)
    return {
        "metadata": [_key_value(key, value) for key, value in model.metadata.items()],
        "architecture": [", ".join(map(printable, names))] if model.config else [],
        "quantised": [printable(packed.get("quant_method"))] if packed else [],
        "graph": _graph(model),
        "side files": _wrapped([printable(name) for name in model.files]),
        "tensors": _tensors(model) if tensors else [],
    }


def _key_value(key: str, value: Value) -> str:
    kind = f"{value.items}[]" if value.items else value.type
    return f"{printable(key)} ({kind}) = {shortened(value)}"


def _graph_json(model: Model) -> dict[str, Any] | None:
    graph = model.graph
    if graph is None:
        return None
    return {"nodes": graph.nodes, "inputs": graph.inputs, "outputs": graph.outputs}


def _graph(model: Model) -> list[str]:
    if model.graph is None or not model.graph.nodes:
        return []
    nodes = ", ".join(
        f"{count} {printable(name)}"
        for name, count in sorted(model.graph.nodes.items(), key=lambda item: -item[1])
    )
    ends = {"inputs": model.graph.inputs, "outputs": model.graph.outputs}
    return [
        *_wrapped([f"nodes: {nodes}"]),
        *(f"{end}: {', '.join(map(printable, names))}" for end, names in ends.items()),
    ]


def _wrapped(words: Sequence[str]) -> list[str]:
    return textwrap.wrap(", ".join(words), LINE - 2, break_on_hyphens=False, break_long_words=False)


def _tensors(model: Model) -> list[str]:
    rows = [
        (
            printable(name),
            "x".join(map(str, tensor.shape)) or "scalar",
            str(tensor.encoding),
            human(tensor.nbytes),
        )
        for name, tensor in model.tensors.items()
    ]
    return columns(rows, right=[3])


def model_json(model: Model, *, tensors: bool) -> dict[str, Any]:
    """Return what a model holds; the keys are stable across versions."""
    document = {
        "path": str(model.path),
        "format": model.format,
        "dialect": model.dialect,
        "tensors": len(model.tensors),
        "bytes": model.nbytes,
        "encodings": [
            {"encoding": name, "tensors": count, "values": total, "bytes": size}
            for name, count, total, size in encodings_of(model)
        ],
        "metadata": {
            key: {"type": value.type, "items": value.items, "value": _json_value(value)}
            for key, value in model.metadata.items()
        },
        "config": model.config,
        "files": list(model.files),
        "graph": _graph_json(model),
    }
    if tensors:
        document["tensor_list"] = [
            {
                "name": name,
                "shape": list(tensor.shape),
                "encoding": tensor.encoding.name,
                "bytes": tensor.nbytes,
            }
            for name, tensor in model.tensors.items()
        ]
    return document


def _json_value(value: Value) -> Any:
    """Return a scalar, or a long array's length: token arrays would drown the rest."""
    if value.type == "array" and len(value.data) > 64:  # type: ignore[arg-type]
        return {"length": len(value.data)}  # type: ignore[arg-type]
    return value.plain()


def finite(document: Any) -> Any:
    """Return a JSON document with the numbers that JSON does not have as strings.

    Example:
        >>> finite({"scale": [1.0, float("nan")]})
        {'scale': [1.0, 'nan']}
    """
    if isinstance(document, dict):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    return (
        str(document) if isinstance(document, float) and not math.isfinite(document) else document
    )


def print_plan(plan: Plan) -> None:
    """Print what a conversion will do."""
    print_lines([str(plan)])


def print_result(plan: Plan, result: Result) -> None:
    """Print what a conversion did."""
    speed = human(result.bytes / max(result.seconds, 1e-9))
    routes: Counter[str] = Counter()
    for route, _, _, count, _ in plan.routes():
        routes[route] += count
    done = ", ".join(f"{counted(count, 'tensor')} by {route}" for route, count in routes.items())
    print_lines(
        [
            *map(str, plan.notes),
            f"{escaped(result.target)}: {human(result.bytes)} in {result.seconds:.2f} s "
            f"({speed}/s), {done or 'no tensors'}",
        ]
    )


def result_json(plan: Plan, result: Result) -> dict[str, Any]:
    """Return what a conversion did."""
    return {
        **plan.to_json(),
        "bytes": result.bytes,
        "seconds": result.seconds,
    }


@contextmanager
def waiting(title: str, *, shown: bool) -> Iterator[None]:
    """Show on a terminal that something goes on that may take seconds, if it is to be shown."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(title) if shown and console.is_terminal else nullcontext():
        yield


@contextmanager
def counter(title: str) -> Iterator[Tell | None]:
    """Give a function that shows how far a long task is, on a terminal; else None."""
    out = sys.stderr
    if not out.isatty():
        yield None
        return

    def tell(name: str, number: int, total: int) -> None:
        line = f"{title} {number + 1}/{total} {printable(name, 50)}"
        out.write(f"\r{line[:LINE]:<{LINE}}")
        out.flush()

    try:
        yield tell
    finally:
        out.write(f"\r{'':<{LINE}}\r")


def print_diff(found: Sequence[Difference], tolerance: float) -> None:
    """Print the tensors that differ, and how many are equal."""
    rows = [
        (printable(difference.name), *difference.encodings, *_figures(difference))
        for difference in found
        if not difference.equal
    ]
    if rows:
        title = ("tensor", "A", "B", "max error", "RMS error", "SNR dB")
        print_lines([*columns([title, *rows], right=[3, 4, 5]), ""])
    failed = sum(not difference.within(tolerance) for difference in found)
    print_lines(
        [
            f"{counted(len(found), 'tensor')}: {len(found) - len(rows)} equal, {len(rows)} differ, "
            f"{failed} by more than {tolerance:g}"
        ]
    )


def _figures(difference: Difference) -> tuple[str, ...]:
    if difference.problem:
        return (difference.problem,)
    return (
        f"{difference.max_error:.3g}",
        f"{difference.rms_error:.3g}",
        f"{difference.snr:.1f}",
    )


def diff_json(found: Sequence[Difference], tolerance: float) -> dict[str, Any]:
    """Return a comparison; the keys are stable across versions."""
    return {
        "equal": all(difference.equal for difference in found),
        "within_tolerance": all(difference.within(tolerance) for difference in found),
        "tolerance": tolerance,
        "tensors": [
            {
                "name": difference.name,
                "equal": difference.equal,
                "problem": difference.problem,
                "encodings": list(difference.encodings),
                "max_error": _finite(difference.max_error),
                "rms_error": _finite(difference.rms_error),
                "snr_db": _finite(difference.snr),
            }
            for difference in found
        ],
    }


def _finite(figure: float) -> float | None:
    """Return a figure, or None: JSON has no infinity and no NaN."""
    return figure if abs(figure) < float("inf") else None


def print_verification(found: Verification) -> None:
    """Print how two models compare: a line for each prompt, then whether that passes."""
    sides = [
        (letter, escaped(side.path), side.runtime, side.encoding)
        for letter, side in zip("AB", found.sides, strict=True)
    ]
    titles, cells = _ANSWERS[found.kind]
    rows = [
        (printable(answer.prompt or "random ids", 40), *cells(answer)) for answer in found.answers
    ]
    right = [number for number, title in enumerate(titles) if title in _NUMBERS]
    print_lines([*columns([("", "path", "runtime", "encoding"), *sides]), ""])
    print_lines([*columns([titles, *rows], right=right), ""])
    print_lines([*_differing_texts(found), _judgement(found)])


def _decoder_cells(answer: Answer) -> tuple[str, ...]:
    return (
        _yes(answer.same_ids),
        f"{answer.max_error:.3g}",
        f"{answer.rms_error:.3g}",
        f"{answer.agreed}/{answer.parts}",
        _yes(answer.same_text),
    )


def _encoder_cells(answer: Answer) -> tuple[str, ...]:
    return (
        _yes(answer.same_ids),
        f"{answer.max_error:.3g}",
        f"{answer.rms_error:.3g}",
        f"{answer.cosine:.7f}",
    )


_NUMBERS = {"max error", "RMS error", "top-1", "cosine"}
_COMMON = ("prompt", "same ids", "max error", "RMS error")
_ANSWERS: Mapping[str, tuple[tuple[str, ...], Callable[[Answer], tuple[str, ...]]]] = {
    "decoder": ((*_COMMON, "top-1", "same text"), _decoder_cells),
    "encoder": ((*_COMMON, "cosine"), _encoder_cells),
}
"""The columns for each kind of model, and what fills them."""


def _yes(answer: bool | None) -> str:
    return "" if answer is None else "yes" if answer else "no"


def _differing_texts(found: Verification) -> list[str]:
    """Return what both add to each prompt where that is not the same."""
    lines = []
    for answer in found.answers:
        if answer.same_text is False:
            lines.append(f"after {printable(answer.prompt or 'random ids', 60)!r}")
            lines += [
                f"  {x}: {printable(text, LINE)}"
                for x, text in zip("AB", answer.texts, strict=True)
            ]
    return [*lines, ""] if lines else []


def _judgement(found: Verification) -> str:
    what = "log-probabilities" if found.kind == "decoder" else "embeddings"
    tokenizers = "; the tokenizers disagree" if found.same_ids is False else ""
    within = "agree within" if found.max_error <= found.tolerance else "differ by more than"
    return (
        f"{'passed' if found.passed else 'FAILED'}: {what} {within} {found.tolerance:g} "
        f"(max {found.max_error:.3g}, RMS {found.rms_error:.3g}){tokenizers}"
    )


def verification_json(found: Verification) -> dict[str, Any]:
    """Return how two models compare; the keys are stable across versions."""
    return {
        "passed": found.passed,
        "kind": found.kind,
        "tolerance": found.tolerance,
        "max_error": _finite(found.max_error),
        "rms_error": _finite(found.rms_error),
        "agreed": found.agreed,
        "parts": found.parts,
        "cosine": found.cosine,
        "same_ids": found.same_ids,
        "sides": [vars(side) for side in found.sides],
        "prompts": [
            {
                **vars(answer),
                "max_error": _finite(answer.max_error),
                "rms_error": _finite(answer.rms_error),
            }
            for answer in found.answers
        ],
    }


def print_quantize_errors(found: QuantizeErrors) -> None:
    """Print what encodings make of each matrix, and of all of them."""
    figures = ("size", "bits/value", "relative RMS", "max error")
    rows = [
        (*_first(number, measured.name, measured.shape), *_candidate(candidate))
        for measured in found.tensors
        for number, candidate in enumerate(measured.candidates)
    ]
    print_lines([*columns([("tensor", "shape", "type", *figures), *rows], right=[3, 4, 5, 6]), ""])
    count = len(found.tensors)
    weighted = sum(measured.weighted for measured in found.tensors)
    if weighted:
        print_lines([f"with importance: {weighted} of {count} matrices", ""])
    totals = [
        (str(total.encoding), f"{total.tensors}/{count}", *_candidate(total)[1:])
        for total in found.total
    ]
    print_lines(columns([("type", "matrices", *figures), *totals], right=[1, 2, 3, 4, 5]))


def _first(number: int, name: str, shape: Sequence[int]) -> tuple[str, str]:
    """Return a tensor's name and shape in its first line, nothing in its others."""
    return ("", "") if number else (printable(name), "x".join(map(str, shape)))


def _candidate(candidate: Candidate) -> tuple[str, ...]:
    if candidate.problem or not candidate.tensors:
        return str(candidate.encoding), candidate.problem or ""
    return (
        str(candidate.encoding),
        human(candidate.nbytes),
        f"{candidate.bits_per_value:.4g}",
        f"{candidate.relative_rms_error:.3g}",
        f"{candidate.max_error:.3g}",
    )


def quantize_errors_json(found: QuantizeErrors) -> dict[str, Any]:
    """Return what encodings make of each matrix; the keys are stable across versions."""
    return {
        "tensors": [
            {
                "name": measured.name,
                "shape": list(measured.shape),
                "encoding": measured.encoding.name,
                "weighted": measured.weighted,
                "candidates": [
                    {**_candidate_json(candidate), "problem": candidate.problem}
                    for candidate in measured.candidates
                ],
            }
            for measured in found.tensors
        ],
        "total": [{**_candidate_json(total), "tensors": total.tensors} for total in found.total],
    }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "encoding": candidate.encoding.name,
        "values": candidate.distance.values,
        "bytes": candidate.nbytes,
        "bits_per_value": _finite(candidate.bits_per_value),
        "relative_rms_error": _finite(candidate.relative_rms_error),
        "max_error": _finite(candidate.max_error),
    }


def formats_json() -> list[dict[str, Any]]:
    """Return every format that is known."""
    return [
        {
            "name": name,
            "title": container.title,
            "suffixes": list(container.suffixes),
            "directory": container.directory,
            "dialect": container.dialect,
            "encodings": sorted(container.encodings),
        }
        for name, container in sorted(registry.formats().items())
    ]


def print_formats() -> None:
    """Print every format that is known, with what it can store."""
    for entry in formats_json():
        files = "a directory" if entry["directory"] else " ".join(entry["suffixes"])
        stored = " ".join(sorted(name.upper() for name in entry["encodings"]))
        print_lines(
            [
                f"{entry['name']}: {entry['title']}, {files}",
                *textwrap.wrap(stored, LINE, initial_indent="  ", subsequent_indent="  "),
            ]
        )
