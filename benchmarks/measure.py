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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.benchmarks.cache import cached, evict, warm
from weighbridge.benchmarks.contender import Call, Command, Contender
from weighbridge.benchmarks.memory import Traffic, Watch, traffic_of
from weighbridge.benchmarks.worker import Measured, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 900
"""Seconds after which a process is given up."""

REST = 0.02
"""The share of its pages that a cold file may still have in the page cache."""


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
        private: the most bytes that were not backed by a file.
        read: bytes read with system calls; pages of mapped files are not counted.
        disk: bytes read from the disk.
        device: the most bytes on another device; None where there is none.
        pinned: the most bytes pinned on the host for it.
        cached: the share of the input's pages that was in the page cache before.
        written: bytes of the files that it left behind.
        seen: what a call says about its input.
    """

    seconds: float
    first: float
    cpu: float
    peak: int
    private: int
    read: int = 0
    disk: int = 0
    device: int | None = None
    pinned: int | None = None
    cached: float | None = None
    written: int = 0
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def file(self) -> int:
        """The part of the peak that is backed by files."""
        return max(self.peak - self.private, 0)

    @property
    def beyond(self) -> int:
        """The part of the peak that is not the result; all of it where that is on a device."""
        result = self.seen.get("bytes", 0) if self.device is None else 0
        return max(self.peak - result, 0)


def take(
    contender: Contender,
    source: Path,
    work: Path,
    *,
    again: bool,
    files: Sequence[Path] = (),
    cold: bool = False,
) -> Sample:
    """Measure a contender once; what it writes is removed.

    Args:
        contender: what is measured.
        source: its input.
        work: where it may write.
        again: whether a call is repeated in its process, after the first that is always made.
        files: those of the input, which are brought into the page cache, or driven out of it.
        cold: whether they are driven out.

    Raises:
        Failed: when its process ends with an error, or the page cache cannot be emptied.
    """
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=work))
    os.sync()  # what was written before must not be waited for now
    try:
        share = _made_ready(files, cold=cold)
        if isinstance(contender, Command):
            sample = _command(contender.argv(source, scratch), scratch)
        else:
            assert isinstance(contender, Call)
            sample = _call(contender, source, scratch, again=again)
        written = sum(file.stat().st_size for file in scratch.rglob("*") if file.is_file())
    finally:
        shutil.rmtree(scratch)
    return replace(sample, cached=share, written=written)


def _made_ready(files: Sequence[Path], *, cold: bool) -> float | None:
    """Fill or empty the page cache, and return the share of the files that is in it then."""
    if not files:
        return None
    if cold:
        evict(files)
    elif cached(files) < 1:
        warm(files)
    share = cached(files)
    if cold and share > REST:
        raise Failed(f"the page cache cannot be emptied here: {share:.0%} of the input stayed")
    return share


def _command(lines: Sequence[Sequence[str]], scratch: Path) -> Sample:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    watches, traffic = zip(*(_run(line, scratch) for line in lines), strict=True)
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Sample(
        seconds=seconds,
        first=seconds,
        cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak=max(watch.peak for watch in watches),
        private=max(watch.private(start, start + seconds) for watch in watches),
        read=sum(each.read for each in traffic),
        disk=sum(each.disk for each in traffic),
    )


def _call(contender: Call, source: Path, scratch: Path, *, again: bool) -> Sample:
    function = f"{contender.prepare.__module__}:{contender.prepare.__name__}"
    result = scratch / "measured.json"
    request = Request(
        function, str(source), str(scratch), str(result), again, dict(contender.options)
    )
    worker = (sys.executable, "-P", "-m", "weighbridge.benchmarks.worker")
    watch, _ = _run([*worker, json.dumps(asdict(request))], scratch)
    measured = Measured(**json.loads(result.read_text()))
    seen_on_the_way = watch.private(measured.start, measured.end) - measured.baseline
    private = max(measured.private, seen_on_the_way, 0)
    return Sample(
        seconds=statistics.median(measured.again or [measured.first]),
        first=measured.first,
        cpu=measured.cpu,
        peak=max(measured.peak, private),
        private=private,
        read=measured.read,
        disk=measured.disk,
        device=measured.device,
        pinned=measured.pinned,
        seen=measured.seen,
    )


def _environment() -> dict[str, str]:
    """Return the environment, with bytecode kept: only installed packages have theirs otherwise."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _run(line: Sequence[str], scratch: Path) -> tuple[Watch, Traffic]:
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
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            traffic = traffic_of(process.pid)  # what is left of a process that is not waited for
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            limit.cancel()
    if code:
        words = log.read_text(errors="replace").strip().splitlines()
        raise Failed(words[-1] if words else f"exit code {code}")
    return watch, traffic
