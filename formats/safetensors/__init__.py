"""The safetensors container: a JSON header of names, shapes and offsets, then the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.format import Format
from weighbridge.formats.safetensors.dtypes import NAMES
from weighbridge.formats.safetensors.header import MAX_HEADER, PREFIX
from weighbridge.formats.safetensors.reading import (
    INDEX_SUFFIX,
    NAME,
    SUFFIX,
    open_file,
    open_index,
)
from weighbridge.formats.safetensors.writing import lay_out

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.layout import Layout, LayoutOptions
    from weighbridge.model import Model


class Safetensors(Format):
    """One ``.safetensors`` file, or shards behind a ``.safetensors.index.json``."""

    name = NAME
    title = "safetensors"
    suffixes = (SUFFIX,)
    encodings = frozenset(NAMES)

    def sniff(self, path: Path, head: bytes) -> bool:
        """Tell by a believable header length with a ``{`` after it; an index also by its name."""
        if path.name.endswith(INDEX_SUFFIX):
            return head.lstrip()[:1] == b"{"
        length = int.from_bytes(head[:PREFIX], "little")
        return head[PREFIX : PREFIX + 1] == b"{" and length <= MAX_HEADER

    def open(self, path: Path) -> Model:
        """Open a file, or the shards that an index names."""
        return open_index(path) if path.name.endswith(INDEX_SUFFIX) else open_file(path)

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        """Lay out one file, or shards and their index where ``options.shard_size`` says so.

        The bytes of a file depend on nothing but the tensors and the metadata in it. Their order in
        the model decides only which shard holds what.
        """
        return lay_out(model.tensors, model.metadata, name, options.shard_size)


FORMAT = Safetensors()
