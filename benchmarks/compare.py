"""Two results side by side: what has become slower or larger, whatever machine each ran on.

Time is judged as a ratio to something measured in the same run: to the floor of the case, else to
the peer that was the best one before. So a machine that has become slower, or another machine, is
no change of ours. Memory is judged as it is: it does not depend on how fast a machine is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from weighbridge.benchmarks.figures import times
from weighbridge.benchmarks.results import Spread
from weighbridge.errors import printable
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.benchmarks.results import CaseResult, Results

LEAST = 5_000_000
"""Bytes of memory that are never a regression."""


@dataclass(frozen=True)
class Change:
    """One figure of a case, before and after.

    Attributes:
        case: the case's name.
        what: the figure: a time in proportion to another contender's, or memory.
        before: how it was.
        after: how it is.
        factor: how many times as much it is; infinite where ours fails now.
        verdict: what to make of it.
        worse: whether it is a regression.
    """

    case: str
    what: str
    before: str
    after: str
    factor: float
    verdict: str
    worse: bool


def changes(old: Results, new: Results, threshold: float) -> list[Change]:
    """Compare what both have measured.

    Args:
        old: results of before.
        new: results of now.
        threshold: by which share a median may be worse. Beyond it, it is a regression where the
            spreads of the two do not meet: otherwise chance may have made it.
    """
    now = {case.name: case for case in new.cases}
    pairs = [(case, now[case.name]) for case in old.cases if case.name in now]
    return [change for pair in pairs for change in _changes(*pair, threshold)]


def _changes(old: CaseResult, new: CaseResult, threshold: float) -> Iterator[Change]:
    if old.own is None:
        return
    if new.own is None:
        yield Change(old.name, "result", "measured", "fails", float("inf"), "FAILS", worse=True)
        return
    costs = _costs(old, new)
    if costs is not None:
        name, before, after = costs
        what = f"time, in times of {name}'s"
        shown = times(before.median), times(after.median)
        yield _change(old.name, what, shown, (before, after), threshold, 0)
    peaks = old.own.figures["peak"], new.own.figures["peak"]
    shown = human(peaks[0].median), human(peaks[1].median)
    yield _change(old.name, "peak memory", shown, peaks, threshold, LEAST)


def _costs(old: CaseResult, new: CaseResult) -> tuple[str, Spread, Spread] | None:
    """Return whose time ours is set in proportion to, and the proportion before and after."""
    if old.measure != "seconds":
        return None
    if old.floor and new.floor and old.floor.name == new.floor.name:
        return old.floor.name, old.floor.ratio, new.floor.ratio
    then = old.peer and old.row(old.peer.name)
    now = old.peer and new.row(old.peer.name)
    if not then or not now or not then.ratio or not now.ratio:
        return None
    return then.name, _inverse(then.ratio), _inverse(now.ratio)


def _inverse(ratio: Spread) -> Spread:
    """Return ours in proportion to theirs, of theirs in proportion to ours."""
    return Spread(1 / ratio.median, 1 / ratio.high, 1 / ratio.low)


def _change(
    case: str,
    what: str,
    shown: tuple[str, str],
    spreads: tuple[Spread, Spread],
    threshold: float,
    least: float,
) -> Change:
    before, after = spreads
    factor = after.median / before.median if before.median else 1.0
    beyond = factor > 1 + threshold and after.median - before.median > least
    apart = after.low > before.high
    verdict = "same"
    if beyond:
        verdict = "WORSE" if apart else "worse, within the spread"
    elif factor < 1 / (1 + threshold):
        verdict = "better"
    return Change(case, what, *shown, factor, verdict, beyond and apart)


def table(found: Sequence[Change]) -> Table:
    """Return changes as a table for the terminal, the worst first."""
    made = Table(title=_headline(found), title_justify="left", box=None)
    for number, column in enumerate(("case", "figure", "before", "after", "change", "")):
        made.add_column(column, justify="right" if 2 <= number <= 4 else "left")
    for change in sorted(found, key=lambda change: -change.factor):
        cells = change.case, change.what, change.before, change.after, times(change.factor)
        style = "bold red" if change.worse else ""
        made.add_row(*(Text(printable(cell)) for cell in (*cells, change.verdict)), style=style)
    return made


def _headline(found: Sequence[Change]) -> str:
    worse = sum(change.worse for change in found)
    return f"{worse} of {len(found)} figures are worse"
