"""The engine writes what the plan says, whatever the memory, the workers and the system calls."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.plans import expected_files, numbers, plan_of, some_tensors, written_files
from support.stored import in_file

from weighbridge.encoding import DENSE, scaled
from weighbridge.engine import jobs
from weighbridge.engine.budget import BYTES_PER_VALUE, LEAST, Budget, budget, resident_bytes
from weighbridge.engine.jobs import CopyJob, RegionJob, jobs_of
from weighbridge.engine.write import run_jobs
from weighbridge.errors import Error, InvalidFile, InvalidInput, SystemRefusal
from weighbridge.ops import Add, Concat, Swap, Transpose, apply
from weighbridge.recode import Recoded, recode
from weighbridge.steps import Route
from weighbridge.tensor import from_array
from weighbridge.testing.models import tensor_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weighbridge.engine.progress import Event


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.bin"


def test_every_route_writes_the_bytes_of_the_plan(tmp_path: Path, target: Path) -> None:
    plan = plan_of(some_tensors(tmp_path), target)
    result = plan.run()
    assert written_files(plan) == expected_files(plan)
    assert (result.files, result.bytes) == (("model.bin",), target.stat().st_size)
    assert {step.route for step in plan.steps} == {Route.COPY, Route.MOVE, Route.DECODE}


@pytest.mark.parametrize("directory", [True, False])
def test_several_files_are_written(tmp_path: Path, target: Path, directory: bool) -> None:
    names = ("one.bin", "two.bin", "three.bin")
    place = target.with_name("model") if directory else target.with_name("one.bin")
    plan = plan_of(some_tensors(tmp_path), place, names=names)
    result = plan.run()
    assert written_files(plan) == expected_files(plan)
    assert result.files == (*names, *(["sub/config.json"] if directory else []))


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_least_memory_is_enough(tmp_path: Path, target: Path, threads: int) -> None:
    plan = plan_of(some_tensors(tmp_path, rows=3000), target)
    bounds = budget(LEAST * BYTES_PER_VALUE, threads, beside=True)
    assert bounds.values == LEAST
    assert len([job for step in plan.steps for job in jobs_of(step, [target], LEAST)]) > 40
    memory = resident_bytes() + 50 * LEAST * BYTES_PER_VALUE
    plan.run(memory=memory, threads=threads)
    assert written_files(plan) == expected_files(plan)


def test_too_little_memory_is_refused(tmp_path: Path, target: Path) -> None:
    for memory, threads, rule in (("1MB", None, "memory"), ("0", 1, "size"), ("1GB", 0, "threads")):
        with pytest.raises(InvalidInput) as caught:
            plan_of(some_tensors(tmp_path), target).run(memory=memory, threads=threads)
        assert caught.value.rule == rule
    assert list(target.parent.iterdir()) == []


class Ledger(ThreadPoolExecutor):
    """Threads that note what the jobs in work cost together."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.lock = threading.Lock()
        self.now = self.most = 0

    def submit(self, run: object, /) -> Future[int]:  # type: ignore[override]
        with self.lock:
            self.now += run.__self__.cost
            self.most = max(self.most, self.now)
        return super().submit(self._counted, run)

    def _counted(self, run: object) -> int:
        try:
            return run()
        finally:
            with self.lock:
                self.now -= run.__self__.cost


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_in_work_never_costs_more_than_the_budget(
    tmp_path: Path, target: Path, threads: int
) -> None:
    tensors = some_tensors(tmp_path, rows=4000)
    plan = plan_of({name: tensors[name] for name in ("moved", "widened", "rounded")}, target)
    target.write_bytes(bytes(plan.written_bytes))
    bounds = Budget(threads, LEAST, 3 * LEAST * BYTES_PER_VALUE)
    work = [job for step in plan.steps for job in jobs_of(step, [target], bounds.values)]
    assert len(work) > 20
    with Ledger(threads) as pool:
        run_jobs(work, pool, bounds, 0, lambda event: None)
    assert LEAST * BYTES_PER_VALUE <= pool.most <= bounds.bytes
    assert pool.now == 0


