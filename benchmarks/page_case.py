"""A case in the HTML report: time and memory side by side, and a table of all figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.benchmarks.chart import Bar, bars
from weighbridge.benchmarks.figures import duration, times
from weighbridge.benchmarks.markup import Markup, el, join
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from weighbridge.benchmarks.results import CaseResult, Row, Spread

COLUMNS: Sequence[tuple[str, str, Callable[[float], str]]] = (
    ("time", "seconds", duration),
    ("first call", "first", duration),
    ("CPU", "cpu", duration),
    ("peak memory", "peak", human),
    ("private", "private", human),
    ("of files", "file", human),
    ("beside result", "beyond", human),
    ("read", "read", human),
    ("from disk", "disk", human),
    ("written", "written", human),
    ("device", "device", human),
    ("pinned", "pinned", human),
    ("cached before", "cached", lambda share: f"{share:.0%}"),
)
"""Heading, measure, and what writes it."""


def case_section(case: CaseResult) -> Markup:
    """Return a case's part of the page."""
    measured = [row for row in case.rows if row.why is None]
    charts = [_times(measured), _memory(measured)] if measured else []
    return el(
        "article",
        el("h3", case.title),
        *_remarks(case),
        el("div", *charts, class_="pair"),
        *([_details(case, measured)] if measured else []),
        class_="case",
    )


def _remarks(case: CaseResult) -> Iterator[Markup]:
    sentences = []
    if case.peer is not None:
        sentences.append(f"{times(case.peer.ratio.median)} the speed of {case.peer.name}")
    if case.floor is not None:
        floor = times(case.floor.ratio.median)
        sentences.append(f"{floor} the time of the floor, {case.floor.name}")
    if case.measure != "seconds":
        sentences = []
    if sentences:
        yield el("p", f"{case.subject}: {', '.join(sentences)}.", class_="soft")
    absent = [f"{row.name} ({row.why})" for row in case.rows if row.why is not None]
    if absent:
        yield el("p", f"Not measured: {'; '.join(absent)}.", class_="soft")
    if not case.agree:
        yield el("p", "The tools did not find the same in this input.", class_="missed")
    if case.remark:
        yield el("p", case.remark, class_="soft")
    if case.verdicts:
        yield el(
            "ul",
            *(
                el("li", f"{each.text}: {each.got}", class_="met" if each.met else "missed")
                for each in case.verdicts
            ),
            class_="plain soft",
        )


def _times(rows: Sequence[Row]) -> Markup:
    drawn = [
        Bar(row.name, row.figures["seconds"], duration(row.figures["seconds"].median), row.role)
        for row in rows
    ]
    return el("div", el("h4", "Time"), bars(drawn, duration))


def _memory(rows: Sequence[Row]) -> Markup:
    drawn = [
        Bar(
            row.name,
            row.figures["peak"],
            _memory_label(row.figures["peak"], row.figures["file"]),
            row.role,
            solid=row.figures["private"].median,
        )
        for row in rows
    ]
    return el("div", el("h4", "Peak memory"), bars(drawn, human))


def _memory_label(peak: Spread, file: Spread) -> str:
    if file.median < peak.median / 10:
        return human(peak.median)
    return f"{human(peak.median)}, {human(file.median)} of files"


def _details(case: CaseResult, rows: Sequence[Row]) -> Markup:
    columns = [column for column in COLUMNS if any(column[1] in row.figures for row in rows)]
    headings = ["tool", *(heading for heading, _, _ in columns), f"to {case.subject}", "rounds"]
    body = [_line(row, columns) for row in rows]
    words = el("summary", "All figures, with the range over all rounds")
    return el("details", words, sortable(headings, body, f"Figures: {case.title}"))


def sortable(headings: Sequence[str], lines: Iterable[Markup], label: str) -> Markup:
    """Return a table that sorts by any column, in a frame of its own that scrolls.

    Args:
        headings: of the columns.
        lines: its rows; what a cell is sorted by is its ``data-value``.
        label: what it is, for who cannot see it.
    """
    heads = [el("th", el("button", name, type="button"), scope="col") for name in headings]
    table = el("table", el("thead", el("tr", *heads)), el("tbody", *lines))
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def _line(row: Row, columns: Sequence[tuple[str, str, Callable[[float], str]]]) -> Markup:
    cells = [_cell(row.figures.get(measure), write) for _, measure, write in columns]
    first = el("td", row.name, el("code", row.how), data_value=row.name)
    rounds = el("td", str(len(row.samples)), data_value=len(row.samples))
    return el("tr", first, *cells, _cell(row.ratio, times), rounds, class_=row.role)


def _cell(spread: Spread | None, write: Callable[[float], str]) -> Markup:
    if spread is None:
        return el("td", data_value="")
    text = write(spread.median)
    ends = write(spread.low), write(spread.high)
    if ends == (text, text):
        return el("td", text, data_value=spread.median)
    content = join(text, el("small", f"{ends[0]} to {ends[1]}"))
    return el("td", content, data_value=spread.median)
