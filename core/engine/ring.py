"""Fills a device through a ring of pinned buffers.

Reader threads take a buffer each, fill it, queue its copy and what is to be decoded, and put it
back at the end of the ring. By the time it comes round again its copy is done, or is waited for;
so reading, the bus and the device work at the same time, and pinned memory is bounded by the ring.
"""

from __future__ import annotations

import math
import queue
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge import region as regions
from weighbridge.encoding import Blocked, Dense
from weighbridge.engine.backend import LOG
from weighbridge.engine.budget import BYTES_PER_VALUE
from weighbridge.engine.fill import VALUES, grains_into
from weighbridge.engine.jobs import concerning
from weighbridge.engine.torch_types import import_torch, octets
from weighbridge.engine.views import address
from weighbridge.recode import recode
from weighbridge.tensor import Lazy, whole_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from weighbridge.encoding import Encoding
    from weighbridge.engine.budget import Budget
    from weighbridge.engine.device import Device, Event, Stream
    from weighbridge.region import Region

PINNED_BYTES = 1 << 28
"""The most memory that a ring pins."""

BUFFER_BYTES = 1 << 24
"""A buffer of the ring: large enough for the bus, small enough for many."""

BUFFERS_PER_READER = 2
"""Buffers for each reader: while one is copied another is filled."""


@dataclass
class Slot:
    """A buffer of the ring, with the stream that empties it.

    Attributes:
        host: pinned bytes.
        packed: as many bytes on the device, for numbers that are decoded there.
        stream: what everything about this buffer is queued on.
        emptied: comes after the last of it; None before the first.
    """

    host: torch.Tensor
    packed: torch.Tensor
    stream: Stream
    emptied: Event | None = None


@dataclass
class Ring:
    """Pinned buffers that go round.

    Attributes:
        device: where the bytes go.
        slots: the buffers.
        nbytes: the bytes of one.
    """

    device: Device
    slots: tuple[Slot, ...]
    nbytes: int

    def __post_init__(self) -> None:
        """Put all buffers into the ring."""
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in self.slots:
            self._free.put(slot)

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Give a buffer whose last bytes have left it, and let its next ones go."""
        slot = self._free.get()
        try:
            if slot.emptied is not None:
                slot.emptied.wait()
            yield slot
        finally:
            try:
                slot.emptied = slot.stream.mark()
            finally:
                self._free.put(slot)

    def drain(self) -> None:
        """Wait until every buffer has been emptied."""
        for slot in self.slots:
            if slot.emptied is not None:
                slot.emptied.wait()


@contextmanager
def ring(device: Device, bounds: Budget) -> Iterator[Ring]:
    """Give a ring for as many readers as `bounds` has threads; it has drained after the block.

    Half of the budget at most is pinned, and never more than `PINNED_BYTES`.

    Raises:
        OutOfMemory: (rule ``memory``) when so much cannot be pinned.
    """
    count = BUFFERS_PER_READER * bounds.threads
    nbytes = min(BUFFER_BYTES, min(PINNED_BYTES, bounds.bytes // 2) // count) // 4096 * 4096
    slots = tuple(
        Slot(device.pinned(nbytes), device.scratch(nbytes), device.stream()) for _ in range(count)
    )
    made = Ring(device, slots, nbytes)
    try:
        yield made
    finally:
        made.drain()


@dataclass(frozen=True)
class SendJob:
    """Sends one region of a tensor through the ring.

    Attributes:
        name: the tensor's name.
        tensor: the numbers as they cross the bus.
        region: which of its grains.
        out: all values of the result, flat, on the device.
        dtype: their encoding.
        ring: the way.
    """

    name: str
    tensor: Lazy
    region: Region
    out: torch.Tensor
    dtype: Dense
    ring: Ring

    @property
    def cost(self) -> int:
        """The memory that it takes beside the ring's."""
        if address(self.tensor) is not None:
            return 0
        return math.prod(regions.extent(self.region)) * self.tensor.encoding.grain * BYTES_PER_VALUE

    def run(self) -> int:
        """Send, and return the number of bytes that are set on the device."""
        size = self.tensor.encoding.grain_bytes
        nbytes = math.prod(regions.extent(self.region)) * size
        with self.ring.slot() as slot, concerning(self.name, self.tensor):
            grains_into(self.tensor, self.region, octets(slot.host[:nbytes]))
            done = 0
            for first, count in regions.runs(self.region, self.tensor.grid):
                self._send(slot, done * size, first, count)
                done += count
        return done * self.tensor.encoding.grain * self.dtype.grain_bytes

    def _send(self, slot: Slot, start: int, first: int, count: int) -> None:
        """Send `count` grains that begin at a byte of the buffer to where grain `first` belongs."""
        encoding = self.tensor.encoding
        part = slice(start, start + count * encoding.grain_bytes)
        out = self.out[first * encoding.grain : (first + count) * encoding.grain]
        if encoding == self.dtype:
            slot.stream.copy(slot.host[part], out.view(import_torch().uint8))
            return
        slot.stream.copy(slot.host[part], slot.packed[part])
        slot.stream.decode(encoding, slot.packed[part], out)


def send_jobs(
    name: str, tensor: Lazy, dtype: Dense, out: torch.Tensor, way: Ring
) -> Iterator[SendJob]:
    """Cut the filling of a tensor on the device into jobs of a buffer each.

    What the device cannot decode is decoded on the way to the buffer.

    Args:
        name: what errors call it.
        tensor: where the numbers come from.
        dtype: what they become.
        out: the contiguous tensor on the device that is to hold them.
        way: the ring.
    """
    wire = as_sent(tensor, dtype, way.device)
    if wire is not tensor and not isinstance(tensor.encoding, Dense):
        LOG.info("tensor '%s': %s is decoded on the CPU", name, tensor.encoding)
    flat = out.detach().reshape(-1)
    for tile in _tiles(wire, way.nbytes):
        yield SendJob(name, wire, tile, flat, dtype, way)


def _tiles(wire: Lazy, nbytes: int) -> Iterator[Region]:
    """Cut a tensor's grid into regions that fit in a buffer, as its operations like it if they can.

    What has to be computed is cut so finely that it stays in the cache.
    """
    encoding = wire.encoding
    most = nbytes // encoding.grain_bytes
    if address(wire) is None:
        most = min(most, max(VALUES // encoding.grain, 1))
    units = wire.units()
    if units:
        units = (*units[:-1], -(-units[-1] // encoding.grain))
    first = next(regions.tiles(wire.grid, most, units), ())  # none is larger
    if math.prod(regions.extent(first)) * encoding.grain_bytes > nbytes:
        units = (1,) * len(units)
    return regions.tiles(wire.grid, most, units)


def as_sent(tensor: Lazy, dtype: Dense, device: Device) -> Lazy:
    """Return a tensor in the encoding in which it crosses the bus."""
    known = _whole_grains(tensor, tensor.encoding) and device.decodes(tensor.encoding, dtype)
    return tensor if known else recode(tensor, dtype)


def _whole_grains(tensor: Lazy, encoding: Encoding) -> bool:
    return isinstance(encoding, Dense | Blocked) and whole_rows(tensor.shape, encoding)
