"""Runs cases: contenders in turn, round after round, and sums up what they gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from weighbridge.benchmarks.case import FASTEST, Case, Goal, Limit
from weighbridge.benchmarks.contender import Role
from weighbridge.benchmarks.inputs import FULL
from weighbridge.benchmarks.measure import Failed, Sample, take
from weighbridge.benchmarks.results import MEASURES, CaseResult, Compared, Row, Spread, Verdict
from weighbridge.benchmarks.weights import files_of_model
from weighbridge.errors import Error
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.benchmarks.contender import Contender
    from weighbridge.benchmarks.inputs import Workshop

    Tell = Callable[[str], None]

WORDS = {
    "peak": "memory",
    "private": "private memory",
    "beyond": "memory beside its result",
    "pinned": "pinned memory",
}
"""What verdicts call a measure that is not a time."""

PATIENCE = 9.0
"""Measured seconds after which a contender has no further rounds in a case."""

QUICK_PATIENCE = 2.0
"""The same in a quick run."""

STEADY = 0.03
"""By what share the times of a contender's first rounds may differ for it to have no more."""


@dataclass
class Lane:
    """A contender's way through a case.

    Attributes:
        contender: who.
        why: why it is not, or no longer, measured.
        samples: its measurements, one for each round; the slowest have fewer.
    """

    contender: Contender
    why: str | None = None
    samples: list[Sample] = field(default_factory=list)

    def waits(self, patience: float) -> bool:
        """Tell whether it is to be measured in the next round."""
        if self.why is not None or sum(sample.first for sample in self.samples) >= patience:
            return False
        times = [sample.seconds for sample in self.samples]
        return len(times) < 2 or max(times) - min(times) > STEADY * min(times)


def run_case(
    case: Case, shop: Workshop, rounds: int, tell: Tell, patience: float = PATIENCE
) -> CaseResult:
    """Measure every contender of a case `rounds` times.

    Args:
        case: the case.
        shop: where inputs are.
        rounds: how often each contender is measured.
        tell: is told what is measured next.
        patience: measured seconds after which a contender has no further rounds.
    """
    tell(f"{case.name}: input")
    lanes = [Lane(contender, contender.missing()) for contender in case.contenders]
    for number in range(rounds):
        for lane in _turned(lanes, number):
            if lane.waits(max(patience, case.patience)):
                tell(f"{case.name}: {lane.contender.name}, {number + 1} of {rounds}")
                _measure(lane, case, shop)
    result = summed_up(case, lanes, _size(case, lanes, shop), judged=shop.sizes == FULL)
    return replace(result, remark=case.remark() or rates(case.made, result.rows))


def _size(case: Case, lanes: list[Lane], shop: Workshop) -> int:
    """Return the bytes of a case's input, 0 where it has none or nobody was measured."""
    if case.input is None or not any(lane.samples for lane in lanes):
        return 0
    return sum(file.stat().st_size for file in files_of_model(shop.path(case.input)))


def _turned(lanes: list[Lane], number: int) -> list[Lane]:
    """Let another contender begin each round: whoever is first may find the machine disturbed."""
    first = number % len(lanes)
    return lanes[first:] + lanes[:first]


def _measure(lane: Lane, case: Case, shop: Workshop) -> None:
    name = lane.contender.input or case.input
    try:
        source = shop.path(name) if name else shop.folder
        files = files_of_model(source) if name else []
        sample = take(
            lane.contender, source, shop.folder, again=case.again, files=files, cold=case.cold
        )
    except (Failed, Error) as error:
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
    peer = _fastest(case, lanes)
    floor = next((lane for lane in lanes if lane.contender.role == Role.FLOOR), None)
    goals = [_resolved(goal, peer) for goal in case.goals] if judged else []
    verdicts = [_verdict(goal, case.subject, by_name) for goal in goals if goal is not None]
    return CaseResult(
        name=case.name,
        group=case.group,
        title=case.title.replace("{size}", human(size)),
        measure=case.measure,
        subject=case.subject,
        bytes=size,
        cold=case.cold,
        headline=case.headline,
        rows=[_row(lane, by_name.get(case.subject, []), case.measure) for lane in lanes],
        peer=_compared(peer, by_name.get(case.subject, []), case.measure),
        floor=_above(floor, by_name.get(case.subject, []), case.measure),
        verdicts=[verdict for verdict in verdicts if verdict is not None],
        agree=all(other == seen[0] for other in seen),
    )


