"""A file that is read by byte ranges."""

from __future__ import annotations

import mmap
import os
import stat
import threading
from pathlib import Path
from typing import Any

from weighbridge.errors import InvalidFile, InvalidInput, NotFound


class File:
    """A regular file, opened when it is first read, and read by ranges.

    Headers and single tensors are looked at through a memory map (`view`); conversions read with
    `read_into`, which costs only the buffer it fills and answers a file that has shrunk with an
    error, not with a signal. A `File` pickles as its path and what is known of it, so that a plan
    can run elsewhere; nothing is read from a file that has changed meanwhile.

    Attributes:
        path: where the file is.
        size: its bytes when this value was made.
        identity: its device and inode, which tell two names of one file.
    """

    def __init__(self, path: str | Path) -> None:
        """Take the size of the file at `path`.

        Raises:
            NotFound: (rule ``not-found``) when there is no such file.
            InvalidInput: (rule ``not-a-file``) when it is a directory, a pipe or a device, (rule
                ``unreadable``) when it cannot be looked at.
        """
        self.path = Path(path)
        try:
            self._place = self.path.absolute()
            status = self._place.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("there is no such file", rule="not-found", path=path) from None
        except OSError as error:
            raise self._unreadable(error.strerror) from None
        except ValueError:
            raise self._unreadable("its path holds a NUL") from None
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput("is not a regular file", rule="not-a-file", path=path)
        self.size = status.st_size
        self.identity = (status.st_dev, status.st_ino)
        self._modified = status.st_mtime_ns
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._map: memoryview | None = None

    def __repr__(self) -> str:
        """Show the path."""
        return f"File({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what is known of the file, but not that it is open."""
        held = ("_lock", "_descriptor", "_map")
        return {name: value for name, value in vars(self).items() if name not in held}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what is known; the file is looked at when it is first read."""
        vars(self).update(state)
        self._reset()

    def __del__(self) -> None:
        """Close what nobody reads any more."""
        if "_lock" in vars(self):
            self.close()

    @property
    def descriptor(self) -> int:
        """The open file's descriptor, for reading.

        Raises:
            InvalidInput: (rule ``unreadable``) when it cannot be opened.
            InvalidFile: (rule ``changed``) when it is not the file that it was.
        """
        with self._lock:
            if self._descriptor is None:
                self._descriptor = self._opened()
            return self._descriptor

    def _opened(self) -> int:
        try:
            descriptor = os.open(self._place, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error.strerror) from None
        try:
            self._compare(os.fstat(descriptor))
        except InvalidFile:
            os.close(descriptor)
            raise
        return descriptor

    def check_unchanged(self) -> None:
        """Make sure that what was read is what the file still holds.

        Raises:
            InvalidFile: (rule ``changed`` or ``truncated``) when it was written to meanwhile.
        """
        if self._descriptor is not None:
            self._compare(os.fstat(self._descriptor))

    def _compare(self, status: os.stat_result) -> None:
        if status.st_size < self.size:
            raise self._truncated(self.size, status.st_size)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._modified):
            raise InvalidFile(
                "the file has changed since it was opened",
                rule="changed",
                path=self.path,
                hint="wait until nothing writes to it, and start again",
            )

    def view(self, offset: int = 0, length: int | None = None) -> memoryview:
        """Return a read-only view of `length` bytes from `offset`, without reading them.

        Raises:
            InvalidFile: (rule ``truncated``) when the range is not in the file.
        """
        length = self.size - offset if length is None else length
        self._check(offset, length)
        if self._map is None:
            self._map = memoryview(self.mapped(mmap.ACCESS_READ) if self.size else b"")
        return self._map[offset : offset + length]

    def mapped(self, access: int) -> mmap.mmap:
        """Return a map of the whole file, which must not be empty; it outlives `close`.

        Args:
            access: ``mmap.ACCESS_READ``, or ``mmap.ACCESS_COPY`` for a map that can be written to
                without the file being changed.

        Raises:
            InvalidFile: (rule ``truncated``) when the file is shorter than it was.
        """
        descriptor = self.descriptor
        try:
            return mmap.mmap(descriptor, self.size, access=access)
        except ValueError:
            raise self._truncated(self.size, os.fstat(descriptor).st_size) from None

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset`.

        Raises:
            InvalidFile: (rule ``truncated``) when the file ends before the buffer is full.
        """
        self._check(offset, len(buffer))
        done = 0
        while done < len(buffer):
            count = os.preadv(self.descriptor, [buffer[done:]], offset + done)
            if not count:
                raise self._truncated(offset + len(buffer), offset + done)
            done += count

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, copied.

        Raises:
            InvalidFile: (rule ``truncated``) when the range is not in the file.
        """
        length = self.size - offset if length is None else length
        self._check(offset, length)
        buffer = bytearray(length)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self._truncated(offset + length, self.size)

    def _truncated(self, expected: int, got: int) -> InvalidFile:
        return InvalidFile(
            "the file ends too early",
            rule="truncated",
            path=self.path,
            got=f"{got} bytes",
            expected=f"{expected} bytes",
        )

    def _unreadable(self, reason: str | None) -> InvalidInput:
        return InvalidInput(f"cannot be read: {reason}", rule="unreadable", path=self.path)

    def close(self) -> None:
        """Close the file; views that are still in use keep their pages."""
        with self._lock:
            self._map = None
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
