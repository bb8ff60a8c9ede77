"""New memory for results, in huge pages where the kernel has such and gives them quickly.

Memory costs a page fault for each page when it is first written to: a gigabyte takes 262 144 of
them in pages of 4 KiB, which take longer than to decode what is put there, and threads wait for
each other in them. In pages of 2 MiB there are 512.

In a virtual machine whose host takes back what is free (free page reporting of the balloon), a
huge page may take 6 ms instead of 0.1: the host has to find 2 MiB for it, where small ones come
from what the machine still has. So each is populated when it is asked for, and once one is slow,
or the kernel cannot do that (before Linux 5.14), no more are asked for.

Source: madvise(2), ``MADV_HUGEPAGE`` and ``MADV_POPULATE_WRITE``;
``Documentation/admin-guide/mm/transhuge.rst`` of Linux.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from contextlib import suppress

HUGE = 1 << 21
"""Bytes of a huge page: of x86-64, and of ARM with pages of 4 KiB."""

SHARED = 1 << 25
"""Bytes of the memory that small results share: none of it is free before all of them are."""

ALONE = 1 << 22
"""Results of so many bytes have memory of their own."""

ALIGNED = 64
"""What addresses are a multiple of: the widest vectors, and a line of the cache."""

POPULATE_WRITE = 23
"""``MADV_POPULATE_WRITE``, which the module `mmap` does not name: it changes no byte."""

SLOW = 0.0008
"""Processor seconds for a huge page after which small ones are faster."""


class Pages:
    """Hands out new memory, to any number of threads.

    Only huge pages that are handed out as a whole are asked for, so that no more memory becomes
    resident than small pages would take.

    Example:
        >>> memory = Pages().take(3)
        >>> memory[2] = 7
        >>> memory.tolist()
        [0, 0, 7]
    """

    def __init__(self) -> None:
        """Take nothing yet."""
        self._lock = threading.Lock()
        self._shared: _Map | None = None
        self._used = 0
        self._quick = hasattr(mmap, "MADV_HUGEPAGE")

    def take(self, nbytes: int) -> memoryview:
        """Return `nbytes` bytes of zeros, which stay as long as the view or what is made from it.

        Raises:
            OSError: when the system refuses.
        """
        with self._lock:
            if nbytes >= ALONE:
                return self._part(_Map(nbytes), 0, nbytes)
            start = -(-self._used // ALIGNED) * ALIGNED
            if self._shared is None or start + nbytes > SHARED:
                self._shared, start = _Map(SHARED), 0
            self._used = start + nbytes
            return self._part(self._shared, start, self._used)

    def _part(self, held: _Map, start: int, stop: int) -> memoryview:
        self._quick = self._quick and held.ask(stop)
        return held.bytes[start:stop]


class _Map:
    """Memory of its own that begins where a huge page can.

    Attributes:
        bytes: the memory.
    """

    def __init__(self, nbytes: int) -> None:
        # What is not private is a file in memory, which has no huge pages.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._map = mmap.mmap(-1, nbytes + HUGE, flags=flags)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._first = -address % HUGE
        self._asked = 0
        self.bytes = memoryview(self._map)[self._first : self._first + nbytes]

    def ask(self, stop: int) -> bool:
        """Ask for the huge pages that end before `stop`; tell whether they came quickly."""
        start, self._asked = self._asked, max(self._asked, stop // HUGE * HUGE)
        return all(self._try(at) for at in range(start, self._asked, HUGE))

    def _try(self, start: int) -> bool:
        place = self._first + start, HUGE
        with suppress(OSError):  # of a kernel that was built without them
            self._map.madvise(mmap.MADV_HUGEPAGE, *place)
            if _is_quick(self._map, place):
                return True
            self._map.madvise(mmap.MADV_NOHUGEPAGE, *place)
        return False


def _is_quick(memory: mmap.mmap, place: tuple[int, int]) -> bool:
    """Populate a page that may be in use, and tell whether small ones would have taken longer."""
    start = time.thread_time()
    memory.madvise(POPULATE_WRITE, *place)
    return time.thread_time() - start < SLOW
