"""Results as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from weighbridge.benchmarks.figures import duration, times
from weighbridge.errors import printable
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weighbridge.benchmarks.results import CaseResult, Results, Row, Speed, Spread

INTERRUPTED = "The run was interrupted: cases that it had not come to the end of are missing."

COLUMNS = ("", "time", "from", "to", "first call", "CPU", "peak memory", "private", "ratio")


KEPT = 1 << 16
"""Bytes from which files that were written are told of: less are words that were caught."""

LINE = 2000
"""Characters of a line that are printed; a contender's last words may be long."""

PIPE_WIDTH = 200
"""Columns where the output is no terminal, so that nothing is cut."""


def console() -> Console:
    """Return a console for standard output: no colour and no cutting in a pipe."""
    own = Console()
    return own if own.is_terminal else Console(width=PIPE_WIDTH, no_color=True)


def show(results: Results, console: Console) -> None:
    """Print every case as a table, and what it was measured on."""
    for case in results.cases:
        console.print(table(case))
        for line in _remarks(case):
            console.print(
                f"  {printable(line, LINE)}", markup=False, highlight=False, soft_wrap=True
            )
        console.print()
    if results.encodings:
        console.print(encodings(results.encodings))
    if results.interrupted:
        console.print(INTERRUPTED)
    console.print(
        printable(provenance(results), LINE), markup=False, highlight=False, soft_wrap=True
    )


def table(case: CaseResult) -> Table:
    """Return a case as a table for the terminal."""
    title = Text(printable(f"{case.name}: {case.title}"))
    made = Table(title=title, title_justify="left", box=None)
    for number, column in enumerate(COLUMNS):
        made.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in case.rows:
        cells = (Text(printable(cell)) for cell in (row.name, *_cells(row, case)))
        made.add_row(*cells, style="bold" if row.name == case.subject else "")
    return made


def _cells(row: Row, case: CaseResult) -> list[str]:
    if row.why is not None:
        return ["absent"]
    seconds, first = row.figures["seconds"], row.figures["first"]
    return [
        duration(seconds.median),
        duration(seconds.low),
        duration(seconds.high),
        duration(first.median) if first != seconds else "",
        duration(row.figures["cpu"].median),
        human(row.figures["peak"].median),
        human(row.figures["private"].median),
        _ratio(row.ratio) if row.name != case.subject else "1",
    ]


def _ratio(ratio: Spread | None) -> str:
    if ratio is None:
        return ""
    return f"{times(ratio.median)} ({times(ratio.low)} to {times(ratio.high)})"


def _remarks(case: CaseResult) -> Iterator[str]:
    for row in case.rows:
        if row.why is not None:
            yield f"{row.name}: {row.why}"
    if case.floor is not None:
        yield f"{case.subject} takes {_ratio(case.floor.ratio)} of the floor, {case.floor.name}"
    if not case.agree:
        yield "the contenders do not agree on what they saw in the input"
    if written := [(row.name, _written(row)) for row in case.rows if _written(row) >= KEPT]:
        yield f"written: {', '.join(f'{name} {human(size)}' for name, size in written)}"
    if case.remark:
        yield case.remark
    for verdict in case.verdicts:
        yield f"{'met' if verdict.met else 'MISSED'}: {verdict.text}: {verdict.got}"


def _written(row: Row) -> int:
    written = row.figures.get("written")
    return 0 if written is None else int(written.median)


def encodings(speeds: Iterable[Speed]) -> Table:
    """Return the speed of encodings as a table for the terminal."""
    columns = ("encoding", "job", "ours", "libgguf", "gguf", "copy")
    made = Table(*columns, "to libgguf", "to gguf", "to copy", "bytes")
    for speed in speeds:
        others = (speed.theirs, speed.python, speed.copy)
        made.add_row(
            printable(speed.name),
            printable(speed.job),
            f"{speed.ours:.3f}",
            *("" if other is None else f"{other:.3f}" for other in others),
            *("" if other is None else f"{speed.ours / other:.2f}" for other in others),
            "same" if speed.same else "differ",
        )
    return made


def provenance(results: Results) -> str:
    """Return in one line what the figures were measured on, and with."""
    machine = results.machine
    present = [f"{name} {version}" for name, version in results.versions.items() if version]
    return (
        f"{machine.cores} cores of {machine.processor}, {human(machine.memory)}, "
        f"{machine.file_system}, {machine.system}; {', '.join(present)}"
    )
