"""Layouts written the plain way, to look at formats without the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weighbridge import region

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.layout import Layout
    from weighbridge.model import Model
    from weighbridge.tensor import Lazy


def write_layout(layout: Layout, model: Model, directory: Path) -> list[Path]:
    """Write the files of a layout into a directory and return where they are."""
    contents = [np.zeros(file.size, np.uint8) for file in layout.files]
    for content, file in zip(contents, layout.files, strict=True):
        for offset, piece in file.pieces:
            content[offset : offset + len(piece)] = np.frombuffer(piece, np.uint8)
    for (name, part), slot in layout.slots.items():
        stored = _stored(model.tensors[name], part)
        assert stored.nbytes == slot.length
        contents[slot.file][slot.offset : slot.offset + slot.length] = stored
    paths = [directory / file.name for file in layout.files]
    for path, content in zip(paths, contents, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.tobytes())
    return paths


def _stored(tensor: Lazy, part: str) -> np.ndarray:
    if len(tensor.encoding.sizes(tensor.shape)) > 1:
        return tensor.part(part)
    grains = tensor.grains(region.whole(tensor.grid))
    return np.ascontiguousarray(grains).reshape(-1).view(np.uint8)
