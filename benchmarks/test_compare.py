"""A change of ours is found, and a machine that has become slower is none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from weighbridge.benchmarks.case import Case
from weighbridge.benchmarks.command import app
from weighbridge.benchmarks.compare import changes
from weighbridge.benchmarks.contender import Call, Outcome, Role
from weighbridge.benchmarks.measure import Sample
from weighbridge.benchmarks.results import Machine, Results, Settings
from weighbridge.benchmarks.run import Lane, summed_up

if TYPE_CHECKING:
    from pathlib import Path

MB = 1_000_000


def lane(name: str, role: Role, seconds: list[float], peak: int = 50 * MB) -> Lane:
    """Return a contender with its measurements."""
    samples = [Sample(each, each, each, peak, peak) for each in seconds]
    call = Call(name, "", role=role, prepare=lambda *_: lambda: Outcome({}))
    return Lane(call, None if seconds else "it broke", samples)


def results(
    ours: list[float],
    peer: list[float] | None = None,
    floor: list[float] | None = None,
    peak: int = 50 * MB,
) -> Results:
    """Return the results of one case."""
    others = [("peer", Role.PEER, peer), ("floor", Role.FLOOR, floor)]
    lanes = [lane("weighbridge", Role.OURS, ours, peak)]
    lanes += [lane(name, role, seconds) for name, role, seconds in others if seconds]
    case = summed_up(Case("x", "x", "x", None, ()), lanes, 0)
    machine = Machine("", 1, 1, "", "", 0.0, [])
    return Results(machine, "", 0.0, {}, Settings({}, None, 12.0, []), [case])


STEADY = [1.0, 1.0, 1.0]
OLD = results(STEADY, peer=[2.0, 2.0, 2.0], floor=[0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("new", "verdicts"),
    [
        (OLD, ["same", "same"]),
        (results([3.0] * 3, peer=[6.0] * 3, floor=[1.5] * 3), ["same", "same"]),
        (results([1.5] * 3, peer=[2.0] * 3, floor=[0.5] * 3), ["WORSE", "same"]),
        (results([0.9, 1.5, 1.6], [2.0] * 3, [0.5] * 3), ["worse, within the spread", "same"]),
        (results([0.5] * 3, peer=[2.0] * 3, floor=[0.5] * 3), ["better", "same"]),
        (results(STEADY, [2.0] * 3, [0.5] * 3, peak=90 * MB), ["same", "WORSE"]),
        (results(STEADY, [2.0] * 3, [0.5] * 3, peak=54 * MB), ["same", "same"]),
        (results([]), ["FAILS"]),
        (replace(OLD, cases=[]), []),
    ],
    ids=["same", "machine", "slower", "noise", "faster", "memory", "little", "fails", "absent"],
)
def test_changes(new: Results, verdicts: list[str]) -> None:
    assert [change.verdict for change in changes(OLD, new, 0.25)] == verdicts


def test_a_case_without_a_floor_is_set_beside_its_best_peer_of_before() -> None:
    old, new = results(STEADY, peer=[2.0] * 3), results([2.0] * 3, peer=[2.0] * 3)
    time, memory = changes(old, new, 0.25)
    assert (time.what, time.worse) == ("time, in times of peer's", True)
    assert not memory.worse


def test_a_case_with_nothing_beside_it_is_judged_by_memory_alone() -> None:
    (memory,) = changes(results([1.0]), results([9.0]), 0.25)
    assert memory.what == "peak memory"


@pytest.mark.parametrize(("seconds", "code"), [(1.0, 0), (2.0, 1)])
def test_the_command_exits_with_1_on_a_regression(
    tmp_path: Path, seconds: float, code: int
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    OLD.write(old)
    results([seconds] * 3, peer=[2.0] * 3, floor=[0.5] * 3).write(new)
    ran = CliRunner().invoke(app, ["--compare", str(old), str(new), "--threshold", "0.5"])
    assert ran.exit_code == code, ran.output
    assert f"{code} of 2 figures are worse" in ran.output
