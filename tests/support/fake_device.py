"""A device in the CPU's memory that does nothing before it is waited for.

A real one works through its streams some time later; this one does so at the last moment there is.
Who fills a buffer again before its copy was waited for, or looks at a result before the end, finds
other numbers than he would have with a real device on a good day.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from weighbridge import kernels
from weighbridge.encoding import DATA
from weighbridge.engine.memory import out_of_memory
from weighbridge.engine.torch_types import encoding_of, octets, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.encoding import Dense, Encoding

UNSET = 0x5A


@dataclass
class FakeDevice:
    """The device.

    Attributes:
        room: bytes of memory that it has.
        decoded: encodings that it decodes.
        breaks_at: the copy that fails, None for none.
        pinned_bytes: what was pinned.
        crossed: bytes that were copied from pinned memory.
        copies: how many copies were queued.
        pending: work that is queued and not done.
    """

    room: int = 1 << 30
    decoded: tuple[str, ...] = ("q8_0", "q4_k", "f32", "bf16", "f16")
    breaks_at: int | None = None
    name: str = "cpu"
    pinned_bytes: int = 0
    crossed: int = 0
    copies: int = 0
    pending: int = 0
    taken: int = 0
    buffers: list[torch.Tensor] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def empty(self, name: str, shape: tuple[int, ...], dtype: Dense) -> torch.Tensor:
        nbytes = dtype.nbytes(shape)
        if self.taken + nbytes > self.room:
            raise out_of_memory(name, nbytes, self.room - self.taken, "fake:0")
        self.taken += nbytes
        raw = torch.full((nbytes,), UNSET, dtype=torch.uint8)
        return raw.view(torch_dtype(dtype)).reshape(shape)

    def scratch(self, nbytes: int) -> torch.Tensor:
        return torch.full((nbytes,), UNSET, dtype=torch.uint8)

    def pinned(self, nbytes: int) -> torch.Tensor:
        self.pinned_bytes += nbytes
        buffer = self.scratch(nbytes)
        self.buffers.append(buffer)
        return buffer

    def stream(self) -> FakeStream:
        return FakeStream(self)

    def decodes(self, encoding: Encoding, dtype: Dense) -> bool:
        return encoding == dtype or encoding.name in self.decoded

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        at = tensor.data_ptr()
        return any(b.data_ptr() <= at < b.data_ptr() + b.nbytes for b in self.buffers)


@dataclass
class FakeStream:
    """A queue that stands still until someone waits."""

    device: FakeDevice
    queue: deque[Callable[[], Any]] = field(default_factory=deque)
    done: int = 0
    queued: int = 0

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        assert self.device.is_pinned(source)
        assert not self.device.is_pinned(target)
        assert source.nbytes == target.nbytes
        with self.device.lock:
            self.device.copies += 1
            self.device.crossed += source.nbytes
            if self.device.copies == self.device.breaks_at:
                raise RuntimeError("the bus is broken")
        self._queue(lambda: target.copy_(source))

    def decode(self, encoding: Encoding, packed: torch.Tensor, out: torch.Tensor) -> None:
        assert not self.device.is_pinned(packed)
        to = encoding_of(out.dtype)

        def run() -> None:
            numbers = kernels.decode(encoding, {DATA: octets(packed)}, tuple(out.shape), to)
            octets(out)[:] = numbers.reshape(-1).view("u1")

        self._queue(run)
        if to.name == "f16":  # a number may be too large, and is refused here
            self.run_to(self.queued)

    def mark(self) -> FakeEvent:
        return FakeEvent(self, self.queued)

    def _queue(self, work: Callable[[], Any]) -> None:
        with self.device.lock:
            self.device.pending += 1
        self.queued += 1
        self.queue.append(work)

    def run_to(self, place: int) -> None:
        while self.done < place:
            self.done += 1
            with self.device.lock:
                self.device.pending -= 1
            self.queue.popleft()()


@dataclass
class FakeEvent:
    """A place in a queue: waiting for it does all that comes before."""

    stream: FakeStream
    place: int

    def wait(self) -> None:
        self.stream.run_to(self.place)
