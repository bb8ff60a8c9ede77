"""Memory for tensors: how much there is, and an error that says so where it is not enough."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.engine.pages import Pages
from weighbridge.engine.torch_types import import_torch, torch_dtype
from weighbridge.errors import OutOfMemory
from weighbridge.sizes import human

if TYPE_CHECKING:
    import torch

    from weighbridge.encoding import Dense
    from weighbridge.region import Shape

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int | None:
    """Return the memory that the system has left for this process; None where it does not tell.

    What the page cache holds counts as free. In a container its own bound counts too.
    """
    bounds = [found for found in (_of_machine(), _of_group()) if found is not None]
    return min(bounds, default=None)


def _of_machine() -> int | None:
    """Return what Linux may hand out (``MemAvailable``), with what it may swap out."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return sum(int(lines[key].split()[0]) << 10 for key in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None


def _of_group() -> int | None:
    """Return what the control group (version 2) that a container sees as its root has left."""
    try:
        bound = int((CGROUP / "memory.max").read_text())
        used = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(bound - int(used["anon"]), 0)
    except (OSError, KeyError, ValueError):
        return None


class HostMemory:
    """Hands out tensors on the CPU, and refuses before the system runs out of memory.

    Linux promises more memory than it has, and ends a process that uses it; so what is promised is
    summed up here.
    """

    def __init__(self, pages: Pages | None = None) -> None:
        """Look at what is free.

        Args:
            pages: where memory comes from; None takes new pages.
        """
        self._free = free_bytes()
        self._taken = 0
        self._pages = pages or Pages()

    def empty(self, name: str, shape: Shape, dtype: Dense) -> torch.Tensor:
        """Return a tensor whose numbers are not set, aligned for the widest vectors.

        Raises:
            OutOfMemory: (rule ``memory``) when there is not enough for it.
        """
        torch = import_torch()
        nbytes = math.prod(shape) * dtype.dtype.itemsize
        self._taken += nbytes
        if self._free is not None and self._taken > self._free:
            raise out_of_memory(name, nbytes, self._free - self._taken + nbytes)
        if not nbytes:
            return torch.empty(shape, dtype=torch_dtype(dtype))  # type: ignore[no-any-return]
        try:
            memory = self._pages.take(nbytes)
        except (OSError, OverflowError):
            raise out_of_memory(name, nbytes, self._free) from None
        return torch.frombuffer(memory, dtype=torch_dtype(dtype)).reshape(shape)  # type: ignore[no-any-return]


def out_of_memory(
    name: str | None, asked: int, free: int | None, where: str = "memory"
) -> OutOfMemory:
    """Return the error for a tensor that finds no room.

    Example:
        >>> print(out_of_memory("w", 2_000_000, 500_000))
        tensor 'w': does not fit in memory (got 500.0 kB free, expected 2.0 MB) [memory]
    """
    return OutOfMemory(
        f"does not fit in {where}",
        rule="memory",
        tensor=name,
        got=None if free is None else f"{human(free)} free",
        expected=human(asked),
    )
