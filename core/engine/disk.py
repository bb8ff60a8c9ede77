"""Writes at offsets, and what Linux can be asked so that the disk works while we do."""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says when there is no room."""

EARLY_BYTES = 1 << 20
"""Less than this is left for the kernel to write when it likes: pages are shared at both ends."""

WRITE = 2
"""``SYNC_FILE_RANGE_WRITE`` of sync_file_range(2): start to write out, and do not wait."""


@cache
def _libc(name: str, *arguments: str) -> Callable[..., int] | None:
    """Return a function of Linux' C library; None elsewhere."""
    if sys.platform != "linux":
        return None
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is not None:
        function.argtypes = [getattr(ctypes, argument) for argument in arguments]
    return function


def reserve(descriptor: int, size: int) -> None:
    """Give a file its size, and its place on the disk where the file system can.

    With the place known beforehand the disk is written faster, and a full one is found out
    before the work. `os.posix_fallocate` would write zeros where the file system cannot.

    Raises:
        OSError: (one of `FULL`) when there is no room.
    """
    os.truncate(descriptor, size)
    fallocate = _libc("fallocate", "c_int", "c_int", "c_int64", "c_int64")
    if fallocate is None or not size or not fallocate(descriptor, 0, 0, size):
        return
    import ctypes

    number = ctypes.get_errno()
    if number in FULL:
        raise OSError(number, os.strerror(number))


def start_writing(descriptor: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a range to the disk, so that the sync at the end is short."""
    begin = _libc("sync_file_range", "c_int", "c_int64", "c_int64", "c_uint")
    if begin is not None and length >= EARLY_BYTES:
        begin(descriptor, offset, length, WRITE)  # a hint: what it returns does not matter


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`.

    Raises:
        OSError: when the disk is full or broken.
    """
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)
