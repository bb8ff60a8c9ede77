"""What the machine itself can do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def cp(source: Path, scratch: Path) -> list[list[str]]:
    """Copy a file as people do: in the kernel where it can, and not waiting for the disk."""
    return [["cp", str(source), str(scratch / "copy")]]


def cp_through_memory(source: Path, scratch: Path) -> list[list[str]]:
    """Copy every byte through the process, with reads and writes."""
    line = ["cp", "--reflink=never", "--sparse=never", str(source), str(scratch / "copy")]
    return [line]


def cp_and_sync(source: Path, scratch: Path) -> list[list[str]]:
    """Copy a file and wait until it is on the disk."""
    return [*cp(source, scratch), ["sync", str(scratch / "copy")]]


def python(source: Path, scratch: Path) -> list[list[str]]:
    """Start an interpreter that does nothing."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "pass"]]


def python_numpy(source: Path, scratch: Path) -> list[list[str]]:
    """Import NumPy."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "import numpy"]]
