"""What a case is: something that several contenders do, and what it has to show."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from weighbridge.benchmarks.contender import Contender, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

OURS = "weighbridge"

FASTEST = "the fastest peer"
"""Stands in a goal for the peer with the least of what the case measures."""


@dataclass(frozen=True)
class Goal:
    """What a case has to show: another contender needs so many times as much as ours.

    Attributes:
        than: the other contender, or `FASTEST`.
        at_least: how many times as much it needs.
        measure: of what, out of `results.MEASURES`.
        ours: the contender that is compared, where it is not the case's subject.
    """

    than: str
    at_least: float
    measure: str = "seconds"
    ours: str | None = None


@dataclass(frozen=True)
class Limit:
    """What a case has to show: the subject needs at most so much.

    Attributes:
        at_most: seconds, or bytes.
        measure: of what, out of `results.MEASURES`.
    """

    at_most: float
    measure: str = "seconds"


@dataclass(frozen=True)
class Case:
    """Something that several contenders do.

    Attributes:
        name: as ``--only`` takes it.
        group: the part of the report that it belongs to.
        title: as the report calls it; ``{size}`` is the input's.
        input: the contenders' source, as `Workshop.path` takes it; None where they need none.
        contenders: who takes part, in the order of the report.
        subject: the contender that all others are set in proportion to.
        goals: what the case has to show. They are reported, never asserted.
        measure: what the proportion is of: ``seconds`` or ``peak``.
        rounds: how often each contender is measured.
        again: whether calls are repeated in their process, because one is too short to time.
        cold: whether the input is driven out of the page cache before each measurement.
        headline: whether the case is in the short table.
        quick: whether the case is part of a quick run.
        remark: what else there is to say, found out when the case is run.
        patience: measured seconds that each contender is given at least.
        made: how many tokens each contender makes; their rate is told then.
    """

    name: str
    group: str
    title: str
    input: str | Path | None
    contenders: Sequence[Contender]
    subject: str = OURS
    goals: Sequence[Goal | Limit] = ()
    measure: str = "seconds"
    rounds: int = 3
    again: bool = False
    cold: bool = False
    headline: bool = False
    quick: bool = False
    remark: Callable[[], str] = field(default=str)
    patience: float = 0
    made: int = 0

    def without_peers(self) -> Case:
        """Return the case without other tools."""
        kept = [contender for contender in self.contenders if contender.role != Role.PEER]
        names = {contender.name for contender in kept}
        goals = [goal for goal in self.goals if isinstance(goal, Limit) or goal.than in names]
        return replace(self, contenders=kept, goals=goals)

    def when_cold(self) -> Case:
        """Return the case with a cold page cache; a call can be made only once then."""
        return replace(
            self,
            name=f"{self.name}-cold",
            title=f"{self.title}, cold cache",
            goals=(),
            again=False,
            cold=True,
            headline=False,
        )
