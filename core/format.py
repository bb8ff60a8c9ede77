"""What a container format is: a parser and a layout, both without a loop over weight bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from weighbridge.model import HUGGING_FACE, Model

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.layout import Layout, LayoutOptions


class Format(ABC):
    """A container format; one instance is registered under ``weighbridge.formats``.

    Attributes:
        name: lower case, as ``--to`` takes it.
        title: as people write it.
        suffixes: of its files, with the dot; a target with one of them has this format.
        dialect: whose tensor names and key-values it carries.
        encodings: the names of the encodings that it can store.
        directory: whether a target is a directory of files.
        weights: for a directory format, the format of the weight files in it.
        carries_files: whether config and side files can be stored in it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    dialect: ClassVar[str] = HUGGING_FACE
    encodings: ClassVar[frozenset[str]]
    directory: ClassVar[bool] = False
    weights: ClassVar[str | None] = None
    carries_files: ClassVar[bool] = False

    @abstractmethod
    def sniff(self, path: Path, head: bytes) -> bool:
        """Tell by content whether `path` is of this format.

        Args:
            path: a file or a directory.
            head: a file's first 4096 bytes, empty for a directory.
        """

    @abstractmethod
    def open(self, path: Path) -> Model:
        """Parse and validate the whole header; read no weights.

        Raises:
            InvalidFile: with the rule that the file breaks.
        """

    @abstractmethod
    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        """Return the files that hold `model`, computed from names, shapes and encodings alone.

        Args:
            model: in this format's dialect, every tensor in an encoding out of `encodings`.
            name: the target's own name, from which shards take theirs.
            options: what the user said about the shape on disk.

        Raises:
            Unsupported: when the model cannot be stored so.
        """
