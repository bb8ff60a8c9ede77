"""GGUF, the container of llama.cpp: versions 2 and 3, either byte order, one file or several.

Source: the GGUF specification (``docs/gguf.md`` of ggml).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.format import Format
from weighbridge.formats.gguf.layout import lay_out
from weighbridge.formats.gguf.split import all_tensors, merged, read_parts
from weighbridge.formats.gguf.types import FORMER_MAGICS, MAGIC, TYPE_IDS
from weighbridge.model import Model

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.layout import Layout, LayoutOptions

__all__ = ["FORMAT", "Gguf"]


class Gguf(Format):
    """The format; a model in several parts is one model, whichever part is opened.

    Example:
        >>> from weighbridge.layout import LayoutOptions
        >>> FORMAT.layout(Model("gguf", "gguf", {}), "empty.gguf", LayoutOptions()).files[0].size
        32
    """

    name = "gguf"
    title = "GGUF"
    suffixes = (".gguf",)
    dialect = "gguf"
    encodings = frozenset(TYPE_IDS)

    def sniff(self, path: Path, head: bytes) -> bool:
        """Tell a GGUF, or a file of one of its predecessors, which `open` refuses by name."""
        return head[:4] == MAGIC or head[:4] in FORMER_MAGICS

    def open(self, path: Path) -> Model:
        """Parse and validate the headers of all parts; see `weighbridge.formats.gguf.parse`."""
        parts = read_parts(path)
        return Model(
            self.name,
            self.dialect,
            all_tensors(parts),
            metadata=merged(parts),
            path=path,
            resources=tuple(part.file for part in parts),
        )

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        """Return the files that hold `model`; see `weighbridge.formats.gguf.layout`."""
        return lay_out(model, name, options)


FORMAT = Gguf()
