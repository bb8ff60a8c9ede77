"""Tensors whose bytes are in a file, made from tensors in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weighbridge.encoding import Blocked, Dense
from weighbridge.file import File
from weighbridge.tensor import Extent, Tensor

if TYPE_CHECKING:
    from pathlib import Path

PADDING = b"\xa5" * 13
"""What lies before and after a tensor: reading it would show."""


def in_file(tensor: Tensor, path: Path, order: str = "<") -> Tensor:
    """Write a tensor's parts to a file and return the tensor that lies there."""
    content = PADDING
    spans = {}
    for part in tensor.parts:
        data = _ordered(tensor, part, order)
        spans[part] = (len(content), len(data))
        content += data + PADDING
    path.write_bytes(content)
    file = File(path)
    parts = {part: Extent(file, *span, order) for part, span in spans.items()}
    return Tensor(tensor.name, tensor.shape, tensor.encoding, parts)


def _ordered(tensor: Tensor, part: str, order: str) -> bytes:
    """Return the bytes of a part with every number in the byte order, field by field in blocks."""
    data = tensor.part(part)
    whole = isinstance(tensor.encoding, Dense) and tensor.encoding.bits >= 8
    if order == "<" or not (whole or isinstance(tensor.encoding, Blocked)):
        return data.tobytes()
    little = tensor.encoding.dtype
    numbers = np.frombuffer(data, little)
    if not little.fields:
        return numbers.byteswap().tobytes()
    swapped = np.empty_like(numbers)
    for name in little.names:
        swapped[name] = numbers[name].byteswap()
    return swapped.tobytes()