def _fastest(case: Case, lanes: list[Lane]) -> Lane | None:
    """Return the peer that needs the least of what the case measures."""
    peers = [lane for lane in lanes if lane.contender.role == Role.PEER and lane.samples]
    return min(peers, key=lambda lane: _middle(lane.samples, case.measure), default=None)


def _middle(samples: list[Sample], measure: str) -> float:
    return Spread.of(getattr(sample, measure) for sample in samples).median


def _resolved(goal: Goal | Limit, peer: Lane | None) -> Goal | Limit | None:
    """Put the fastest peer's own name into a goal; None where there is no peer."""
    if isinstance(goal, Limit) or goal.than != FASTEST:
        return goal
    return replace(goal, than=peer.contender.name) if peer else None


def _compared(peer: Lane | None, ours: list[Sample], measure: str) -> Compared | None:
    if peer is None or not ours:
        return None
    return Compared(peer.contender.name, ratios(peer.samples, ours, measure))


def _above(floor: Lane | None, ours: list[Sample], measure: str) -> Compared | None:
    if floor is None or not floor.samples or not ours:
        return None
    return Compared(floor.contender.name, ratios(ours, floor.samples, measure))


def _row(lane: Lane, subject: list[Sample], measure: str) -> Row:
    contender = lane.contender
    if not lane.samples:
        return Row(contender.name, contender.how, contender.role, lane.why)
    ratio = ratios(lane.samples, subject, measure) if subject else None
    samples = [asdict(sample) for sample in lane.samples]
    figures = _figures(lane.samples)
    return Row(contender.name, contender.how, contender.role, None, figures, ratio, samples)


def rates(made: int, rows: list[Row]) -> str:
    """Return how many tokens each contender made in a second, where they made any.

    Example:
        >>> rates(32, [Row("a", "", "ours", figures={"seconds": Spread(0.5, 0.5, 0.5)})])
        'tokens in a second: a 64.0'
    """
    known = [(row.name, row.figures["seconds"].median) for row in rows if row.why is None]
    told = ", ".join(f"{name} {made / seconds:.1f}" for name, seconds in known)
    return f"tokens in a second: {told}" if made and told else ""


def _figures(samples: list[Sample]) -> dict[str, Spread]:
    found = {name: [getattr(sample, name) for sample in samples] for name in MEASURES}
    return {name: Spread.of(those) for name, those in found.items() if None not in those}


def ratios(those: list[Sample], ours: list[Sample], measure: str) -> Spread:
    """Return how many times as much as ours the others needed: compared within each round.

    Example:
        >>> a, b = Sample(1.0, 1.0, 1.0, 1, 1), Sample(3.0, 3.0, 3.0, 1, 1)
        >>> ratios([b, b], [a, b], "seconds")
        Spread(median=2.0, low=1.0, high=3.0)
    """
    pairs = zip(those, ours, strict=False)  # the slowest contenders leave first
    return Spread.of(
        getattr(that, measure) / max(getattr(own, measure), 1e-9) for that, own in pairs
    )


def _verdict(goal: Goal | Limit, subject: str, samples: dict[str, list[Sample]]) -> Verdict | None:
    """Return whether a goal is met; None where one of those compared was not measured."""
    if isinstance(goal, Limit):
        return _within(goal, subject, samples[subject])
    ours = goal.ours or subject
    if not samples[goal.than] or not samples[ours]:
        return None
    ratio = ratios(samples[goal.than], samples[ours], goal.measure).median
    what = WORDS.get(goal.measure, "time")
    text = f"{goal.than} takes at least {goal.at_least:.3g} times the {what} of {ours}"
    return Verdict(text, f"{ratio:.3g}", ratio >= goal.at_least)


def _within(limit: Limit, subject: str, samples: list[Sample]) -> Verdict | None:
    """Return whether what is measured stays below a limit; None where it is not measured."""
    if not samples or getattr(samples[0], limit.measure) is None:
        return None
    figure = _middle(samples, limit.measure)
    if limit.measure in WORDS:
        text = f"{subject} takes at most {human(int(limit.at_most))} of {WORDS[limit.measure]}"
        return Verdict(text, human(int(figure)), figure <= limit.at_most)
    text = f"{subject} takes at most {limit.at_most:g} s"
    return Verdict(text, f"{figure:.3f} s", figure <= limit.at_most)
