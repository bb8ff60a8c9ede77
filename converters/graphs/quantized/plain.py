"""Weights that a graph reads as plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.encoding import Dense, is_float
from weighbridge.recode import recode

if TYPE_CHECKING:
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy


def plain(name: str, tensor: Lazy, encoding: Dense, report: Report) -> Lazy:
    """Return a weight in a dense encoding; that a quantised one is decoded is reported."""
    stored = quantized(tensor)
    if stored:
        text = f"{' and '.join(sorted(stored))} as {encoding}: has no exact form in ONNX there"
        report.note("decoded", name, text)
    return recode(tensor, encoding)


def quantized(tensor: Lazy) -> set[str]:
    """Return the encodings that are not dense among those that a tensor is made from.

    Example:
        >>> import numpy as np
        >>> from weighbridge.kernels.ggml import BLOCKED
        >>> from weighbridge.ops import Transpose, apply
        >>> from weighbridge.tensor import Tensor
        >>> rows = Tensor("x", (1, 32), BLOCKED["q8_0"], {"data": np.zeros(34, np.uint8)})
        >>> quantized(apply(Transpose(), [rows])[0])
        {'Q8_0'}
    """
    if not isinstance(tensor.encoding, Dense):
        return {str(tensor.encoding)}
    inputs: tuple[Lazy, ...] = getattr(tensor, "inputs", ())
    return set().union(*map(quantized, inputs))


def of_floats(tensor: Lazy) -> bool:
    """Tell whether all that a tensor is made from is stored as floating-point numbers."""
    return all(
        isinstance(leaf.encoding, Dense) and is_float(leaf.encoding) for leaf in tensor.leaves()
    )
