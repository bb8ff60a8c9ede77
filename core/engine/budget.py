"""How much may be in memory at once, and into what pieces the work is cut for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from weighbridge.errors import InvalidInput
from weighbridge.sizes import human, parse_size

VALUES = 1 << 21
"""Values in a piece of work where memory allows: large enough for the disk, small for the cache."""

BYTES_PER_VALUE = 24
"""What a value in work costs at most: read, decoded in float32, two temporaries, encoded."""

LEAST = 1 << 14
"""The fewest values that a piece of work is cut down to."""

MEMORY = 10**9
"""The bytes to work in where nobody says."""


@dataclass(frozen=True)
class Budget:
    """The bounds of a run.

    Attributes:
        threads: how many pieces of work run at once.
        values: how many values a piece has.
        bytes: how much the pieces in work may cost together.
    """

    threads: int
    values: int
    bytes: int


def budget(memory: int | str | None, threads: int | None, *, beside: bool = False) -> Budget:
    """Return the bounds for a process that may have `memory` bytes resident.

    Args:
        memory: in bytes or as ``"1GB"``. What the interpreter, the headers and the caller take
            already is subtracted. None allows `MEMORY` beside that.
        threads: how many threads work; None takes one for each core.
        beside: whether `memory`, too, counts beside what is taken already.

    Raises:
        InvalidInput: (rule ``memory``) when too little is left, (rule ``threads``) for less than
            one thread.
    """
    if threads is not None and threads < 1:
        raise InvalidInput("needs at least one thread", rule="threads", got=threads)
    workers = threads or cores()
    taken = 0 if beside or memory is None else resident_bytes()
    free = parse_size(memory or MEMORY) - taken
    least = LEAST * BYTES_PER_VALUE
    if free < least:
        raise InvalidInput(
            "too little memory to work in",
            rule="memory",
            got=memory,
            expected=f"at least {human(taken + least * 4)}",
            hint="raise --memory",
        )
    workers = min(workers, free // least)
    values = min(VALUES, free // (BYTES_PER_VALUE * workers))
    return Budget(workers, values, free)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_bytes() -> int:
    """Return the memory that this process has resident and does not share with files."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
