"""The process of its own in which a call is measured: ``python -m weighbridge.benchmarks.worker``.

Takes a request as JSON on the command line and writes what it measured, as JSON, to a file.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.benchmarks.memory import device_memory, memory_of, reset_peak, traffic_of

if TYPE_CHECKING:
    from weighbridge.benchmarks.contender import Prepare, Timed

LONGEST = 0.5
"""Seconds that the calls after the first may take together; one of them is always made."""

MOST = 50
"""Calls after the first."""

LONG = 2.0
"""Seconds of a first call after which it is not made again: what comes first only is no part."""


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        function: ``module:name`` of the function that prepares the call.
        source: the input.
        scratch: an empty directory for what the call writes.
        result: the file to write.
        again: whether to call more than once.
        options: what the function is given beside the paths.
    """

    function: str
    source: str
    scratch: str
    result: str
    again: bool
    options: dict[str, str]


@dataclass(frozen=True)
class Measured:
    """What a worker measured.

    Attributes:
        start: the monotonic time at which the first call began.
        end: and at which it ended.
        first: seconds of the first call.
        again: seconds of each call after it.
        cpu: processor seconds of the first call, all threads together.
        baseline: private bytes before it.
        private: private bytes that it added, with its result held.
        peak: by how many bytes the peak of resident memory went beyond what was there before.
        read: bytes that it read with system calls, and
        disk: those that came from the disk.
        device: the most bytes on another device, None where there is none, and
        pinned: pinned on the host for it.
        seen: what the call says about its input.
    """

    start: float
    end: float
    first: float
    again: list[float]
    cpu: float
    baseline: int
    private: int
    peak: int
    read: int
    disk: int
    device: int | None
    pinned: int | None
    seen: dict[str, int]


def main() -> None:
    """Measure what the command line asks for."""
    request = Request(**json.loads(sys.argv[1]))
    module, _, name = request.function.partition(":")
    prepare: Prepare = getattr(import_module(module), name)
    call = prepare(Path(request.source), Path(request.scratch), **request.options)
    Path(request.result).write_text(json.dumps(asdict(measure(call, again=request.again))))


def measure(call: Timed, *, again: bool) -> Measured:
    """Call once for time and memory, and, if asked for, again for time alone."""
    before, traffic = memory_of(), traffic_of()
    reset_peak()
    cpu, start = time.process_time(), time.monotonic()
    outcome = call()
    end, cpu = time.monotonic(), time.process_time() - cpu
    after, traffic, device = memory_of(), traffic_of() - traffic, device_memory()
    seen = {**outcome.seen, **outcome.check()}
    del outcome  # what is called again starts with free memory, as the first call did
    return Measured(
        start=start,
        end=end,
        first=end - start,
        again=_timed_again(call) if again and end - start < LONG else [],
        cpu=cpu,
        baseline=before.private,
        private=after.private - before.private,
        peak=max(after.peak - before.resident, 0),
        read=traffic.read,
        disk=traffic.disk,
        device=None if device is None else device.device,
        pinned=None if device is None else device.pinned,
        seen=seen,
    )


def _timed_again(call: Timed) -> list[float]:
    seconds: list[float] = []
    while not seconds or (sum(seconds) < LONGEST and len(seconds) < MOST):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
