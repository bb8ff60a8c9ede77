"""Every contender of every case does its job on small inputs, so that none of them rots."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from weighbridge.benchmarks import inputs
from weighbridge.benchmarks.case import FASTEST, Case, Goal
from weighbridge.benchmarks.cases import CASES, on_device
from weighbridge.benchmarks.contender import Call, Command, Contender, Role
from weighbridge.benchmarks.inputs import TINY, Workshop
from weighbridge.benchmarks.own import cases_of
from weighbridge.benchmarks.results import MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

SLOW = {"llama.cpp", "transformers"}
"""Contenders that take many seconds."""

REFUSED = {
    ("open-onnx-external", "ztensor"): "external data",
    ("load-onnx-external", "ztensor"): "external data",
}
"""What a contender says where it cannot do what a case asks, by case and contender."""

PAIRS = [
    pytest.param(
        case,
        contender,
        id=f"{case.name}-{contender.name}",
        marks=[pytest.mark.long] if contender.name in SLOW else [],
    )
    for case in CASES
    for contender in case.contenders
    if (case.name, contender.name) not in REFUSED
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Make small inputs, and remove them."""
    folder = tmp_path_factory.mktemp("benchmarks")
    yield Workshop(folder, TINY)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("case", "contender"), PAIRS)
def test_contender(
    benchmark: BenchmarkFixture, shop: Workshop, tmp_path: Path, case: Case, contender: Contender
) -> None:
    name = contender.input or case.input
    source = shop.path(name) if name else tmp_path
    if isinstance(contender, Call):
        outcome = benchmark(contender.prepare(source, tmp_path, **contender.options))
        assert all(outcome.seen.values())
    else:
        assert isinstance(contender, Command)
        benchmark.pedantic(run, args=(contender.argv(source, tmp_path),))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("name", "peer"), REFUSED)
def test_who_refuses_says_why(shop: Workshop, tmp_path: Path, name: str, peer: str) -> None:
    (case,) = [case for case in CASES if case.name == name]
    (contender,) = [contender for contender in case.contenders if contender.name == peer]
    assert case.input
    with pytest.raises(ValueError, match=REFUSED[name, peer]):
        called(contender, shop.path(case.input), tmp_path)


def called(contender: Contender, source: Path, scratch: Path) -> None:
    """Make a contender's call."""
    assert isinstance(contender, Call)
    contender.prepare(source, scratch, **contender.options)()


def run(lines: Sequence[Sequence[str]]) -> None:
    """Run commands one after the other."""
    for line in lines:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


EVERY = (*CASES, *on_device("cuda"))


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_case_is_whole(case: Case) -> None:
    names = [contender.name for contender in case.contenders]
    assert len(set(names)) == len(names)
    assert case.subject in names
    for name in {case.input, *(contender.input for contender in case.contenders)} - {None}:
        role, _, kind = str(name).rpartition("/")
        assert (role in TINY and kind in inputs.MADE) or name in inputs.REAL
    goals = [goal for goal in case.goals if isinstance(goal, Goal)]
    named = {name for goal in goals for name in (goal.than, goal.ours or case.subject)}
    assert named <= {*names, FASTEST}
    assert {case.measure, *(goal.measure for goal in case.goals)} <= set(MEASURES)


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in EVERY}) == len(EVERY)


@pytest.mark.parametrize("kind", ["safetensors", "checkpoint", "gguf-q4_k_m", "onnx-external"])
def test_own_models_have_cases_that_run(shop: Workshop, tmp_path: Path, kind: str) -> None:
    source = shop.path(f"main/{kind}")
    cases = cases_of([source], ["cpu"])
    assert {case.group for case in cases} >= {"Open", "One tensor", "Decode to BF16", "Convert"}
    for case in cases:
        subject = next(one for one in case.contenders if one.name == case.subject)
        scratch = tmp_path / case.name
        scratch.mkdir()
        called(subject, source, scratch)


def test_everyone_decodes_to_the_same_numbers(shop: Workshop, tmp_path: Path) -> None:
    source = shop.path("main/gguf-q4_k_m")
    (case,) = [case for case in cases_of([source], ["cpu"]) if case.group == "Decode to BF16"]
    calls = [one for one in case.contenders if isinstance(one, Call) and one.role != Role.FLOOR]
    outcomes = [one.prepare(source, tmp_path, **one.options)() for one in calls]
    assert len({str({**outcome.seen, **outcome.check()}) for outcome in outcomes}) == 1
    assert len(outcomes) >= 4
