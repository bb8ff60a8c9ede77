"""ggml's own C code as a referee: the one that is in the llama.cpp of xllamacpp."""

from __future__ import annotations

import ctypes
import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np


@functools.cache
def _library() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    return ctypes.CDLL(str(next(Path(spec.origin).parent.glob("*.so"))))


TYPE_NUMBERS = {
    "iq2_xxs": 16,
    "iq2_xs": 17,
    "iq3_xxs": 18,
    "iq1_s": 19,
    "iq3_s": 21,
    "iq2_s": 22,
    "iq1_m": 29,
}
"""The numbers of the types for whose grids ggml has to be made ready."""


def _call(function: str, source: np.ndarray, target: np.ndarray, count: int) -> None:
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (source, target))
    called = _library()[function]
    called.restype = None
    called(*pointers, ctypes.c_int64(count))


def decode(name: str, data: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` values of the blocks of type `name` in `data`."""
    values = np.empty(count, np.float32)
    function = f"dequantize_row_{name}".replace("_k", "_K")
    _call(function, np.ascontiguousarray(data), values, count)
    return values


def encode(
    name: str, values: np.ndarray, nbytes: int, importance: np.ndarray | None = None
) -> np.ndarray:
    """Return the `nbytes` bytes of the blocks of type `name` that ggml makes of rows `values`.

    `importance` is a float32 weight for each column.
    """
    data = np.zeros(nbytes, np.uint8)
    values = np.ascontiguousarray(values)
    called = _library()[f"quantize_{name}".replace("_k", "_K")]
    called.restype = ctypes.c_size_t
    _library().ggml_quantize_init(TYPE_NUMBERS.get(name, 0))
    rows, columns = (ctypes.c_int64(n) for n in values.shape)
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (values, data))
    weights = None if importance is None else ctypes.c_void_p(importance.ctypes.data)
    assert called(*pointers, rows, columns, weights) == nbytes
    return data


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Return the bits of float32 `values` as bf16."""
    bits = np.zeros(values.size, np.uint16)
    _call("ggml_fp32_to_bf16_row_ref", values, bits, values.size)
    return bits
