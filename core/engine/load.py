"""Gives lazy tensors as torch's: views of their file where that is possible, filled where not."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from weighbridge.encoding import DENSE, Dense, is_float
from weighbridge.engine.backend import AUTO
from weighbridge.engine.expected import conversions, prepared
from weighbridge.engine.fill import fill_jobs
from weighbridge.engine.memory import HostMemory
from weighbridge.engine.pages import Pages
from weighbridge.engine.progress import reporter, silent
from weighbridge.engine.ring import ring, send_jobs
from weighbridge.engine.torch_types import TORCH_DTYPES, dtype_named, encoding_of, octets
from weighbridge.engine.views import Views
from weighbridge.engine.write import run_jobs, workers
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Executor

    import torch

    from weighbridge.engine.budget import Budget
    from weighbridge.engine.device import Device
    from weighbridge.engine.fill import FillJob
    from weighbridge.engine.progress import Progress
    from weighbridge.engine.ring import Ring, SendJob
    from weighbridge.tensor import Lazy

MEMORY = "200MB"
"""What loading may take beside the result, where nobody says."""


class Request(NamedTuple):
    """A tensor that is wanted.

    Attributes:
        tensor: the numbers.
        dtype: what they shall be, one that torch has.
        memory: what shall hold them: contiguous, of that dtype, and where they are loaded to. None
            leaves that to the loader.
    """

    tensor: Lazy
    dtype: Dense
    memory: torch.Tensor | None = None


Fill = tuple["Lazy", "torch.Tensor"]
"""Numbers, and the memory that is to hold them."""


class Options(NamedTuple):
    """How tensors are loaded.

    Attributes:
        backend: ``mmap``, ``pread``, or ``auto`` to go by the file system.
        memory: the most memory to use beside the result.
        threads: how many threads read and decode; None takes one for each core.
        progress: True shows a bar; a function is told of every piece.
    """

    backend: str = AUTO
    memory: int | str = MEMORY
    threads: int | None = None
    progress: bool | Progress = False


def load_tensors(
    requests: Mapping[str, Request],
    device: Device | None = None,
    options: Options = Options(),  # noqa: B008 (a value)
) -> dict[str, torch.Tensor]:
    """Return torch tensors for lazy ones.

    Args:
        requests: what to load, by name.
        device: where to; None is the CPU.
        options: how.

    Raises:
        MissingDependency: (rule ``torch``) when torch is not installed.
        InvalidInput: (rules ``backend``, ``memory``, ``threads``) for options that cannot be.
        OutOfMemory: (rule ``memory``) naming the tensor that does not fit.
    """
    views = Views(options.backend)
    room = device or HostMemory()
    loaded: dict[str, torch.Tensor] = {}
    work: dict[str, Fill] = {}
    for name, (tensor, dtype, memory) in requests.items():
        mappable = memory is None and device is None
        view = views.view(tensor, dtype) if mappable else None
        if view is None:
            memory = room.empty(name, tensor.shape, dtype) if memory is None else memory
            work[name] = tensor, memory
            loaded[name] = memory
        else:
            loaded[name] = view
    views.tell()
    if work:
        expected = conversions((tensor, requests[name].dtype) for name, (tensor, _) in work.items())
        with (
            loading(options.memory, options.threads, expected) as loader,
            reporter(options.progress, "loading") as tell,
        ):
            loader.fill(work, device, tell)
    return loaded


@contextmanager
def loading(
    memory: int | str = MEMORY,
    threads: int | None = None,
    expected: Mapping[tuple[str, str], int] = MappingProxyType({}),
) -> Iterator[Loader]:
    """Give a loader whose threads end with the block.

    Args:
        memory: the most memory to use beside the results.
        threads: how many threads decode; None takes one for each core.
        expected: what is to be decoded and cast, as far as it is known; see `conversions`.

    Raises:
        InvalidInput: (rules ``memory``, ``threads``) for bounds that nothing can work in.
    """
    bounds = prepared(expected, parse_size(memory), threads)
    with workers(None, bounds) as pool:
        yield Loader(bounds, pool)


@dataclass(frozen=True)
class Loader:
    """Computes lazy tensors straight into the memory of torch tensors, piece by piece.

    Any number of threads may call one at the same time; all their pieces go to the same workers.

    Attributes:
        bounds: how large pieces are, and what they may take together.
        pool: the workers.
        pages: where the memory of single results comes from.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> lazy = from_array("x", np.array([1.5, 2.5], np.float32))
        >>> with loading("100MB", threads=1) as loader:
        ...     loader.load("x", lazy, "bfloat16")
        tensor([1.5000, 2.5000], dtype=torch.bfloat16)
    """

    bounds: Budget
    pool: Executor
    pages: Pages = field(default_factory=Pages)

    def fill(
        self, work: Mapping[str, Fill], device: Device | None = None, tell: Progress = silent
    ) -> None:
        """Compute tensors into memory that is there already.

        Args:
            work: the name of each tensor, as errors should give it, with its numbers and the
                contiguous tensor, of the same shape, that is to hold them; they are rounded to
                its dtype.
            device: where that memory is; None is the CPU.
            tell: told of every piece.

        Raises:
            InvalidInput: (rule ``overflow``) for a number that has no place in that dtype, (rule
                ``fill``) for memory that cannot be filled.
        """
        for name, (tensor, memory) in work.items():
            _check(name, tensor, memory, device.name if device else "cpu")
        total = sum(memory.nbytes for _, memory in work.values())
        if device is None:
            run_jobs(self._jobs(work), self.pool, self.bounds, total, tell)
            return
        with ring(device, self.bounds) as way:
            run_jobs(_sent(work, way), self.pool, self.bounds, total, tell)

    def _jobs(self, work: Mapping[str, Fill]) -> Iterator[FillJob]:
        for name, (tensor, memory) in work.items():
            dtype = encoding_of(memory.dtype)
            yield from fill_jobs(name, tensor, dtype, octets(memory), self.bounds.values)

    def load(self, name: str, tensor: Lazy, dtype: str | None = None) -> torch.Tensor:
        """Return a new torch tensor of a lazy one, on the CPU.

        Args:
            name: what errors call it.
            tensor: the numbers.
            dtype: the result's dtype; None keeps a dense tensor's own and gives float32 for a
                quantised one.
        """
        target = dtype_named(dtype) if dtype else own_dtype(name, tensor)
        result = HostMemory(self.pages).empty(name, tensor.shape, target)
        self.fill({name: (tensor, result)})
        return result


def _sent(work: Mapping[str, Fill], way: Ring) -> Iterator[SendJob]:
    for name, (tensor, memory) in work.items():
        yield from send_jobs(name, tensor, encoding_of(memory.dtype), memory, way)


def _check(name: str, tensor: Lazy, memory: torch.Tensor, device: str) -> None:
    encoding_of(memory.dtype, name)
    fits = tuple(memory.shape) == tensor.shape and memory.is_contiguous()
    if not fits or str(memory.device) != device:
        raise InvalidInput(
            "cannot be filled",
            rule="fill",
            tensor=name,
            got=f"{list(memory.shape)} on {memory.device}",
            expected=f"a contiguous tensor of {list(tensor.shape)} on {device}",
        )


def requested(tensors: Mapping[str, Lazy], dtype: str | None = None) -> dict[str, Request]:
    """Return tensors with the dtypes that they are to be loaded in.

    Args:
        tensors: by name.
        dtype: the dtype of all floating-point tensors; None keeps a dense tensor's own and gives
            float32 for a quantised one.

    Raises:
        InvalidInput: (rule ``encoding``) when torch has no dtype of that name.
        Unsupported: (rule ``torch-dtype``) for a tensor of a type that torch does not have.
    """
    wanted = dtype_named(dtype) if dtype else None
    return {
        name: Request(
            tensor, wanted if wanted and is_float(tensor.encoding) else own_dtype(name, tensor)
        )
        for name, tensor in tensors.items()
    }


def own_dtype(name: str, tensor: Lazy) -> Dense:
    """Return the dtype of a tensor where none is asked for.

    Raises:
        Unsupported: (rule ``torch-dtype``) when torch does not have it.
    """
    own = tensor.encoding
    target = own if isinstance(own, Dense) else DENSE["f32"]
    if target.name not in TORCH_DTYPES:
        raise Unsupported(
            f"torch has no dtype for {own}", rule="torch-dtype", tensor=name, hint="give a dtype"
        )
    return target
