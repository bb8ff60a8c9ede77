"""The page cache: which part of a file is in it, and how files get in and out."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CHUNK = 1 << 22
"""Bytes read at once to fill the page cache."""


def files_of(path: Path) -> list[Path]:
    """Return a file, or the files under a directory."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def warm(files: Iterable[Path]) -> None:
    """Read files, so that their bytes are in the page cache."""
    buffer = memoryview(bytearray(CHUNK))
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            while os.readv(descriptor, [buffer]):
                pass
        finally:
            os.close(descriptor)


def evict(files: Iterable[Path]) -> None:
    """Ask the system to forget files' bytes (posix_fadvise(2)); it keeps what is not written yet.

    It is a request: `cached` tells what became of it. A file system in memory keeps everything.
    """
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached(files: Iterable[Path]) -> float:
    """Return the share of files' pages that is in the page cache (mincore(2)), 1 for no pages."""
    pages = np.concatenate([np.empty(0, np.uint8), *map(_pages, files)])
    return float((pages & 1).mean()) if len(pages) else 1.0


def _pages(file: Path) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return a byte for each page of a file; its lowest bit tells whether the page is cached."""
    size = file.stat().st_size
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    if not size:
        return pages
    libc = ctypes.CDLL(None, use_errno=True)
    with file.open("rb") as opened:
        view = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    arguments = ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data)
    if libc.mincore(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(file))
    return pages
