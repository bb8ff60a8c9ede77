"""Fills torch tensors: dense ones are views of the file, all others are computed in parallel."""

from __future__ import annotations

import math
import mmap
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
    from collections.abc import Iterator, Mapping

    import torch
    from numpy.typing import NDArray

    from weighbridge.file import File
    from weighbridge.region import Region

TORCH_DTYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16",
    "f8_e4m3": "float8_e4m3fn", "f8_e5m2": "float8_e5m2", "f8_e4m3fnuz": "float8_e4m3fnuz",
    "f8_e5m2fnuz": "float8_e5m2fnuz", "f8_e8m0": "float8_e8m0fnu",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
    "bool": "bool", "c64": "complex64", "c128": "complex128",
}  # fmt: skip
"""What torch calls the dense encodings of whole bytes."""


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
    pt = import_torch()
    wanted = _dtype(dtype) if dtype else None
    maps: dict[File, mmap.mmap] = {}
    loaded: dict[str, torch.Tensor] = {}
    work: dict[str, tuple[Lazy, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        target = _target(name, tensor, wanted)
        if _is_view(tensor, target):
            loaded[name] = _view(tensor, target, maps)
        else:
            empty = pt.empty(tensor.shape, dtype=getattr(pt, TORCH_DTYPES[target.name]))
            loaded[name] = empty
            work[name] = recode(tensor, target), empty
    bounds = budget(memory, threads, beside=True)
    with workers(None, bounds) as pool:
        run_jobs(_jobs(work, bounds.values), pool, bounds, 0, silent)
    return loaded


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


def _is_view(tensor: Lazy, target: Dense) -> bool:
    return (
        isinstance(tensor, Tensor)
        and tensor.encoding == target
        and all(isinstance(p, Extent) and p.order == "<" for p in tensor.parts.values())
    )


def _view(tensor: Lazy, target: Dense, maps: dict[File, mmap.mmap]) -> torch.Tensor:
    """Return a view of the file; the map is private, so that writing never reaches the file."""
    torch = import_torch()
    dtype = getattr(torch, TORCH_DTYPES[target.name])
    where = next(iter(tensor.leaves())).parts[DATA]
    assert isinstance(where, Extent)
    if not where.length:
        return torch.empty(tensor.shape, dtype=dtype)  # type: ignore[no-any-return]
    file = where.file
    if file not in maps:
        maps[file] = file.mapped(mmap.ACCESS_COPY)
    flat = torch.frombuffer(maps[file], dtype=torch.uint8, count=where.length, offset=where.offset)
    if where.offset % target.dtype.itemsize:
        flat = flat.clone()
    return flat.view(dtype).reshape(tensor.shape)  # type: ignore[no-any-return]


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
        with concerning(self.name, self.tensor):
            grains = self.tensor.grains(self.region)
        source = np.ascontiguousarray(grains).reshape(-1).view(np.uint8)
        done = 0
        for first, count in regions.runs(self.region, self.tensor.grid):
            end = done + count * size
            self.target[first * size : (first + count) * size] = source[done:end]
            done = end
        return done


def _jobs(work: Mapping[str, tuple[Lazy, torch.Tensor]], values: int) -> Iterator[FillJob]:
    torch = import_torch()
    for name, (tensor, result) in work.items():
        target = result.reshape(-1).view(torch.uint8).numpy()
        for tile in regions.tiles(tensor.grid, values, tensor.units()):
            yield FillJob(name, tensor, tile, target)


def from_torch(name: str, values: torch.Tensor) -> Tensor:
    """Return a torch tensor as a lazy one; its memory is shared where it is contiguous.

    Raises:
        InvalidInput: (rule ``dtype``) for a dtype that no dense encoding has, (rule ``storage``)
            for a tensor whose numbers are not in memory one by one: a sparse or a meta tensor.
    """
    torch = import_torch()
    names = {getattr(torch, own): ours for ours, own in TORCH_DTYPES.items()}
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
