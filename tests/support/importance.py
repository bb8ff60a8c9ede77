"""Importance matrices, written as llama-imatrix writes them: GGUF by gguf-py, ``.dat`` by hand."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Weights = NDArray[np.float32]

DATASET = "wiki.train.raw"
CHUNKS = 7


@dataclass(frozen=True)
class Sums:
    """What was counted for one matrix.

    Attributes:
        sums: sums of squares, of shape ``(experts, columns)``.
        counts: by what each expert's are divided.
    """

    sums: Weights
    counts: tuple[int, ...]

    def means(self) -> Weights:
        """Return what llama-quantize makes of it: ones for an expert that had no input."""
        rows = zip(self.sums, self.counts, strict=True)
        return np.concatenate(
            [row / np.float32(count) if count else np.ones_like(row) for row, count in rows]
        )


def made_up(columns: int, counts: tuple[int, ...] = (3,), seed: int = 0) -> Sums:
    """Return sums of which many are small, few large, and some zero."""
    raw = np.random.PCG64(seed).random_raw(len(counts) * columns)
    numbers = (raw % 4096).astype(np.float32).reshape(len(counts), columns)
    return Sums(numbers**4 * np.float32(2.0**-44), counts)


def write_gguf(path: Path, matrices: Mapping[str, Sums]) -> Path:
    """Write the present form of a matrix."""
    writer = gguf.GGUFWriter(path, arch="")
    writer.kv_data[0].clear()
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [DATASET])
    writer.add_uint32("imatrix.chunk_count", CHUNKS)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, held in matrices.items():
        writer.add_tensor(f"{name}.in_sum2", held.sums)
        writer.add_tensor(f"{name}.counts", np.float32(held.counts).reshape(-1, 1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dat(matrices: Mapping[str, Weights], calls: int = 1, *, origin: bool = True) -> bytes:
    """Return the former form of a matrix; before March 2024 it ended with the last entry."""
    parts = [struct.pack("<i", len(matrices))]
    for name, sums in matrices.items():
        raw = name.encode()
        parts += [struct.pack("<i", len(raw)), raw, struct.pack("<ii", calls, sums.size)]
        parts.append(sums.astype("<f4").tobytes())
    if origin:
        parts.append(struct.pack("<ii", CHUNKS, len(DATASET)) + DATASET.encode())
    return b"".join(parts)
