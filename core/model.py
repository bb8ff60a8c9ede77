"""What `weighbridge.open` returns, and what a format lays out: one shape for every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from weighbridge.file import File
    from weighbridge.graph import Graph
    from weighbridge.metadata import Value
    from weighbridge.region import Shape
    from weighbridge.tensor import Lazy

HUGGING_FACE = "huggingface"
"""The canonical dialect: Hugging Face's tensor names, shapes and config keys."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """How a graph reads a tensor.

    Attributes:
        tensor: its name in `Model.tensors`.
        shape: the shape that the graph sees: of as many numbers, in the same order.
    """

    tensor: str
    shape: Shape


@dataclass(frozen=True)
class Component:
    """A graph of a model that ONNX Runtime runs: the whole, or one of the stages of generation.

    Attributes:
        name: ``model``, ``encoder``, ``prefill``, ``decode``; its file is ``<name>.onnx``.
        graph: a serialised ``onnx.ModelProto`` that lacks its weights: initialisers that it reads
            and does not hold.
        weights: each such initialiser -> the tensor that it is. Several may be one tensor, in one
            component and across components.
    """

    name: str
    graph: bytes
    weights: Mapping[str, Reading]


@dataclass
class Model:
    """A model whose weights stay where they are until they are asked for.

    Attributes:
        format: the container's name, ``gguf``.
        dialect: whose names and shapes the tensors have: ``huggingface``, ``gguf`` or ``onnx``.
        tensors: name -> lazy tensor, in the file's order.
        metadata: the container's own key-values, verbatim and typed.
        config: the model's ``config.json``, None where there is none.
        files: side files by name (``tokenizer.json``), as bytes; a mapping may read them late.
        graph: what the container says about the computation, None where it holds weights alone.
        components: the graphs that are to be written, for ONNX Runtime to run.
        linked: whether these graphs read weights that stay in the checkpoint's files, so that they
            have to be written into its directory.
        path: where it was opened, None for a model in memory.
        resources: the files that are held open.

    Example:
        >>> with Model("gguf", "gguf", {}) as model:
        ...     len(model.tensors)
        0
    """

    format: str
    dialect: str
    tensors: Mapping[str, Lazy]
    metadata: Mapping[str, Value] = field(default_factory=dict)
    config: Config | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    graph: Graph | None = None
    components: tuple[Component, ...] = ()
    linked: bool = False
    path: Path | None = None
    resources: tuple[File, ...] = ()

    def __enter__(self) -> Self:
        """Return the model; it closes with the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files; arrays that were handed out stay valid."""
        for file in self.resources:
            file.close()

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors, as stored."""
        return sum(tensor.nbytes for tensor in self.tensors.values())
