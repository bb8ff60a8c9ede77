"""A CUDA device of torch, as the ring sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.encoding import DATA, Blocked
from weighbridge.engine.memory import out_of_memory
from weighbridge.engine.torch_types import encoding_of, import_torch, torch_dtype

if TYPE_CHECKING:
    import torch

    from weighbridge.encoding import Dense, Encoding
    from weighbridge.region import Shape


@dataclass(frozen=True)
class Cuda:
    """A CUDA device.

    Attributes:
        index: its number.
    """

    index: int

    @property
    def name(self) -> str:
        """What torch calls it."""
        return f"cuda:{self.index}"

    def empty(self, name: str, shape: Shape, dtype: Dense) -> torch.Tensor:
        """Return a tensor on the device whose numbers are not set."""
        return self._allocate(name, shape, torch_dtype(dtype), dtype.nbytes(shape))

    def scratch(self, nbytes: int) -> torch.Tensor:
        """Return bytes on the device."""
        return self._allocate(None, (nbytes,), import_torch().uint8, nbytes)

    def _allocate(
        self, name: str | None, shape: Shape, dtype: torch.dtype, nbytes: int
    ) -> torch.Tensor:
        torch = import_torch()
        try:
            return torch.empty(shape, dtype=dtype, device=self.name)  # type: ignore[no-any-return]
        except torch.OutOfMemoryError as error:
            free, _ = torch.cuda.mem_get_info(self.index)
            raise out_of_memory(name, nbytes, free, self.name) from error

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Return page-locked bytes on the CPU."""
        torch = import_torch()
        try:
            return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)  # type: ignore[no-any-return]
        except RuntimeError as error:  # as torch reports what cudaHostAlloc refuses
            raise out_of_memory(None, nbytes, None, "page-locked memory") from error

    def stream(self) -> CudaStream:
        """Return a new stream, after what is queued on the current one.

        The results' memory may be such as work on that one still reads.
        """
        torch = import_torch()
        stream = torch.cuda.Stream(self.index)
        stream.wait_stream(torch.cuda.current_stream(self.index))
        return CudaStream(stream)

    def decodes(self, encoding: Encoding, dtype: Dense) -> bool:
        """Tell whether bytes of `encoding` become `dtype` on the device."""
        from weighbridge.kernels import device  # needs torch

        return encoding == dtype or device.decodes(encoding, dtype)


@dataclass(frozen=True)
class CudaStream:
    """A stream of a CUDA device."""

    stream: Any

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Queue a copy."""
        with import_torch().cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)

    def decode(self, encoding: Encoding, packed: torch.Tensor, out: torch.Tensor) -> None:
        """Queue the decoding of bytes on the device."""
        from weighbridge.kernels import device

        with import_torch().cuda.stream(self.stream):
            if isinstance(encoding, Blocked):
                device.decode_into(encoding, packed, out)
            else:
                to = encoding_of(out.dtype)
                out.copy_(device.decode(encoding, {DATA: packed}, tuple(out.shape), to))

    def mark(self) -> Any:
        """Return an event."""
        event = import_torch().cuda.Event()
        event.record(self.stream)
        return CudaEvent(event)


@dataclass(frozen=True)
class CudaEvent:
    """An event of a CUDA stream."""

    event: Any

    def wait(self) -> None:
        """Block until the stream has come here."""
        self.event.synchronize()
