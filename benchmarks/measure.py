"""One measurement: one contender, once, in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.benchmarks.contender import Call, Command, Contender
from weighbridge.benchmarks.memory import Watch
from weighbridge.benchmarks.worker import Measured, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 900
"""Seconds after which a process is given up."""


class Failed(Exception):
    """A contender that ended with an error; the text is its last words."""


@dataclass(frozen=True)
class Sample:
    """What one measurement gave.

    Attributes:
        seconds: of a command; of a call, once it has been made before in the same process.
        first: seconds of a call that is the first in its process.
        cpu: processor seconds (of the first call), all threads together.
        peak: the peak of resident bytes; of a call, beyond what was there before.
        private: the part of `peak` that is not backed by a file.
        seen: what a call says about its input.
    """

    seconds: float
    first: float
    cpu: float
    peak: int
    private: int
    seen: dict[str, int] = field(default_factory=dict)


def take(contender: Contender, source: Path, work: Path, *, again: bool) -> Sample:
    """Measure a contender once; what it writes is removed.

    Args:
        contender: what is measured.
        source: its input.
        work: where it may write.
        again: whether a call is repeated in its process, after the first that is always made.

    Raises:
        Failed: when its process ends with an error.
    """
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=work))
    os.sync()  # what was written before must not be waited for now
    try:
        if isinstance(contender, Command):
            return _command(contender.argv(source, scratch), scratch)
        assert isinstance(contender, Call)
        return _call(contender, source, scratch, again=again)
    finally:
        shutil.rmtree(scratch)


def _command(lines: Sequence[Sequence[str]], scratch: Path) -> Sample:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    watches = [_run(line, scratch) for line in lines]
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Sample(
        seconds=seconds,
        first=seconds,
        cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak=max(watch.peak for watch in watches),
        private=max(watch.private(start, start + seconds) for watch in watches),
    )


def _call(contender: Call, source: Path, scratch: Path, *, again: bool) -> Sample:
    function = f"{contender.prepare.__module__}:{contender.prepare.__name__}"
    result = scratch / "measured.json"
    request = Request(function, str(source), str(scratch), str(result), again)
    worker = (sys.executable, "-P", "-m", "weighbridge.benchmarks.worker")
    watch = _run([*worker, json.dumps(asdict(request))], scratch)
    measured = Measured(**json.loads(result.read_text()))
    seen_on_the_way = watch.private(measured.start, measured.end) - measured.baseline
    private = max(measured.private, seen_on_the_way, 0)
    return Sample(
        seconds=statistics.median(measured.again or [measured.first]),
        first=measured.first,
        cpu=measured.cpu,
        peak=max(measured.peak, private),
        private=private,
        seen=measured.seen,
    )


def _environment() -> dict[str, str]:
    """Return the environment, with bytecode kept: only installed packages have theirs otherwise."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _run(line: Sequence[str], scratch: Path) -> Watch:
    log = scratch / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )
        limit = threading.Timer(LIMIT, process.kill)
        limit.start()
        try:
            with Watch(process.pid) as watch:
                code = process.wait()  # with a timeout it would look only every 50 ms
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            limit.cancel()
    if code:
        words = log.read_text(errors="replace").strip().splitlines()
        raise Failed(words[-1] if words else f"exit code {code}")
    return watch