def test_a_tensor_larger_than_the_budget_goes_in_pieces(tmp_path: Path, target: Path) -> None:
    wide = in_file(tensor_of("wide", DENSE["f32"], (2, 50_000)), tmp_path / "wide")
    plan = plan_of({"wide": recode(wide, DENSE["f16"])}, target)
    work = list(jobs_of(plan.steps[0], [target], LEAST))
    assert all(isinstance(job, RegionJob) and job.cost <= LEAST * BYTES_PER_VALUE for job in work)
    assert len(work) == 8


def test_a_copy_goes_in_pieces(tmp_path: Path, target: Path, monkeypatch: object) -> None:
    monkeypatch.setattr(jobs, "COPY_BYTES", 1000)
    stored = in_file(tensor_of("x", DENSE["u8"], (2500,)), tmp_path / "x")
    plan = plan_of({"x": stored}, target)
    assert [job.length for job in jobs_of(plan.steps[0], [target], 1)] == [1000, 1000, 500]
    plan.run()
    assert written_files(plan) == expected_files(plan)


KERNEL_COPIES = {
    "refused at once": [errno.EXDEV],
    "not there": [errno.ENOSYS],
    "not for these files": [errno.EOPNOTSUPP],
    "invalid": [errno.EINVAL],
    "refused later": [700, errno.EXDEV],
    "short": [1, 500, 100_000],
    "stops": [300, 0],
}


@pytest.mark.parametrize("answers", KERNEL_COPIES.values(), ids=KERNEL_COPIES)
def test_a_copy_is_whole_whatever_the_kernel_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[int]
) -> None:
    """A number is an error where it is one that stands for "cannot", else bytes to copy."""
    stored = in_file(tensor_of("x", DENSE["u8"], (5000,)), tmp_path / "x")
    extent = stored.parts["data"]
    target = tmp_path / "target"
    target.write_bytes(bytes(extent.offset + extent.length))
    script = iter(answers)
    real = os.copy_file_range

    def scripted(source: int, sink: int, count: int, first: int, at: int) -> int:
        answer = next(script, count)
        if answer in jobs.NO_KERNEL_COPY:
            raise OSError(answer, os.strerror(answer))
        return real(source, sink, min(answer, count), first, at) if answer else 0

    monkeypatch.setattr(os, "copy_file_range", scripted)
    assert CopyJob("x", extent, 0, extent.length, target, extent.offset).run() == 5000
    assert target.read_bytes()[extent.offset :] == stored.part().tobytes()


def test_a_copy_needs_no_kernel_that_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "copy_file_range")
    stored = in_file(tensor_of("x", DENSE["u8"], (5000,)), tmp_path / "x")
    extent = stored.parts["data"]
    (tmp_path / "target").touch()
    CopyJob("x", extent, 0, 5000, tmp_path / "target", extent.offset).run()
    assert (tmp_path / "target").read_bytes()[extent.offset :] == stored.part().tobytes()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_do_the_work_as_well(tmp_path: Path, target: Path, method: str) -> None:
    plan = plan_of(some_tensors(tmp_path, rows=300), target)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context) as pool:
        plan.run(executor=pool)
        with pytest.raises(InvalidFile) as caught:
            plan_of({"bad": overflowing(tmp_path)}, tmp_path / "other").run(executor=pool)
    assert written_files(plan) == expected_files(plan)
    assert (caught.value.rule, caught.value.tensor) == ("truncated", "bad")


def overflowing(folder: Path) -> Recoded:
    """Return a tensor whose file has lost its end."""
    stored = in_file(tensor_of("x", DENSE["f32"], (1000,)), folder / "short")
    os.truncate(folder / "short", 2000)
    return Recoded(stored, DENSE["f64"])


def test_a_worker_that_dies_is_an_error(tmp_path: Path, target: Path) -> None:
    plan = plan_of({"x": Recoded(Deadly("x", (4,), DENSE["f32"]), DENSE["f64"])}, target)
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool,
        pytest.raises(SystemRefusal) as caught,
    ):
        plan.run(executor=pool)
    assert caught.value.rule == "worker"
    assert list(target.parent.iterdir()) == []


