"""Runs a plan: steps in parallel under one budget, then commits."""

from __future__ import annotations

import time
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.engine.budget import Budget, budget
from weighbridge.engine.commit import Staging
from weighbridge.engine.disk import FULL
from weighbridge.engine.expected import conversions, prepared
from weighbridge.engine.jobs import Job, jobs_of
from weighbridge.engine.progress import Event, Progress, reporter
from weighbridge.errors import Error, InvalidInput, SystemRefusal
from weighbridge.steps import Route
from weighbridge.target import check_appeared

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from weighbridge.layout import Layout
    from weighbridge.steps import Plan


@dataclass(frozen=True)
class Result:
    """What a run did.

    Attributes:
        target: the file or directory that was written.
        files: the names of the files in it, or of its shards.
        bytes: how many bytes were written, headers included.
        seconds: how long it took, syncing included.
    """

    target: Path
    files: tuple[str, ...]
    bytes: int
    seconds: float


def write(
    plan: Plan,
    *,
    memory: int | str | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: bool | Progress = False,
) -> Result:
    """Run `plan`; see `weighbridge.steps.Plan.run`."""
    plan.check()
    if plan.layout is None:
        raise InvalidInput("the plan has no layout", rule="plan", path=plan.target)
    started = time.perf_counter()
    bounds = budget(memory, threads)
    if executor is None:
        bounds = prepared(_expected(plan), bounds.bytes, bounds.threads)
    with _refusals(plan.target), reporter(progress, plan.target.name) as tell:
        _write(plan, plan.layout, bounds, executor, tell)
    names = tuple(file.name for file in plan.layout.files)
    return Result(plan.target, names, plan.written_bytes, time.perf_counter() - started)


def _expected(plan: Plan) -> Mapping[tuple[str, str], int]:
    decoded = [step.tensor for step in plan.steps if step.route is Route.DECODE]
    return conversions((tensor, tensor.encoding) for tensor in decoded)


def _write(
    plan: Plan, layout: Layout, bounds: Budget, executor: Executor | None, tell: Progress
) -> None:
    check_appeared(plan.target, layout, plan.replaces, directory=plan.directory)
    total = sum(step.written_bytes for step in plan.steps)
    staging = Staging(plan.target, layout, directory=plan.directory, replaces=plan.replaces)
    with staging:
        jobs = (job for step in plan.steps for job in jobs_of(step, staging.files, bounds.values))
        with workers(executor, bounds) as pool:
            run_jobs(jobs, pool, bounds, total, tell)
        for file in plan.source.resources:
            file.check_unchanged()
        check_appeared(plan.target, layout, plan.replaces, directory=plan.directory)
        staging.commit()


@contextmanager
def _refusals(target: Path) -> Iterator[None]:
    """Turn what the system says into errors that name the target."""
    try:
        yield
    except Error:
        raise
    except OSError as error:
        full = error.errno in FULL
        raise SystemRefusal(
            f"could not be written: {error.strerror or error}",
            rule="disk-full" if full else "system",
            path=target,
        ) from error
    except BrokenExecutor as error:
        raise SystemRefusal("a worker has died", rule="worker", path=target) from error


@contextmanager
def workers(executor: Executor | None, bounds: Budget) -> Iterator[Executor]:
    """Give the executor itself, or as many threads as `bounds` allows."""
    if executor is not None:
        yield executor
        return
    pool = ThreadPoolExecutor(bounds.threads, thread_name_prefix="weighbridge")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_jobs(
    jobs: Iterable[Job], pool: Executor, bounds: Budget, total: int, tell: Progress
) -> None:
    """Run jobs on `pool`, never more at once than the budget pays for.

    A job that costs more than the whole budget runs alone. The first error, or an interrupt,
    stops the rest and is raised once the running ones have ended.
    """
    running: dict[Future[int], Job] = {}
    done = 0
    try:
        for job in jobs:
            while running and not _affordable(job, running, bounds):
                done = _collect(running, done, total, tell)
            running[pool.submit(job.run)] = job
        while running:
            done = _collect(running, done, total, tell)
    except BaseException:
        for future in running:
            future.cancel()
        wait(running)
        raise


def _affordable(job: Job, running: dict[Future[int], Job], bounds: Budget) -> bool:
    cost = sum(other.cost for other in running.values())
    return len(running) < 2 * bounds.threads and cost + job.cost <= bounds.bytes


def _collect(running: dict[Future[int], Job], done: int, total: int, tell: Progress) -> int:
    finished, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in finished:
        job = running.pop(future)
        done += future.result()
        tell(Event(done, total, job.name))
    return done
