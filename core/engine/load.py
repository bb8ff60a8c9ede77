"""Fills torch tensors: dense ones are views of the file, all others are computed in parallel."""

from __future__ import annotations

import math
import mmap
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge import region as regions
from weighbridge.encoding import DATA, DENSE, Dense, dense, is_float
from weighbridge.engine.budget import BYTES_PER_VALUE, budget
from weighbridge.engine.jobs import concerning
from weighbridge.engine.progress import silent
from weighbridge.engine.write import run_jobs, workers
from weighbridge.errors import InvalidInput, MissingDependency, Unsupported
from weighbridge.recode import recode
from weighbridge.tensor import Extent, Lazy, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    import torch
    from numpy.typing import NDArray

    from weighbridge.engine.budget import Budget
    from weighbridge.file import File
    from weighbridge.region import Region, Shape

TORCH_DTYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16",
    "f8_e4m3": "float8_e4m3fn", "f8_e5m2": "float8_e5m2", "f8_e4m3fnuz": "float8_e4m3fnuz",
    "f8_e5m2fnuz": "float8_e5m2fnuz", "f8_e8m0": "float8_e8m0fnu",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
    "bool": "bool", "c64": "complex64", "c128": "complex128",
}  # fmt: skip
"""What torch calls the dense encodings of whole bytes."""

Fill = tuple[Lazy, "torch.Tensor"]
"""Numbers, and the memory that is to hold them."""


def load_tensors(
    tensors: Mapping[str, Lazy],
    dtype: str | None = None,
    *,
    memory: int | str = "1GB",
    threads: int | None = None,
) -> dict[str, torch.Tensor]:
    """Return torch tensors for lazy ones.

    Args:
        tensors: what to load.
        dtype: the dtype of all floating-point tensors; None keeps a dense tensor's own and gives
            float32 for a quantised one.
        memory: the most memory to use beside the result.
        threads: how many threads decode; None takes one for each core.

    Raises:
        MissingDependency: when torch is not installed.
    """
    wanted = _dtype(dtype) if dtype else None
    maps: dict[File, mmap.mmap] = {}
    loaded: dict[str, torch.Tensor] = {}
    work: dict[str, Fill] = {}
    for name, tensor in tensors.items():
        target = _target(name, tensor, wanted)
        where = _place(tensor)
        if where is not None and tensor.encoding == target:
            loaded[name] = _view(tensor.shape, where, target, maps)
        else:
            loaded[name] = _empty(tensor, target)
            work[name] = tensor, loaded[name]
    with loading(memory, threads) as loader:
        loader.fill(work)
    return loaded


@contextmanager
def loading(memory: int | str = "1GB", threads: int | None = None) -> Iterator[Loader]:
    """Give a loader whose threads end with the block.

    Args:
        memory: the most memory to use beside the results.
        threads: how many threads decode; None takes one for each core.

    Raises:
        InvalidInput: (rules ``memory``, ``threads``) for bounds that nothing can work in.
    """
    bounds = budget(memory, threads, beside=True)
    with workers(None, bounds) as pool:
        yield Loader(bounds, pool)


@dataclass(frozen=True)
class Loader:
    """Computes lazy tensors straight into the memory of torch tensors, piece by piece.

    Any number of threads may call one at the same time; all their pieces go to the same workers.

    Attributes:
        bounds: how large pieces are, and what they may take together.
        pool: the workers.

    Example:
        >>> from weighbridge.tensor import from_array
        >>> lazy = from_array("x", np.array([1.5, 2.5], np.float32))
        >>> with loading("100MB", threads=1) as loader:
        ...     loader.load("x", lazy, "bfloat16")
        tensor([1.5000, 2.5000], dtype=torch.bfloat16)
    """

    bounds: Budget
    pool: Executor

    def fill(self, work: Mapping[str, Fill]) -> None:
        """Compute tensors into memory that is there already.

        Args:
            work: the name of each tensor, as errors should give it, with its numbers and the
                contiguous tensor, on the CPU and of the same shape, that is to hold them; they are
                rounded to its dtype.

        Raises:
            InvalidInput: (rule ``overflow``) for a number that has no place in that dtype, (rule
                ``fill``) for memory that cannot be filled.
        """
        run_jobs(_jobs(work, self.bounds.values), self.pool, self.bounds, 0, silent)

    def load(self, name: str, tensor: Lazy, dtype: str | None = None) -> torch.Tensor:
        """Return a new torch tensor of a lazy one.

        Args:
            name: what errors call it.
            tensor: the numbers.
            dtype: the result's dtype; None keeps a dense tensor's own and gives float32 for a
                quantised one.
        """
        result = _empty(tensor, _dtype(dtype) if dtype else _target(name, tensor, None))
        self.fill({name: (tensor, result)})
        return result


def _empty(tensor: Lazy, dtype: Dense) -> torch.Tensor:
    torch = import_torch()
    return torch.empty(tensor.shape, dtype=getattr(torch, TORCH_DTYPES[dtype.name]))  # type: ignore[no-any-return]


