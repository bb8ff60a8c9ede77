"""What came out, as values that are JSON as they stand; every report is made from them alone."""

from __future__ import annotations

import dataclasses
import json
import statistics
import types
import typing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from weighbridge.errors import InvalidFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = "weighbridge-benchmarks/2"

MEASURES = (
    "seconds", "first", "cpu", "peak", "private", "file", "beyond", "read", "disk", "device",
    "pinned", "cached", "written",
)  # fmt: skip
"""The figures of a sample that are summed up, where it has them."""


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
        role: ``ours``, ``peer`` or ``floor``.
        why: why it was not measured; None where it was.
        figures: measure -> spread, for those of `MEASURES` that it has.
        ratio: how many times as much as the subject it needed, round by round.
        samples: every measurement, in the order in which they were taken.
    """

    name: str
    how: str
    role: str
    why: str | None = None
    figures: dict[str, Spread] = field(default_factory=dict)
    ratio: Spread | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Compared:
    """The subject of a case beside another contender, round by round.

    Attributes:
        name: the other one.
        ratio: of a peer, how many times as much as the subject it needed; of a floor, how many
            times as much as the floor the subject needed.
    """

    name: str
    ratio: Spread


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
        group: the part of the report that it belongs to.
        title: as the report calls it.
        measure: what the ratios are of.
        subject: the contender that all others are set in proportion to.
        bytes: how large the input is.
        cold: whether the input was driven out of the page cache first.
        headline: whether the case is in the short table.
        rows: the contenders.
        peer: the subject beside the best of the other tools.
        floor: the subject beside what the machine can do.
        verdicts: what the case had to show.
        agree: whether all contenders saw the same in their input.
        remark: what else there is to say.
    """

    name: str
    group: str
    title: str
    measure: str
    subject: str
    bytes: int
    cold: bool
    headline: bool
    rows: list[Row]
    peer: Compared | None
    floor: Compared | None
    verdicts: list[Verdict]
    agree: bool
    remark: str = ""

    @property
    def own(self) -> Row | None:
        """The subject's row; None where it was not measured."""
        return self.row(self.subject)

    def row(self, name: str) -> Row | None:
        """Return a contender's row; None where it was not measured."""
        return next((row for row in self.rows if row.name == name and row.why is None), None)


@dataclass(frozen=True)
class Machine:
    """What the figures were measured on.

    Attributes:
        processor: its name.
        cores: how many this process may use.
        memory: bytes of main memory.
        system: the operating system.
        file_system: that of the inputs and outputs.
        load: how many processes wanted to run when the measurements ended, a minute's mean.
        devices: what torch finds beside the CPU.
    """

    processor: str
    cores: int
    memory: int
    system: str
    file_system: str
    load: float
    devices: list[str]


@dataclass(frozen=True)
class Settings:
    """How it was measured.

    Attributes:
        sizes: what a made-up model is for -> its name.
        rounds: how often each contender was measured, where that was asked for.
        patience: measured seconds after which a contender had no further rounds in a case.
        devices: where models were loaded.
    """

    sizes: dict[str, str]
    rounds: int | None
    patience: float
    devices: list[str]


@dataclass(frozen=True)
class Speed:
    """How fast an encoding is on one core.

    Attributes:
        name: of the encoding, or of the cast.
        job: ``encode``, ``decode`` or ``cast``.
        ours: GB of float32 in a second of processor time; of a cast, of the mean of both sides.
        theirs: what libgguf does of it; None where it does not do that.
        python: what gguf does of it, or NumPy's own cast.
        copy: a copy of as many bytes into new memory.
        same: whether libgguf, or NumPy, gives the same bytes.
    """

    name: str
    job: str
    ours: float
    theirs: float | None
    python: float | None
    copy: float
    same: bool


@dataclass(frozen=True)
class Results:
    """What came out of a run.

    Attributes:
        machine: what it ran on.
        when: the time at which it began, in UTC (ISO 8601).
        seconds: how long it took.
        versions: distribution -> version, None where it is absent.
        settings: how it was run.
        cases: the cases.
        encodings: ggml's encodings, and casts, where they were measured.
        interrupted: whether the run was ended before all cases were measured.
        schema: the name of this structure.
    """

    machine: Machine
    when: str
    seconds: float
    versions: dict[str, str | None]
    settings: Settings
    cases: list[CaseResult]
    encodings: list[Speed] = field(default_factory=list)
    interrupted: bool = False
    schema: str = SCHEMA

    def write(self, path: Path) -> None:
        """Write them as JSON."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Read what `Results.write` wrote.

    Raises:
        InvalidFile: (rule ``results``) when it is something else.
    """
    try:
        found: Results = _built(Results, json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidFile(
            f"is not a result of the benchmarks: {error}", rule="results", path=path
        ) from None
    if found.schema != SCHEMA:
        raise InvalidFile(
            "is a result of other benchmarks",
            rule="results",
            path=path,
            got=found.schema,
            expected=SCHEMA,
        )
    return found


def _built(hint: Any, document: Any) -> Any:
    """Return what a type describes, out of JSON.

    Raises:
        TypeError: when the JSON is something else.
    """
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        hints = typing.get_type_hints(hint)
        fields = _checked(dict, document)
        if unknown := fields.keys() - hints.keys():
            raise TypeError(f"{hint.__name__} has no {', '.join(sorted(unknown))}")
        return hint(**{name: _built(hints[name], value) for name, value in fields.items()})
    parts, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is list:
        return [_built(parts[0], item) for item in _checked(list, document)]
    if origin is dict:
        return {key: _built(parts[1], value) for key, value in _checked(dict, document).items()}
    if isinstance(hint, types.UnionType):
        return None if document is None else _built(parts[0], document)
    return document if hint is Any else _checked(hint, document)


def _checked(kind: type, document: Any) -> Any:
    number = kind is float and isinstance(document, int) and not isinstance(document, bool)
    if not isinstance(document, kind) and not number:
        raise TypeError(f"{kind.__name__} is expected where there is {type(document).__name__}")
    return document
