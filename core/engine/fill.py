"""Computes lazy tensors into memory that is there already, piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge import region as regions
from weighbridge.encoding import DATA, Blocked, Dense
from weighbridge.engine.budget import BYTES_PER_VALUE
from weighbridge.engine.jobs import concerning
from weighbridge.engine.views import address
from weighbridge.recode import recode
from weighbridge.tensor import in_grains, whole_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from weighbridge.region import Region
    from weighbridge.tensor import Lazy

    Octets = NDArray[np.uint8]

VALUES = 1 << 21
"""Values that are computed at once: for fewer, threads would wait for the interpreter's lock."""

READ_BYTES = 1 << 22
"""Bytes that are read at once where nothing is to be computed."""


@dataclass(frozen=True)
class FillJob:
    """Computes one region of a tensor's numbers into memory.

    Attributes:
        name: the tensor's name.
        tensor: where the numbers come from.
        dtype: what they become, of whole bytes.
        region: which of them.
        target: the bytes of the whole result.
    """

    name: str
    tensor: Lazy
    dtype: Dense
    region: Region
    target: Octets

    @property
    def cost(self) -> int:
        """The memory that it takes beside the result."""
        if is_read(self.tensor, self.dtype):
            return 0
        return math.prod(regions.extent(self.region)) * BYTES_PER_VALUE

    def run(self) -> int:
        """Compute, and return the number of bytes."""
        size = self.dtype.grain_bytes
        runs = [
            self.target[first * size : (first + count) * size]
            for first, count in regions.runs(self.region, self.tensor.shape)
        ]
        nbytes = sum(len(run) for run in runs)
        with concerning(self.name, self.tensor):
            if len(runs) == 1:
                compute_into(self.tensor, self.dtype, self.region, runs[0])
            else:
                made = np.empty(nbytes, np.uint8)
                compute_into(self.tensor, self.dtype, self.region, made)
                _scatter(made, runs)
        return nbytes


def fill_jobs(
    name: str, tensor: Lazy, dtype: Dense, target: Octets, values: int
) -> Iterator[FillJob]:
    """Cut the filling of a tensor's memory into jobs.

    Args:
        name: what errors call it.
        tensor: where the numbers come from.
        dtype: what they become.
        target: the bytes of the result.
        values: how many values may be computed at once.
    """
    most = READ_BYTES // dtype.grain_bytes if is_read(tensor, dtype) else min(values, VALUES)
    for tile in regions.tiles(tensor.shape, most, recode(tensor, dtype).units()):
        yield FillJob(name, tensor, dtype, tile, target)


def is_read(tensor: Lazy, dtype: Dense) -> bool:
    """Tell whether nothing is to be computed: the bytes in the file are those that are wanted."""
    return tensor.encoding == dtype and address(tensor) is not None


def compute_into(tensor: Lazy, dtype: Dense, region: Region, out: Octets) -> None:
    """Compute a region of a tensor's values, in row-major order, into bytes.

    Blocks are decoded where the result is to be, and stay in the cache on the way.
    """
    if isinstance(tensor.encoding, Blocked) and whole_rows(tensor.shape, tensor.encoding):
        from weighbridge import kernels  # the codecs are needed only here

        packed = np.ascontiguousarray(tensor.grains(in_grains(region, tensor.encoding.grain)))
        data = {DATA: packed.reshape(-1).view(np.uint8)}
        kernels.decode_into(tensor.encoding, data, out.view(dtype.dtype))
    else:
        grains_into(recode(tensor, dtype), region, out)


def grains_into(tensor: Lazy, region: Region, out: Octets) -> None:
    """Put the grains of a region into bytes: read where they are to be, if they are in a file."""
    where = address(tensor)
    if where is None:
        made = np.ascontiguousarray(tensor.grains(region))
        out[:] = made.reshape(-1).view(np.uint8)
        return
    size = tensor.encoding.grain_bytes
    done = 0
    for first, count in regions.runs(region, tensor.grid):
        where.read_into(out[done : done + count * size], first * size)
        done += count * size


def _scatter(made: Octets, runs: list[Octets]) -> None:
    done = 0
    for run in runs:
        run[:] = made[done : done + len(run)]
        done += len(run)
