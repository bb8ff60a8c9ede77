"""How dense tensors get from a file to the CPU's memory: mapped, or read by several threads."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.file import File

LOG = logging.getLogger("weighbridge.load")
"""Says, as information, what was chosen for each file and why."""

MMAP, PREAD, AUTO = "mmap", "pread", "auto"

REMOTE = {
    0x6969: "NFS", 0xFF534D42: "CIFS", 0xFE534D42: "SMB", 0x517B: "SMB", 0x65735546: "FUSE",
    0x0BD00BD0: "Lustre", 0x00C36400: "Ceph", 0x01021997: "9P", 0x5346414F: "AFS",
    0x6B414653: "AFS", 0x47504653: "GPFS", 0x19830326: "BeeGFS", 0x73757245: "Coda",
    0x01161970: "GFS2", 0x7461636F: "OCFS2",
}  # fmt: skip
"""Type numbers of file systems behind a network, or behind another process.

Sources: ``linux/magic.h``, statfs(2), and for Lustre, GPFS and BeeGFS GNU coreutils' ``stat``.
"""


@dataclass(frozen=True)
class Choice:
    """What is done with a file.

    Attributes:
        backend: ``mmap`` or ``pread``.
        reason: why, as a clause.
    """

    backend: str
    reason: str


def choose(file: File, wanted: str) -> Choice:
    """Return how the dense tensors of a file are loaded.

    A page of a map that is not in memory is waited for alone, which over a network takes long;
    reads ask for much at once, and several at a time.

    Args:
        file: the file.
        wanted: ``mmap``, ``pread``, or ``auto`` to go by the file system.

    Raises:
        InvalidInput: (rule ``backend``) for another word.
    """
    check_backend(wanted)
    if wanted != AUTO:
        return Choice(wanted, "as asked")
    system = REMOTE.get(file_system(file.path) or 0)
    if system:
        return Choice(PREAD, f"it lies on {system}")
    return Choice(MMAP, "it lies on a local file system")


def check_backend(wanted: str) -> None:
    """Refuse what is no backend (rule ``backend``)."""
    if wanted not in {AUTO, MMAP, PREAD}:
        raise InvalidInput(
            "is not a backend", rule="backend", got=wanted, expected="auto, mmap or pread"
        )


def file_system(path: Path) -> int | None:
    """Return the type number of the file system that `path` is on; None where nothing tells."""
    if not sys.platform.startswith("linux"):
        return None
    # `struct statfs` begins with the type, in a machine word; it has 120 bytes at most.
    status = (ctypes.c_long * 32)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), ctypes.byref(status)):
        return None
    return status[0] & 0xFFFFFFFF