def import_torch() -> Any:
    """Return torch.

    Raises:
        MissingDependency: (rule ``torch``) when it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependency(
            "torch is not installed", rule="torch", hint="pip install 'weighbridge[torch]'"
        ) from None
    return torch


def _dtype(name: str) -> Dense:
    found = dense(name)
    if found.name not in TORCH_DTYPES:
        raise InvalidInput("is not a dtype of torch", rule="encoding", got=name)
    return found


def _target(name: str, tensor: Lazy, wanted: Dense | None) -> Dense:
    own = tensor.encoding
    if wanted and is_float(own):
        return wanted
    target = own if isinstance(own, Dense) else DENSE["f32"]
    if target.name not in TORCH_DTYPES:
        raise Unsupported(
            f"torch has no dtype for {own}", rule="torch-dtype", tensor=name, hint="give a dtype"
        )
    return target


def _place(tensor: Lazy) -> Extent | None:
    """Return where a dense tensor's numbers are in a file, in this machine's order."""
    if not isinstance(tensor, Tensor) or not isinstance(tensor.encoding, Dense):
        return None
    where = tensor.parts[DATA]
    return where if isinstance(where, Extent) and where.order == "<" else None


def _view(shape: Shape, where: Extent, target: Dense, maps: dict[File, mmap.mmap]) -> torch.Tensor:
    """Return a view of the file; the map is private, so that writing never reaches the file."""
    torch = import_torch()
    dtype = getattr(torch, TORCH_DTYPES[target.name])
    if not where.length:
        return torch.empty(shape, dtype=dtype)  # type: ignore[no-any-return]
    file = where.file
    if file not in maps:
        maps[file] = file.mapped(mmap.ACCESS_COPY)
    flat = torch.frombuffer(maps[file], dtype=torch.uint8, count=where.length, offset=where.offset)
    if where.offset % target.dtype.itemsize:
        flat = flat.clone()
    return flat.view(dtype).reshape(shape)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class FillJob:
    """Computes one region of a tensor's numbers into memory.

    Attributes:
        name: the tensor's name.
        tensor: where the numbers come from, in a dense encoding of whole bytes.
        region: which of them.
        target: the bytes of the whole result.
    """

    name: str
    tensor: Lazy
    region: Region
    target: NDArray[np.uint8]

    @property
    def cost(self) -> int:
        """The memory that it takes beside the result."""
        return math.prod(regions.extent(self.region)) * BYTES_PER_VALUE

    def run(self) -> int:
        """Compute, and return the number of bytes."""
        size = self.tensor.encoding.grain_bytes
        runs = [
            (first * size, (first + count) * size)
            for first, count in regions.runs(self.region, self.tensor.grid)
        ]
        where = _place(self.tensor)
        with concerning(self.name, self.tensor):
            if where is not None:
                for start, stop in runs:
                    where.read_into(self.target[start:stop], start)
            else:
                self._compute(runs)
        return sum(stop - start for start, stop in runs)

    def _compute(self, runs: Sequence[tuple[int, int]]) -> None:
        grains = self.tensor.grains(self.region)
        source = np.ascontiguousarray(grains).reshape(-1).view(np.uint8)
        done = 0
        for start, stop in runs:
            self.target[start:stop] = source[done : done + stop - start]
            done += stop - start


def _jobs(work: Mapping[str, Fill], values: int) -> Iterator[FillJob]:
    torch = import_torch()
    names = _own_names()
    for name, (tensor, result) in work.items():
        if tuple(result.shape) != tensor.shape or not result.is_contiguous() or not result.is_cpu:
            raise InvalidInput(
                "cannot be filled",
                rule="fill",
                tensor=name,
                got=f"{list(result.shape)} on {result.device}",
                expected=f"a contiguous tensor of {list(tensor.shape)} on the CPU",
            )
        stored = recode(tensor, DENSE[names[result.dtype]])
        target = result.detach().reshape(-1).view(torch.uint8).numpy()
        for tile in regions.tiles(stored.grid, values, stored.units()):
            yield FillJob(name, stored, tile, target)


def _own_names() -> dict[torch.dtype, str]:
    """Return what the encodings are called that torch's dtypes are."""
    torch = import_torch()
    return {getattr(torch, theirs): ours for ours, theirs in TORCH_DTYPES.items()}


def from_torch(name: str, values: torch.Tensor) -> Tensor:
    """Return a torch tensor as a lazy one; its memory is shared where it is contiguous.

    Raises:
        InvalidInput: (rule ``dtype``) for a dtype that no dense encoding has, (rule ``storage``)
            for a tensor whose numbers are not in memory one by one: a sparse or a meta tensor.
    """
    torch = import_torch()
    names = _own_names()
    if values.dtype not in names:
        raise InvalidInput(
            "this dtype cannot be stored", rule="dtype", tensor=name, got=values.dtype
        )
    if values.layout != torch.strided or values.is_meta:
        raise InvalidInput(
            "its numbers are not in memory one by one",
            rule="storage",
            tensor=name,
            got="a meta tensor" if values.is_meta else values.layout,
        )
    plain = values.detach().resolve_conj().resolve_neg().cpu().contiguous()
    data = plain.reshape(-1).view(torch.uint8).numpy()
    return Tensor(name, tuple(values.shape), DENSE[names[values.dtype]], {DATA: data})
