"""Tensors that a contender has loaded: every page is touched, and what they hold is counted."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.api import open as open_any
from weighbridge.benchmarks.cache import files_of
from weighbridge.benchmarks.contender import Outcome
from weighbridge.errors import Error
from weighbridge.tensor import Extent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray


def loaded(tensors: Mapping[str, Any] | Iterable[Any], keep: object = None) -> Outcome:
    """Touch every page of tensors, and return what they are.

    The sum of all bytes does not depend on the order of tensors and of rows: it is the same for
    everyone who loads the same numbers in the same dtype, whatever they are called and turned to.

    Args:
        tensors: NumPy arrays, or torch tensors on any device.
        keep: what else has to stay in memory.
    """
    held = list(tensors.values() if hasattr(tensors, "values") else tensors)
    touch(held)
    sizes = [tensor.nbytes for tensor in held]
    seen = {"tensors": len(sizes), "bytes": sum(sizes)}
    return Outcome(seen, (held, keep), lambda: {"sum": sum(map(digest, held))})


def touch(tensors: Iterable[Any]) -> None:
    """Read a byte of every page; wait for a device that is not the CPU."""
    for tensor in tensors:
        if on_device(tensor):
            import torch

            torch.cuda.synchronize(tensor.device)
        else:
            as_bytes(tensor)[:: mmap.PAGESIZE].max(initial=0)


def on_device(tensor: Any) -> bool:
    """Tell whether a tensor is somewhere else than in the CPU's memory."""
    return str(getattr(tensor, "device", "cpu")) != "cpu"


def as_bytes(tensor: Any) -> NDArray[np.uint8]:
    """Return a tensor's bytes as a flat array; those of a NumPy array or of a CPU tensor uncopied.

    Example:
        >>> as_bytes(np.ones(2, np.uint16))
        array([1, 0, 1, 0], dtype=uint8)
    """
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    import torch

    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()  # type: ignore[no-any-return]


def digest(tensor: Any) -> int:
    """Return the sum of all bytes.

    Example:
        >>> digest(np.full(1000, 0x0101, np.uint16))
        2000
    """
    return int(as_bytes(tensor).sum(dtype=np.uint64))


def chosen(shapes: Mapping[str, tuple[int, ...]], which: str) -> str:
    """Return the name of the ``first`` tensor, or of the ``last`` that is a matrix.

    Example:
        >>> chosen({"a": (3,), "b": (2, 2), "c": (2, 2), "d": (3,)}, "last")
        'c'
    """
    if which == "first":
        return next(iter(shapes))
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    return (matrices or list(shapes))[-1]


def files_of_model(source: Path) -> list[Path]:
    """Return every file that holds a model: shards, parts and external data are found by opening.

    Where nothing can open it, as a pickle, it is the file, or all files of the directory.
    """
    files = set(files_of(source))
    with suppress(Error), open_any(source) as model:
        leaves = [leaf for tensor in model.tensors.values() for leaf in tensor.leaves()]
        parts = [part for leaf in leaves for part in leaf.parts.values()]
        files |= {Path(part.file.path) for part in parts if isinstance(part, Extent)}
    return sorted(files)


def name_of(source: Path, which: str) -> str:
    """Return the name of a tensor of a model of any format."""
    with open_any(source) as model:
        return chosen({name: tensor.shape for name, tensor in model.tensors.items()}, which)
