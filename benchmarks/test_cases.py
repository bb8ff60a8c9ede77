"""Every contender of every case does its job on small inputs, so that none of them rots."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from weighbridge.benchmarks.cases import CASES, Case, Goal
from weighbridge.benchmarks.contender import Call, Command, Contender
from weighbridge.benchmarks.inputs import MAKERS, QUICK, Workshop
from weighbridge.benchmarks.results import MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

SLOW = {"llama.cpp", "transformers"}
"""Contenders that take many seconds."""

PAIRS = [
    pytest.param(
        case,
        contender,
        id=f"{case.name}-{contender.name}",
        marks=[pytest.mark.long] if contender.name in SLOW else [],
    )
    for case in CASES
    for contender in case.contenders
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Make small inputs, and remove them."""
    folder = tmp_path_factory.mktemp("benchmarks")
    yield Workshop(folder, QUICK)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("case", "contender"), PAIRS)
def test_contender(
    benchmark: BenchmarkFixture, shop: Workshop, tmp_path: Path, case: Case, contender: Contender
) -> None:
    name = contender.input or case.input
    source = shop.path(name) if name else tmp_path
    if isinstance(contender, Call):
        outcome = benchmark(contender.prepare(source, tmp_path))
        assert all(outcome.seen.values())
    else:
        assert isinstance(contender, Command)
        benchmark.pedantic(run, args=(contender.argv(source, tmp_path),))  # type: ignore[no-untyped-call]


def run(lines: Sequence[Sequence[str]]) -> None:
    """Run commands one after the other."""
    for line in lines:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_is_whole(case: Case) -> None:
    names = [contender.name for contender in case.contenders]
    assert len(set(names)) == len(names)
    assert case.subject in names
    inputs = {case.input, *(contender.input for contender in case.contenders)} - {None}
    assert inputs <= set(MAKERS)
    goals = [goal for goal in case.goals if isinstance(goal, Goal)]
    assert {name for goal in goals for name in (goal.than, goal.ours or case.subject)} <= set(names)
    assert {case.measure, *(goal.measure for goal in case.goals)} <= set(MEASURES)


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
