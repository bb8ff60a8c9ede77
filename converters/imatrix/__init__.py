"""Importance matrices as llama-imatrix writes them: GGUF files, and the older ``.dat`` files.

Both hold, for each matrix of a model, the sum of the squares of what its columns were multiplied
by while the model read some text, and how often they were. Their mean is how much a column counts.
Source: llama.cpp, ``tools/imatrix`` and ``tools/quantize``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.converters.imatrix import dat, gguf
from weighbridge.errors import InvalidFile, InvalidInput
from weighbridge.file import File
from weighbridge.metadata import scalar, string

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from weighbridge.importance import ImportanceMatrix
    from weighbridge.metadata import Metadata

__all__ = ["metadata", "read"]

GGUF_MAGIC = b"GGUF"

EMBEDDINGS = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})
"""What llama-quantize does not stop at where an entry has another size."""


def read(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """Read an importance matrix; its names are those of GGUF tensors.

    Raises:
        NotFound: (rule ``not-found``) when there is no such file.
        InvalidFile: with the rule that the file breaks, (rule ``importance``) for weights that are
            negative or not finite.
        InvalidInput: (rules ``not-a-file``, ``unreadable``) for what cannot be read.
    """
    place = Path(path)
    file = File(place)
    try:
        small = file.size < len(GGUF_MAGIC)
        former = small or file.read(0, len(GGUF_MAGIC)) != GGUF_MAGIC
        held = dat.read(file) if former else gguf.read(place)
        for name, weights in held.entries.items():
            _check_weights(name, weights)
    except (InvalidFile, InvalidInput) as error:
        error.path = error.path or str(place)
        error.hint = error.hint or "a file that llama-imatrix has written is expected"
        raise
    finally:
        file.close()
    return replace(held, loose=EMBEDDINGS)


def metadata(matrix: ImportanceMatrix) -> Metadata:
    """Return the key-values by which a quantised model names its importance matrix.

    They are llama-quantize's, which cuts texts after 127 bytes; here they are whole.

    Example:
        >>> from weighbridge.importance import ImportanceMatrix
        >>> held = {"blk.0.attn_q.weight": np.ones(64, np.float32)}
        >>> made = metadata(ImportanceMatrix(Path("m.gguf"), held, ("wiki.txt", "code.txt"), 50))
        >>> [value.data for value in made.values()]
        ['m.gguf', 'wiki.txt', 1, 50]
    """
    found = {"file": string(str(matrix.path))}
    if matrix.datasets:
        found["dataset"] = string(matrix.datasets[0])
    found["entries_count"] = scalar("u32", len(matrix.entries))
    if matrix.chunks:
        found["chunks_count"] = scalar("u32", matrix.chunks)
    return {f"quantize.imatrix.{key}": value for key, value in found.items()}


def _check_weights(name: str, weights: NDArray[np.float32]) -> None:
    wrong = ~((weights >= 0) & np.isfinite(weights))
    if wrong.any():
        raise InvalidFile(
            "importance is finite, and not negative",
            rule="importance",
            tensor=name,
            got=weights[wrong][0],
        )
