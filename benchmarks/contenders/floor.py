"""What the machine itself can do."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.benchmarks.cache import warm
from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.weights import files_of_model, touch
from weighbridge.engine.pages import Pages

if TYPE_CHECKING:
    from weighbridge.benchmarks.contender import Timed

PINNED = 1 << 26
"""Bytes that are copied to a device at once."""


def touch_pages(source: Path, scratch: Path) -> Timed:
    """Map all files of a model, and touch every page."""
    del scratch
    files = [file for file in files_of_model(source) if file.stat().st_size]

    def call() -> Outcome:
        maps = [_map(file) for file in files]
        touch(np.frombuffer(view, np.uint8) for view in maps)
        return Outcome({}, maps)

    return call


def _map(file: Path) -> mmap.mmap:
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def read(source: Path, scratch: Path) -> Timed:
    """Read all files of a model into one small buffer."""
    del scratch
    files = files_of_model(source)

    def call() -> Outcome:
        warm(files)
        return Outcome({})

    return call


def fill(source: Path, scratch: Path, itemsize: str) -> Timed:
    """Fill new memory with as many numbers as a model has, on all cores."""
    del scratch
    from weighbridge import open as open_any

    with open_any(source) as model:
        size = sum(tensor.size for tensor in model.tensors.values()) * int(itemsize)
    cores = len(os.sched_getaffinity(0))

    def call() -> Outcome:
        # NumPy's own memory is in huge pages, whether they are quick or not.
        memory = np.frombuffer(Pages().take(size), np.uint8)
        pieces = np.array_split(memory, cores)
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(_set, pieces))
        return Outcome({}, memory)

    return call


def _set(piece: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
    ctypes.memset(piece.ctypes.data, 1, piece.nbytes)


def pinned_copy(source: Path, scratch: Path, device: str) -> Timed:
    """Copy as many bytes as the files have from pinned memory to a device, again and again."""
    del scratch
    import torch

    size = sum(file.stat().st_size for file in files_of_model(source))
    pinned = torch.empty(min(size, PINNED), dtype=torch.uint8, pin_memory=True)

    def call() -> Outcome:
        result = torch.empty(size, dtype=torch.uint8, device=device)
        for piece in torch.split(result, len(pinned)):
            piece.copy_(pinned[: len(piece)], non_blocking=True)
        torch.cuda.synchronize(result.device)
        return Outcome({}, result)

    return call


def cp(source: Path, scratch: Path) -> list[list[str]]:
    """Copy a model as people do: in the kernel where it can, and not waiting for the disk."""
    return [["cp", *_copied(source), str(scratch)]]


def cp_through_memory(source: Path, scratch: Path) -> list[list[str]]:
    """Copy every byte through the process, with reads and writes."""
    return [["cp", "--reflink=never", "--sparse=never", *_copied(source), str(scratch)]]


def cp_and_sync(source: Path, scratch: Path) -> list[list[str]]:
    """Copy a model, and wait until it is on the disk."""
    copies = [str(scratch / Path(name).name) for name in _copied(source)]
    synced = ["sync"] if source.is_dir() else ["sync", *copies]
    return [["cp", "-r", *_copied(source), str(scratch)], synced]


def _copied(source: Path) -> list[str]:
    """Return a directory, or all files that a model is in: external data lie beside their model."""
    return [str(source)] if source.is_dir() else [str(file) for file in files_of_model(source)]


def python(source: Path, scratch: Path) -> list[list[str]]:
    """Start an interpreter that does nothing."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "pass"]]


def python_numpy(source: Path, scratch: Path) -> list[list[str]]:
    """Import NumPy."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "import numpy"]]
