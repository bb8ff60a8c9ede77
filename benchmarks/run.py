"""Runs cases: contenders in turn, round after round, and sums up what they gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from weighbridge.benchmarks.cases import Case, Goal, Limit
from weighbridge.benchmarks.inputs import FULL, Workshop, files_of
from weighbridge.benchmarks.measure import Failed, Sample, take
from weighbridge.benchmarks.results import MEASURES, CaseResult, Row, Spread, Verdict
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weighbridge.benchmarks.contender import Contender

    Tell = Callable[[str], None]

WORDS = {"peak": "memory", "private": "private memory"}
"""What verdicts call a measure that is not a time."""


@dataclass
class Lane:
    """A contender's way through a case.

    Attributes:
        contender: who.
        why: why it is not, or no longer, measured.
        samples: its measurements, one for each round.
    """

    contender: Contender
    why: str | None = None
    samples: list[Sample] = field(default_factory=list)


def run_case(case: Case, shop: Workshop, rounds: int, tell: Tell) -> CaseResult:
    """Measure every contender of a case `rounds` times.

    Args:
        case: the case.
        shop: where inputs are.
        rounds: how often each contender is measured.
        tell: is told what is measured next.
    """
    tell(f"{case.name}: input")
    source = shop.path(case.input) if case.input else shop.folder
    size = sum(file.stat().st_size for file in files_of(source)) if case.input else 0
    lanes = [Lane(contender, contender.missing()) for contender in case.contenders]
    for number in range(rounds):
        for lane in _turned(lanes, number):
            if lane.why is None:
                tell(f"{case.name}: {lane.contender.name}, {number + 1} of {rounds}")
                _measure(lane, case, shop, source)
    result = summed_up(case, lanes, size, judged=shop.sizes == FULL)
    return replace(result, remark=case.remark())


def _turned(lanes: list[Lane], number: int) -> list[Lane]:
    """Let another contender begin each round: whoever is first may find the machine disturbed."""
    first = number % len(lanes)
    return lanes[first:] + lanes[:first]


def _measure(lane: Lane, case: Case, shop: Workshop, source: Path) -> None:
    own = lane.contender.input
    try:
        sample = take(
            lane.contender, shop.path(own) if own else source, shop.folder, again=case.again
        )
    except Failed as error:
        lane.why, lane.samples = str(error), []
    else:
        lane.samples.append(sample)


def summed_up(case: Case, lanes: list[Lane], size: int, *, judged: bool = True) -> CaseResult:
    """Return a case's result from its contenders' measurements.

    Args:
        case: the case.
        lanes: its contenders with what was measured.
        size: the bytes of its input.
        judged: whether to say which goals are met; they are meant for full sizes.
    """
    by_name = {lane.contender.name: lane.samples for lane in lanes}
    seen = [lane.samples[0].seen for lane in lanes if lane.samples and lane.samples[0].seen]
    return CaseResult(
        name=case.name,
        title=case.title.format(size=human(size)),
        measure=case.measure,
        subject=case.subject,
        bytes=size,
        rows=[_row(lane, by_name[case.subject], case.measure) for lane in lanes],
        verdicts=[
            verdict
            for goal in (case.goals if judged else ())
            if (verdict := _verdict(goal, case.subject, by_name)) is not None
        ],
        agree=all(other == seen[0] for other in seen),
    )


def _row(lane: Lane, subject: list[Sample], measure: str) -> Row:
    contender = lane.contender
    if not lane.samples:
        return Row(contender.name, contender.how, lane.why)
    figures = {
        name: Spread.of(getattr(sample, name) for sample in lane.samples) for name in MEASURES
    }
    ratio = ratios(lane.samples, subject, measure) if subject else None
    samples = [asdict(sample) for sample in lane.samples]
    return Row(contender.name, contender.how, None, figures, ratio, samples)


def ratios(those: list[Sample], ours: list[Sample], measure: str) -> Spread:
    """Return how many times as much as ours the others needed: compared within each round.

    Example:
        >>> a, b = Sample(1.0, 1.0, 1.0, 1, 1), Sample(3.0, 3.0, 3.0, 1, 1)
        >>> ratios([b, b], [a, b], "seconds")
        Spread(median=2.0, low=1.0, high=3.0)
    """
    pairs = zip(those, ours, strict=True)
    return Spread.of(
        getattr(that, measure) / max(getattr(own, measure), 1e-9) for that, own in pairs
    )


def _verdict(goal: Goal | Limit, subject: str, samples: dict[str, list[Sample]]) -> Verdict | None:
    """Return whether a goal is met; None where one of those compared was not measured."""
    if isinstance(goal, Limit):
        return _within(goal, subject, samples[subject]) if samples[subject] else None
    ours = goal.ours or subject
    if not samples[goal.than] or not samples[ours]:
        return None
    ratio = ratios(samples[goal.than], samples[ours], goal.measure).median
    what = WORDS.get(goal.measure, "time")
    text = f"{goal.than} takes at least {goal.at_least:.3g} times the {what} of {ours}"
    return Verdict(text, f"{ratio:.3g}", ratio >= goal.at_least)


def _within(limit: Limit, subject: str, samples: list[Sample]) -> Verdict:
    """Return whether what is measured stays below a limit."""
    figure = Spread.of(getattr(sample, limit.measure) for sample in samples).median
    if limit.measure in WORDS:
        text = f"{subject} takes at most {human(int(limit.at_most))} of {WORDS[limit.measure]}"
        return Verdict(text, human(int(figure)), figure <= limit.at_most)
    text = f"{subject} takes at most {limit.at_most:g} s"
    return Verdict(text, f"{figure:.3f} s", figure <= limit.at_most)
