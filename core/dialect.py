"""What a dialect is: one world's names, shapes and key-values, and the way to Hugging Face's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from weighbridge.errors import Unsupported
from weighbridge.wish import GraphWish

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from weighbridge.encoding import Encoding
    from weighbridge.importance import ImportanceMatrix
    from weighbridge.model import Model
    from weighbridge.recipe import Recipe
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy


@dataclass(frozen=True)
class DialectOptions:
    """What a user may say about the translation.

    Attributes:
        name: what the model is called, from the source's path where nothing else tells.
        pre_tokenizer: the pre-tokenizer's name, where it should not be recognised.
        dtype: the dense type of floating-point numbers; None leaves it to the dialect.
        quantize: what matrices are to become, for a dialect that must know early.
        graph: what is said of the graphs.
        target: what is to be written.
    """

    name: str = ""
    pre_tokenizer: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    graph: GraphWish = field(default_factory=GraphWish)
    target: Path | None = None


class Dialect(ABC):
    """One table to the canonical dialect and the inverse of that table from it.

    One instance is registered under ``weighbridge.dialects``. Neither direction reads weights or
    raises for what is wrong with the model: both report it and go on, so that all is told at once.

    Attributes:
        name: as formats refer to it.
        universal: whether a name means the same tensor in every model of a family; not so in a
            graph's own.
    """

    name: ClassVar[str]
    universal: ClassVar[bool] = True

    @abstractmethod
    def to_canonical(self, model: Model, report: Report, *, weights_only: bool = False) -> Model:
        """Return `model` with Hugging Face's names, shapes, config and side files.

        Args:
            model: in this dialect.
            report: is told what is wrong.
            weights_only: whether the tensors alone are wanted; then nothing else is translated, nor
                is anything that is wrong with it.
        """

    @abstractmethod
    def from_canonical(self, model: Model, report: Report, options: DialectOptions) -> Model:
        """Return a canonical `model` with this dialect's names, shapes and key-values."""

    def recipe(self, name: str, *, pure: bool = False, weighted: bool = False) -> Recipe | None:
        """Return the recipe of that name, None where the dialect has none.

        Args:
            name: what the user calls it.
            pure: whether it is to give one encoding to all matrices.
            weighted: whether there is an importance matrix.

        Raises:
            InvalidInput: (rule ``importance``) for one that is made with an importance matrix only.
            Unsupported: for one that is known and cannot be followed.
        """
        del name, pure, weighted
        return None

    def importance(self, path: str | os.PathLike[str]) -> ImportanceMatrix:
        """Read an importance matrix whose names are those of this dialect's tensors.

        Raises:
            NotFound: (rule ``not-found``) when there is no such file.
            InvalidFile: with the rule that the file breaks.
            Unsupported: (rule ``importance``) where there are none for this dialect.
        """
        raise Unsupported(
            "importance matrices are of GGUF's tensors",
            rule="importance",
            path=str(path),
            got=f"the tensors of {self.name}",
            hint="convert to GGUF",
        )

    def weighed(self, model: Model, matrix: ImportanceMatrix) -> Model:
        """Return a model of this dialect with what it says of the matrix that it is made with."""
        del matrix
        return model

    @abstractmethod
    def encoding(self, name: str, tensor: Lazy, wanted: Encoding | None) -> Encoding:
        """Return how a tensor of this dialect is to be stored.

        Args:
            name: its name in this dialect.
            tensor: its shape and present encoding.
            wanted: the encoding that the user or a recipe asks for, None to keep the present one.
        """

    def complete(self, model: Model) -> Model:
        """Return a model of this dialect with what follows from its final encodings filled in.

        Called once, when every tensor has the encoding that it will be stored in.
        """
        return model
