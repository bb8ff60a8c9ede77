"""ONNX: a model file, and the files beside it that hold external data.

Source: ``onnx.proto`` of ONNX 1.23 (IR version 14). The graph is summarised, and can be walked.

A file with a graph that carries no config of its own takes config.json and the side files of its
directory, or of the one above where that is called ``onnx``, as Optimum writes them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.format import Format
from weighbridge.formats import directory
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
        """Return the model at `path`; see `weighbridge.formats.onnx.parse.read_model`.

        Raises:
            InvalidFile: (rule ``json``) when the config.json beside a graph is no object.
        """
        model = read_model(path)
        if model.graph is None or model.config is not None or model.files:
            return model
        home = directory.home_of(path.parent)
        if home is None:
            return model
        try:
            return replace(
                model, config=directory.read_config(home), files=directory.onnx_side_files(home)
            )
        except BaseException:
            model.close()
            raise

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        """Return its files; see `weighbridge.formats.onnx.layout.lay_out`."""
        return lay_out(model, name, options)


FORMAT = Onnx()
