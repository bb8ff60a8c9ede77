"""The short table: Markdown between two markers of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.benchmarks.figures import duration, times
from weighbridge.benchmarks.report import provenance
from weighbridge.errors import InvalidFile
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weighbridge.benchmarks.results import CaseResult, Compared, Results, Row

BEGIN = "<!-- benchmarks -->"
END = "<!-- /benchmarks -->"

METHOD = (
    "Medians of several rounds; beside a ratio, the lowest and the highest of a round. Every "
    "measurement has a process of its own, contenders take turns, the page cache is warm. Memory "
    "is the peak of resident bytes that are not pages of files: what a call adds to its process, "
    "and the whole of a command. Written by `weighbridge bench --readme README.md`; all cases, all "
    "tools and their spread: `weighbridge bench --html report.html`."
)


def markdown(results: Results) -> str:
    """Return the headlines of results as a Markdown table, a line for each case."""
    lines = [
        "| | weighbridge | the best other tool | times as fast | of the floor | memory, theirs |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {' | '.join(_cells(case, case.own))} |"
        for case in results.cases
        if case.headline and case.own is not None
    ]
    return "\n".join([*lines, "", f"Measured on {provenance(results)}. {METHOD}"])


def _cells(case: CaseResult, own: Row) -> Iterator[str]:
    peer = case.row(case.peer.name) if case.peer else None
    yield case.title.replace("|", "\\|")
    yield duration(own.figures["seconds"].median)
    yield f"{peer.name}, {duration(peer.figures['seconds'].median)}" if peer else ""
    yield _spread(case.peer)
    yield f"{_spread(case.floor)} {case.floor.name}" if case.floor else ""
    memory = human(own.figures["private"].median)
    yield f"{memory}, {human(peer.figures['private'].median)}" if peer else memory


def _spread(compared: Compared | None) -> str:
    if compared is None:
        return ""
    ratio = compared.ratio
    return f"{times(ratio.median)} ({times(ratio.low)} to {times(ratio.high)})"


def insert(path: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        InvalidFile: (rule ``markers``) when it does not have both, once each and in order.
    """
    content = path.read_text(encoding="utf-8")
    head, begin, rest = content.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail:
        raise InvalidFile(
            "has no place for the results",
            rule="markers",
            path=path,
            expected=f"{BEGIN} and, below it, {END}",
        )
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
