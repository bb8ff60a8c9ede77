"""Pieces of work: each knows its byte ranges at both ends, so that it can run anywhere."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from weighbridge import region as regions
from weighbridge.encoding import DATA
from weighbridge.engine.budget import BYTES_PER_VALUE
from weighbridge.engine.disk import start_writing, write_at
from weighbridge.errors import Error
from weighbridge.steps import Route, Step
from weighbridge.tensor import Extent, Lazy, Tensor, whole_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from weighbridge.layout import Slot
    from weighbridge.region import Region

COPY_BYTES = 1 << 24
"""Bytes that one copying piece of work moves: the disk starts on them when they are there."""

BUFFER_BYTES = 1 << 20
"""The buffer of a copy that the kernel does not do alone: within a core's own cache."""

PAGE = 4096
"""Bytes of the page cache that the kernel copies as they are, or shares."""

NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}


class Job(Protocol):
    """A piece of work that any worker can do, and that pickles."""

    @property
    def name(self) -> str:
        """The tensor's name."""

    @property
    def cost(self) -> int:
        """The bytes of memory that it takes."""

    def run(self) -> int:
        """Do it, and return the number of bytes that are done."""


@dataclass(frozen=True)
class CopyJob:
    """Copies a byte range from file to file.

    Where both ends lie equally in their pages, the kernel does it, and may share blocks instead of
    copying. Where they do not, it goes page by page; a buffer is faster then.
    """

    name: str
    source: Extent
    start: int
    length: int
    target: Path
    offset: int

    @property
    def cost(self) -> int:
        """The memory that it takes."""
        return BUFFER_BYTES

    def run(self) -> int:
        """Copy, and return the number of bytes."""
        target = os.open(self.target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            aligned = (self.source.offset + self.start - self.offset) % PAGE == 0
            done = self._in_kernel(target) if aligned else 0
            self._through_buffer(target, done)
            start_writing(target, self.offset, self.length)
        finally:
            os.close(target)
        return self.length

    def _in_kernel(self, target: int) -> int:
        done = 0
        source, first = self.source.file.descriptor, self.source.offset + self.start
        while done < self.length and hasattr(os, "copy_file_range"):
            try:
                count = os.copy_file_range(
                    source, target, self.length - done, first + done, self.offset + done
                )
            except OSError as error:
                if error.errno in NO_KERNEL_COPY:
                    break
                raise
            if not count:
                break
            done += count
        return done

    def _through_buffer(self, target: int, done: int) -> None:
        buffer = memoryview(bytearray(min(BUFFER_BYTES, self.length - done)))
        first = self.source.offset + self.start
        while done < self.length:
            piece = buffer[: self.length - done]
            self.source.file.read_into(piece, first + done)
            write_at(target, piece, self.offset + done)
            done += len(piece)


@dataclass(frozen=True)
class BytesJob:
    """Writes bytes that are in memory."""

    name: str
    data: NDArray[np.uint8]
    target: Path
    offset: int

    @property
    def cost(self) -> int:
        """The memory that it takes: none that is not taken already."""
        return 0

    def run(self) -> int:
        """Write, and return the number of bytes."""
        _write_all(self.target, [(self.data.data, self.offset)])
        return len(self.data)


@dataclass(frozen=True)
class RegionJob:
    """Makes one region of a tensor's grains and writes it.

    Attributes:
        name: the tensor's name in the target.
        tensor: where the numbers come from.
        region: which grains.
        target: the file.
        offset: where the tensor's first byte is in it.
    """

    name: str
    tensor: Lazy
    region: Region
    target: Path
    offset: int

    @property
    def cost(self) -> int:
        """The memory that it takes."""
        grains = int(np.prod(regions.extent(self.region), dtype=np.int64))
        return grains * self.tensor.encoding.grain * BYTES_PER_VALUE

    def run(self) -> int:
        """Make the region, write it, and return the number of bytes."""
        size = self.tensor.encoding.grain_bytes
        with concerning(self.name, self.tensor):
            made = self.tensor.grains(self.region)
        grains = np.ascontiguousarray(made).reshape(-1).view(np.uint8)
        pieces = []
        done = 0
        for first, count in regions.runs(self.region, self.tensor.grid):
            piece = grains.data[done : done + count * size]
            pieces.append((piece, self.offset + first * size))
            done += count * size
        _write_all(self.target, pieces)
        return done


def jobs_of(step: Step, files: Sequence[Path], values: int) -> Iterator[Job]:
    """Cut a step into jobs of about `values` values.

    Args:
        step: the tensor to write.
        files: the files that the slots' numbers mean.
        values: how many values a job may hold decoded.
    """
    tensor = step.tensor
    if step.route is Route.COPY and isinstance(tensor, Tensor):
        for part, slot in step.slots.items():
            yield from _part_jobs(step.name, tensor, part, slot, files[slot.file])
        return
    slot = step.slots[DATA]
    grain = tensor.encoding.grain
    units = (1,) * len(tensor.grid)
    if tensor.ndim and whole_rows(tensor.shape, tensor.encoding):
        units = (*tensor.units()[:-1], -(-tensor.units()[-1] // grain))
    for tile in regions.tiles(tensor.grid, max(values // grain, 1), units):
        yield RegionJob(step.name, tensor, tile, files[slot.file], slot.offset)


def _part_jobs(name: str, tensor: Tensor, part: str, slot: Slot, target: Path) -> Iterator[Job]:
    where = tensor.parts[part]
    if not isinstance(where, Extent):
        if slot.length:
            yield BytesJob(name, where.reshape(-1).view(np.uint8), target, slot.offset)
        return
    for start in range(0, where.length, COPY_BYTES):
        length = min(COPY_BYTES, where.length - start)
        yield CopyJob(name, where, start, length, target, slot.offset + start)


def _write_all(target: Path, pieces: Sequence[tuple[memoryview, int]]) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for piece, offset in pieces:
            write_at(descriptor, piece, offset)
            start_writing(descriptor, offset, len(piece))
    finally:
        os.close(descriptor)


@contextmanager
def concerning(name: str, tensor: Lazy) -> Iterator[None]:
    """Give an error that is raised inside the tensor's name and its file, where it has none."""
    try:
        yield
    except Error as error:
        error.tensor = name if error.tensor is None else error.tensor
        error.path = _path_of(tensor) if error.path is None else error.path
        raise


def _path_of(tensor: Lazy) -> str | None:
    for leaf in tensor.leaves():
        for where in leaf.parts.values():
            if isinstance(where, Extent):
                return str(where.file.path)
    return None
