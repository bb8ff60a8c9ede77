"""The present form of an importance matrix: a GGUF file.

For each matrix of the model there are two float32 tensors: ``NAME.in_sum2``, the sums of squares,
with a row for each expert (one where there are none), and ``NAME.counts``, by what each row is
divided. Source: llama.cpp, ``tools/quantize/quantize.cpp`` and ``tools/imatrix``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge import registry
from weighbridge.encoding import DENSE
from weighbridge.errors import InvalidFile
from weighbridge.importance import ImportanceMatrix

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from weighbridge.metadata import Metadata, Value
    from weighbridge.model import Model

SUMS = ".in_sum2"
COUNTS = ".counts"

DATASETS = "imatrix.datasets"
CHUNK_COUNT = "imatrix.chunk_count"
CHUNK_SIZE = "imatrix.chunk_size"

KEYS = {DATASETS: ("array", "string"), CHUNK_COUNT: ("u32", None), CHUNK_SIZE: ("u32", None)}
"""The key-values that such a file has -> their types, and those of their items."""


def read(path: Path) -> ImportanceMatrix:
    """Read a whole file.

    Raises:
        InvalidFile: with the rule of GGUF that it breaks; (rules ``missing-key``, ``value-type``)
            for a GGUF file that is no importance matrix, (rule ``empty``) for one without entries,
            (rules ``mismatched``, ``dtype``) for sums without counts that fit them.
    """
    with registry.formats()["gguf"].open(path) as model:
        found = {key: _value(model.metadata, key, *types) for key, types in KEYS.items()}
        entries = {name: _weights(model, name) for name in _names(model)}
    if not entries:
        raise InvalidFile("holds no entry", rule="empty")
    return ImportanceMatrix(
        path, entries, tuple(found[DATASETS].plain()), int(found[CHUNK_COUNT].data)
    )


def _value(metadata: Metadata, key: str, type: str, items: str | None) -> Any:
    value: Value | None = metadata.get(key)
    if value is None:
        raise InvalidFile(f"lacks the key-value {key}", rule="missing-key")
    if (value.type, value.items) != (type, items):
        raise InvalidFile(f"{key} is of another type", rule="value-type", got=value.type)
    return value


def _names(model: Model) -> list[str]:
    """Return the tensors of which there are sums or counts; llama.cpp skips other tensors."""
    names = [
        tensor.removesuffix(end)
        for tensor in model.tensors
        for end in (SUMS, COUNTS)
        if tensor.endswith(end)
    ]
    return list(dict.fromkeys(names))


def _weights(model: Model, name: str) -> NDArray[np.float32]:
    """Return sums over counts; what had no input counts the same everywhere, as in llama.cpp."""
    sums, counts = (_numbers(model, name, end) for end in (SUMS, COUNTS))
    if sums.ndim > 2 or counts.size != sums[..., 0].size:
        raise InvalidFile(
            "its sums and its counts do not belong together",
            rule="mismatched",
            tensor=name,
            got=f"shapes {list(sums.shape)} and {list(counts.shape)}",
        )
    rows, by = sums.reshape(counts.size, -1), counts.reshape(-1, 1)
    if not ((by >= 0) & np.isfinite(by)).all():
        raise InvalidFile("its counts are finite, and not negative", rule="mismatched", tensor=name)
    with np.errstate(all="ignore"):
        return np.where(by > 0, rows / by, np.float32(1)).reshape(-1)


def _numbers(model: Model, name: str, end: str) -> NDArray[Any]:
    tensor = model.tensors.get(name + end)
    if tensor is None:
        raise InvalidFile("has sums or counts alone", rule="mismatched", tensor=name)
    if tensor.encoding != DENSE["f32"]:
        raise InvalidFile(
            "is not of float32", rule="dtype", tensor=name + end, got=str(tensor.encoding)
        )
    return tensor.values()
