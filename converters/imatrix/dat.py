"""The older form of an importance matrix, a ``.dat`` file.

Little-endian, without a magic number: the number of entries as i32; for each the name (i32 length,
bytes), how often it was called (i32), the number of values (i32) and so many float32 sums; then, in
files from March 2024 on, the number of chunks (i32) and the dataset's name (i32 length, bytes).
Source: llama.cpp, ``tools/quantize/quantize.cpp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weighbridge.checked import Reader
from weighbridge.importance import ImportanceMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.file import File

SMALLEST_ENTRY = 17
"""Bytes of an entry whose name is a letter, with one value."""


def read(file: File) -> ImportanceMatrix:
    """Read a whole file.

    Raises:
        InvalidFile: (rules ``truncated``, ``count``, ``utf-8``, ``empty-name``, ``empty``,
            ``duplicate-tensor``, ``trailing-bytes``) for one that is not of this form.
    """
    reader = Reader(file.view(), file.path)
    count = reader.count("i", SMALLEST_ENTRY)
    if not count:
        reader.fail("holds no entry", "empty")
    entries: dict[str, NDArray[np.float32]] = {}
    for _ in range(count):
        name, weights = _entry(reader)
        if name in entries:
            reader.fail("a tensor appears twice", "duplicate-tensor", got=name)
        entries[name] = weights
    chunks, datasets = _origin(reader) if reader.remaining else (0, ())
    if reader.remaining:
        reader.fail("there is more than the entries", "trailing-bytes", got=reader.remaining)
    return ImportanceMatrix(file.path, entries, datasets, chunks)


def _entry(reader: Reader) -> tuple[str, NDArray[np.float32]]:
    """Return a name and the weights: the sums where it was never called."""
    name = reader.text("i")
    if not name:
        reader.fail("an entry has no name", "empty-name")
    calls = reader.integer("i")
    count = reader.count("i", 4)
    if not count:
        reader.fail("an entry has no values", "count", got=name)
    sums = np.frombuffer(reader.take(4 * count), "<f4")
    with np.errstate(all="ignore"):
        return name, np.divide(sums, calls if calls > 0 else 1, dtype=np.float32)


def _origin(reader: Reader) -> tuple[int, tuple[str, ...]]:
    chunks = reader.integer("i")
    return max(chunks, 0), (reader.text("i"),)
