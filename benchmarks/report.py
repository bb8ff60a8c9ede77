"""Results as tables: in the terminal, and as Markdown between two markers of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from weighbridge.errors import InvalidFile
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weighbridge.benchmarks.results import CaseResult, Results, Row, Spread

BEGIN = "<!-- benchmarks -->"
END = "<!-- /benchmarks -->"

COLUMNS = ("", "time", "from", "to", "first call", "CPU", "peak memory", "private", "ratio")


PIPE_WIDTH = 200
"""Columns where the output is no terminal, so that nothing is cut."""


def console() -> Console:
    """Return a console for standard output: no colour and no cutting in a pipe."""
    own = Console()
    return own if own.is_terminal else Console(width=PIPE_WIDTH, no_color=True)


def duration(seconds: float) -> str:
    """Return seconds in the unit that suits them.

    Example:
        >>> duration(0.00012), duration(0.0456), duration(2.5)
        ('0.12 ms', '45.6 ms', '2.50 s')
    """
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{1 if seconds >= 0.01 else 2}f} ms"


def times(ratio: float) -> str:
    """Return a ratio with three digits.

    Example:
        >>> times(512.3), times(1.0), times(0.8123)
        ('512x', '1.00x', '0.81x')
    """
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.1f}x" if ratio >= 10 else f"{ratio:.2f}x"


def show(results: Results, console: Console) -> None:
    """Print every case as a table, and what it was measured on."""
    for case in results.cases:
        console.print(table(case))
        for line in _remarks(case):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        console.print()
    console.print(provenance(results), markup=False, highlight=False, soft_wrap=True)


def table(case: CaseResult) -> Table:
    """Return a case as a table for the terminal."""
    made = Table(title=f"{case.name}: {case.title}", title_justify="left", box=None)
    for number, column in enumerate(COLUMNS):
        made.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in case.rows:
        made.add_row(row.name, *_cells(row, case), style="bold" if row.name == case.subject else "")
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
    if not case.agree:
        yield "the contenders do not agree on what they saw in the input"
    if case.remark:
        yield case.remark
    for verdict in case.verdicts:
        yield f"{'met' if verdict.met else 'MISSED'}: {verdict.text}: {verdict.got}"


def provenance(results: Results) -> str:
    """Return in one line what the figures were measured on, and with."""
    machine = results.machine
    present = [f"{name} {version}" for name, version in results.versions.items() if version]
    return (
        f"{machine['cores']} cores of {machine['processor']}, {human(machine['memory'])}, "
        f"{machine['file_system']}, {machine['system']}; {', '.join(present)}"
    )


METHOD = (
    "Medians, and the spread of the ratio over all rounds. Every measurement has a process of its "
    "own, contenders take turns, the page cache is warm. A ratio is the other's time (or memory, "
    "where that is what is compared) over that of the first line. Memory is the peak of resident "
    "bytes: what a call adds to its process, and the whole of a command; what is not private are "
    "pages of files, which the system may take back. Written by "
    "`python -m weighbridge.benchmarks --readme README.md`."
)


def markdown(results: Results) -> str:
    """Return the results as a Markdown table: a heading for each case, a line for each of it."""
    lines = ["| | | time | ratio | memory |", "| --- | --- | ---: | ---: | ---: |"]
    for case in results.cases:
        lines.append(f"| **{case.title}** | | | | |")
        lines += [_line(row, case) for row in case.rows if row.why is None]
    return "\n".join([*lines, "", f"Measured on {provenance(results)}. {METHOD}"])


def _line(row: Row, case: CaseResult) -> str:
    cells = (
        row.name,
        row.how,
        duration(row.figures["seconds"].median),
        "" if row.name == case.subject else _ratio(row.ratio),
        f"{human(row.figures['peak'].median)}, {human(row.figures['private'].median)} private",
    )
    return f"| {' | '.join(cells)} |"


def insert(path: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        InvalidFile: (rule ``markers``) when it does not have both, once each and in order.
    """
    content = path.read_text()
    head, begin, rest = content.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail:
        raise InvalidFile(
            "has no place for the results",
            rule="markers",
            path=path,
            expected=f"{BEGIN} and, below it, {END}",
        )
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
