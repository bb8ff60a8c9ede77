"""What a device is to the ring that fills it: memory, streams, and what it decodes by itself.

`weighbridge.engine.cuda.Cuda` is one. What is queued on a stream runs in order, some time later;
nothing is known to be done before an event that was marked after it has been waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from weighbridge.engine.torch_types import import_torch
from weighbridge.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    import torch

    from weighbridge.encoding import Dense, Encoding
    from weighbridge.region import Shape


class Event(Protocol):
    """A place in a stream."""

    def wait(self) -> None:
        """Block until the stream has come here."""


class Stream(Protocol):
    """A queue of work."""

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Queue the copy of pinned bytes to bytes on the device."""

    def decode(self, encoding: Encoding, packed: torch.Tensor, out: torch.Tensor) -> None:
        """Queue the decoding of bytes on the device into values there.

        Raises:
            InvalidInput: (rule ``overflow``) for a number that has no place in the dtype of `out`;
                where there can be such, this waits for the stream.
        """

    def mark(self) -> Event:
        """Return an event that comes after all that is queued so far."""


class Device(Protocol):
    """A device with memory of its own."""

    @property
    def name(self) -> str:
        """What torch calls it: ``cuda:0``."""

    def empty(self, name: str, shape: Shape, dtype: Dense) -> torch.Tensor:
        """Return a tensor on the device whose numbers are not set.

        Raises:
            OutOfMemory: (rule ``memory``) when there is not enough for it.
        """

    def scratch(self, nbytes: int) -> torch.Tensor:
        """Return bytes on the device to put encoded numbers in."""

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Return bytes on the CPU that the device can read by itself."""

    def stream(self) -> Stream:
        """Return a new stream that comes after what the caller has queued so far."""

    def decodes(self, encoding: Encoding, dtype: Dense) -> bool:
        """Tell whether `Stream.decode` knows the encoding and can give that dtype."""


def device_of(wanted: str | torch.device) -> Device | None:
    """Return the device of that name; None for the CPU.

    Raises:
        InvalidInput: (rule ``device``) for what is no device, or one that is not there.
        Unsupported: (rule ``device``) for a device that is not supported, or where there is no
            CUDA.
    """
    torch = import_torch()
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError):
        raise InvalidInput(
            "is not a device",
            rule="device",
            got=wanted,
            expected="cpu, cuda or cuda:1",
            hint="a dtype is given by its name: dtype=",
        ) from None
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        raise Unsupported(
            "cannot be loaded to",
            rule="device",
            got=wanted,
            expected="cpu or cuda",
            hint="load to the CPU, and move the tensors",
        )
    if not torch.cuda.is_available():
        raise Unsupported(
            "torch finds no CUDA device",
            rule="device",
            got=wanted,
            expected="cpu",
            hint="load to the CPU, or install a driver and a torch that was built for CUDA",
        )
    return _cuda(device)


def _cuda(device: Any) -> Device:
    from weighbridge.engine.cuda import Cuda

    torch: Any = import_torch()
    index: int = torch.cuda.current_device() if device.index is None else device.index
    count = torch.cuda.device_count()
    if index < count:
        return Cuda(index)
    raise InvalidInput(
        "there is no such device", rule="device", got=device, expected=f"one of {count}"
    )