class Deadly:
    """A tensor that kills who reads it."""

    def __init__(self, name: str, shape: tuple, encoding: object) -> None:
        self.name, self.shape, self.encoding = name, shape, encoding

    def leaves(self) -> Iterator[object]:
        return iter(())

    def units(self) -> tuple[int, ...]:
        return (1,) * len(self.shape)

    def compute(self, region: object) -> None:
        os._exit(9)


def test_progress_adds_up(tmp_path: Path, target: Path) -> None:
    events: list[Event] = []
    plan = plan_of(some_tensors(tmp_path), target)
    plan.run(progress=events.append, threads=3)
    total = sum(step.written_bytes for step in plan.steps)
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert {event.total for event in events} == {events[-1].done} == {total}
    assert {event.name for event in events} == {s.name for s in plan.steps if s.written_bytes}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_is_for_terminals_only(
    tmp_path: Path,
    target: Path,
    terminal: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    hostile = target.with_name("a[bold]\x1b[2J.bin")
    plan_of(some_tensors(tmp_path), hostile).run(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert (r"a[bold]\x1b[2J.bin" in err) == bool(err) == terminal
    assert "\x1b[2J" not in err


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("name", ["copied", "moved", "widened"])
def test_a_source_that_shrinks_is_an_error(
    tmp_path: Path, target: Path, name: str, opened: bool
) -> None:
    plan = plan_of({name: some_tensors(tmp_path)[name]}, target)
    if opened:
        plan.source.resources[0].read(0, 1)
    os.truncate(tmp_path / "q8_0.bytes", 600)
    with pytest.raises(InvalidFile) as caught:
        plan.run()
    assert caught.value.rule == "truncated"
    assert caught.value.path == str(tmp_path / "q8_0.bytes")
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["copied", "moved"])
def test_a_source_that_changes_is_an_error(tmp_path: Path, target: Path, name: str) -> None:
    plan = plan_of({name: some_tensors(tmp_path)[name]}, target)

    def touch(event: Event) -> None:
        os.utime(tmp_path / "q8_0.bytes", ns=(1, 1))

    with pytest.raises(InvalidFile) as caught:
        plan.run(progress=touch)
    assert caught.value.rule == "changed"
    assert list(target.parent.iterdir()) == []


def test_several_parts_are_copied(tmp_path: Path, target: Path) -> None:
    fp8 = scaled(DENSE["f8_e4m3"], DENSE["f32"], (2, 4))
    plan = plan_of({"x": in_file(tensor_of("x", fp8, (4, 8)), tmp_path / "x")}, target)
    plan.run()
    assert written_files(plan) == expected_files(plan)


def test_operations_on_packed_and_on_decoded_numbers_are_written(
    tmp_path: Path, target: Path
) -> None:
    q8_0 = some_tensors(tmp_path, rows=40)["copied"]
    f32 = numbers(DENSE["f32"], (160, 64))
    lazies = {
        "added": apply(Add(1.0), [q8_0])[0],
        "turned": apply(Transpose(), [q8_0])[0],
        "joined": apply(Concat(0, (160, 160)), [q8_0, q8_0])[0],
        "mixed": apply(Concat(0, (160, 160)), [q8_0, f32])[0],
        "requantised": recode(apply(Swap(1, 2, 2, 4), [q8_0])[0], q8_0.encoding),
    }
    values = {name: lazy.values() for name, lazy in lazies.items()}
    plan = plan_of(lazies, target)
    plan.run()
    content = target.read_bytes()
    for step in plan.steps[:4]:
        slot = step.slots["data"]
        data = content[slot.offset : slot.offset + slot.length]
        if step.tensor.encoding == DENSE["f32"]:
            assert np.array_equal(np.frombuffer(data, "<f4"), values[step.name].ravel())
    assert written_files(plan) == expected_files(plan)


def test_errors_name_the_tensor(target: Path) -> None:
    big = from_array("theirs", np.array([1e30], np.float32))
    with pytest.raises(Error) as caught:
        plan_of({"ours": recode(big, DENSE["f16"])}, target).run()
    assert (caught.value.rule, caught.value.tensor) == ("overflow", "ours")
    assert list(target.parent.iterdir()) == []
