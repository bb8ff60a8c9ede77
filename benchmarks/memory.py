"""How much memory a process has, read from Linux' ``/proc``."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

FIELDS = {"VmRSS": "resident", "VmHWM": "peak", "RssAnon": "private"}
"""Lines of ``/proc/PID/status`` (proc_pid_status(5)) and the fields that they fill."""

INTERVAL = 0.003
"""Seconds between two looks at a process that is watched."""


@dataclass(frozen=True)
class Memory:
    """What a process has in memory, in bytes.

    Attributes:
        resident: all of it.
        peak: the most that was ever resident.
        private: what is not backed by a file.
    """

    resident: int = 0
    peak: int = 0
    private: int = 0


def memory_of(pid: int | str = "self") -> Memory:
    """Return the memory of a process; nothing of one that has ended.

    Example:
        >>> memory_of().peak >= memory_of().private > 0
        True
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return Memory()
    read = (line.partition(":") for line in lines)
    found = {FIELDS[key]: int(rest.split()[0]) << 10 for key, _, rest in read if key in FIELDS}
    return Memory(**found)


@dataclass(frozen=True)
class Traffic:
    """What a process has read, in bytes (proc_pid_io(5)).

    Attributes:
        read: with read(2) and its like, wherever it came from; pages of maps are not counted.
        disk: from the disk.
    """

    read: int = 0
    disk: int = 0

    def __sub__(self, before: Traffic) -> Traffic:
        """Return what was read since."""
        return Traffic(self.read - before.read, self.disk - before.disk)


def traffic_of(pid: int | str = "self") -> Traffic:
    """Return what a process has read, and its children that it has waited for.

    Example:
        >>> traffic_of().read > 0
        True
    """
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:  # some systems do not show it
        return Traffic()
    counts = {key: int(count) for key, _, count in (line.partition(":") for line in lines)}
    return Traffic(counts["rchar"], counts["read_bytes"])


@dataclass(frozen=True)
class DeviceMemory:
    """The most memory that torch has had on a device, and pinned for it; in bytes.

    Attributes:
        device: on the device.
        pinned: on the host.
    """

    device: int
    pinned: int


def device_memory() -> DeviceMemory | None:
    """Return the peaks of this process; None where no device was used.

    Loaders that take device memory past torch are seen with what torch has of theirs alone.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    host = torch.cuda.host_memory_stats()
    device = max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    return DeviceMemory(device, host.get("allocated_bytes.peak", 0))


def reset_peak() -> None:
    """Make this process's peak what it has resident now (proc_pid_clear_refs(5), value 5)."""
    Path("/proc/self/clear_refs").write_text("5")


@dataclass
class Watch:
    """Looks at a process every few milliseconds until the block ends.

    The peak is the kernel's own high-water mark, so that a look that comes late misses nothing but
    the last milliseconds. For private memory there is no such mark: its peak is the largest seen.

    Attributes:
        pid: the process.
        looks: (monotonic seconds, memory) of each look.
    """

    pid: int
    looks: list[tuple[float, Memory]] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Start to look."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        with suppress(OSError):
            while not self._ended.wait(INTERVAL):
                self.looks.append((time.monotonic(), memory_of(self.pid)))

    def private(self, start: float, end: float) -> int:
        """Return the most private memory that was seen between two monotonic times."""
        return max((look.private for at, look in self.looks if start <= at <= end), default=0)

    @property
    def peak(self) -> int:
        """The highest mark that was seen."""
        return max((look.peak for _, look in self.looks), default=0)
