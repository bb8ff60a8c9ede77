"""ONNX as a container of tensors: a model file, and the files beside it that hold external data.

Source: ``onnx.proto`` of ONNX 1.23 (IR version 14). The graph is summarised, not interpreted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.format import Format
from weighbridge.formats.onnx.dtypes import BY_ENCODING
from weighbridge.formats.onnx.layout import lay_out
from weighbridge.formats.onnx.parse import read_model
from weighbridge.formats.onnx.sniff import is_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.layout import Layout, LayoutOptions
    from weighbridge.model import Model


class Onnx(Format):
    """ONNX's own container."""

    name = "onnx"
    title = "ONNX"
    suffixes = (".onnx",)
    encodings = frozenset(BY_ENCODING)
    carries_files = True

    def sniff(self, path: Path, head: bytes) -> bool:
        """Tell whether the head of a file is that of an ONNX model."""
        return is_onnx(path, head)

    def open(self, path: Path) -> Model:
        """Return the model at `path`; see `weighbridge.formats.onnx.parse.read_model`."""
        return read_model(path)

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        """Return its files; see `weighbridge.formats.onnx.layout.lay_out`."""
        return lay_out(model, name, options)


FORMAT = Onnx()
