"""What came out, as values that are JSON as they stand; every report is made from them alone."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from weighbridge.errors import InvalidFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = "weighbridge-benchmarks/1"

MEASURES = ("seconds", "first", "cpu", "peak", "private")
"""The figures of a sample that are summed up."""


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: the middle one.
        low: the lowest.
        high: the highest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Self:
        """Sum up figures.

        Example:
            >>> Spread.of([3, 1, 2])
            Spread(median=2, low=1, high=3)
        """
        known = list(figures)
        return cls(statistics.median(known), min(known), max(known))


@dataclass(frozen=True)
class Row:
    """One contender of a case.

    Attributes:
        name: the contender.
        how: what it called or ran.
        why: why it was not measured; None where it was.
        figures: measure -> spread, for each of `MEASURES`.
        ratio: how many times as much as the subject it needed, round by round.
        samples: every measurement, in the order in which they were taken.
    """

    name: str
    how: str
    why: str | None = None
    figures: dict[str, Spread] = field(default_factory=dict)
    ratio: Spread | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What a case had to show, and did or did not.

    Attributes:
        text: what it had to show.
        got: the figure that was measured.
        met: whether that is enough.
    """

    text: str
    got: str
    met: bool


@dataclass(frozen=True)
class CaseResult:
    """What came out of a case.

    Attributes:
        name: the case.
        title: as the tables call it.
        measure: what the ratios are of.
        subject: the contender that all others are set in proportion to.
        bytes: how large the input is.
        rows: the contenders.
        verdicts: what the case had to show.
        agree: whether all contenders saw the same in their input.
        remark: what else there is to say.
    """

    name: str
    title: str
    measure: str
    subject: str
    bytes: int
    rows: list[Row]
    verdicts: list[Verdict]
    agree: bool
    remark: str = ""


@dataclass(frozen=True)
class Results:
    """What came out of a run.

    Attributes:
        machine: what it ran on.
        versions: distribution -> version, None where it is absent.
        settings: how it was run.
        cases: the cases.
        schema: the name of this structure.
    """

    machine: dict[str, Any]
    versions: dict[str, str | None]
    settings: dict[str, Any]
    cases: list[CaseResult]
    schema: str = SCHEMA

    def write(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def read(path: Path) -> Results:
    """Read what `Results.write` wrote.

    Raises:
        InvalidFile: (rule ``results``) when it is something else.
    """
    try:
        document = json.loads(path.read_bytes())
        cases = [_case(case) for case in document.pop("cases")]
        read_results = Results(cases=cases, **document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidFile(
            f"is not a result of the benchmarks: {error}", rule="results", path=path
        ) from None
    if read_results.schema != SCHEMA:
        raise InvalidFile(
            "is a result of other benchmarks",
            rule="results",
            path=path,
            got=read_results.schema,
            expected=SCHEMA,
        )
    return read_results


def _case(document: dict[str, Any]) -> CaseResult:
    rows = [_row(row) for row in document.pop("rows")]
    verdicts = [Verdict(**verdict) for verdict in document.pop("verdicts")]
    return CaseResult(rows=rows, verdicts=verdicts, **document)


def _row(document: dict[str, Any]) -> Row:
    figures = {name: Spread(**spread) for name, spread in document.pop("figures").items()}
    ratio = document.pop("ratio")
    return Row(figures=figures, ratio=Spread(**ratio) if ratio else None, **document)
