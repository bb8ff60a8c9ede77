"""The interface that every runtime offers, so that any two can be compared.

A `Runtime` knows a format and says from a model's header alone what kind of model it is; what it
starts is a `Runner`, which holds the weights and answers. Runtimes are registered under
``weighbridge.runtimes``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from weighbridge.errors import Error, InvalidFile, MissingDependency, Unsupported, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from weighbridge.model import Model

    Floats = NDArray[np.float64]


class Kind(Enum):
    """What a model gives for a text."""

    DECODER = "decoder"
    """The next token's probabilities."""
    ENCODER = "encoder"
    """An embedding, or the scores of a classifier."""


@dataclass(frozen=True)
class Facts:
    """What a model's header says about running it.

    Attributes:
        kind: what it gives.
        vocabulary: how many token ids there are, None where nothing tells.
        context: how many tokens it takes at most, None where nothing tells.
        tokenizes: whether it has a tokenizer.
        pooling: how an encoder's states become one embedding, by its files: ``mean``, ``cls``,
            ``last``, ``none`` (a state for each token) or ``rank`` (a classifier's scores); None
            where nothing tells.
    """

    kind: Kind
    vocabulary: int | None = None
    context: int | None = None
    tokenizes: bool = False
    pooling: str | None = None


class Runner(ABC):
    """A model that runs. Everything is computed one text at a time, in float32 where it can be."""

    @abstractmethod
    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text, special tokens added as the model's files say."""

    @abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """Return what token ids mean."""

    @abstractmethod
    def log_probs(self, ids: Sequence[int], lengths: Sequence[int]) -> Floats:
        """Return what a decoder expects after each of some prefixes.

        Args:
            ids: token ids.
            lengths: how long the prefixes of `ids` are, rising.

        Returns:
            The natural logarithms of the next token's probabilities: a row for each prefix, a
            column for each token of the vocabulary.
        """

    @abstractmethod
    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens that a decoder adds, or fewer where it ends its text."""

    @abstractmethod
    def embed(self, ids: Sequence[int], pooling: str) -> Floats:
        """Return an encoder's embedding, as it is before it is scaled to length 1.

        Args:
            ids: token ids.
            pooling: see `Facts`.

        Returns:
            (width,), or (tokens, width) where `pooling` is ``none``.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds; idempotent."""

    def __enter__(self) -> Self:
        """Return the runner; it closes with the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


class Runtime(ABC):
    """A program that runs models of some formats.

    Attributes:
        name: what users call it.
        formats: the formats that it runs itself.
        imports: those that it runs where it is asked to, after some translation.
        packages: the Python packages that it needs.
    """

    name: ClassVar[str]
    formats: ClassVar[frozenset[str]]
    imports: ClassVar[frozenset[str]] = frozenset()
    packages: ClassVar[tuple[str, ...]]

    @abstractmethod
    def facts(self, model: Model) -> Facts:
        """Return what a model's header says about running it; nothing is run or imported.

        Raises:
            Unsupported: when this runtime cannot run such a model.
        """

    @abstractmethod
    def start(self, model: Model, facts: Facts, room: int) -> Runner:
        """Load a model.

        Args:
            model: an opened model; its path is what is run.
            facts: those of `facts`, where ``pooling`` may be filled in.
            room: how many tokens it has to take at once.

        Raises:
            Error: (rule ``runtime``) when the runtime refuses the model.
        """

    def check_installed(self) -> None:
        """Raise `MissingDependency`, the package as its rule, when a package is missing."""
        for package in self.packages:
            if find_spec(package) is None:
                raise MissingDependency(
                    f"{package} is not installed, which {self.name} needs",
                    rule=package,
                    hint="pip install 'weighbridge[verify]'",
                )


@contextmanager
def blaming(runtime: str, path: Path | None) -> Iterator[None]:
    """Turn whatever a runtime raises for a model into an error of this library.

    Raises:
        InvalidFile: (rule ``runtime``) with the first line of what the runtime said.
    """
    try:
        yield
    except Error:
        raise
    except Exception as error:  # a runtime may raise anything, and so may a model's own code
        lines = str(error).strip().splitlines() or [type(error).__name__]
        problem = f"{runtime} cannot run it: {printable(lines[0])}"
        raise InvalidFile(problem, rule="runtime", path=path) from error


@np.errstate(all="ignore")
def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Return logarithms of probabilities, normalised over the last axis in float64.

    Example:
        >>> log_softmax(np.array([[0.0, 0.0]])).round(4).tolist()
        [[-0.6931, -0.6931]]
    """
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def pooled(states: NDArray[np.floating], pooling: str) -> Floats:
    """Return one embedding from the states of all tokens, (tokens, width).

    Raises:
        Unsupported: (rule ``pooling``) for a way that is not known.

    Example:
        >>> pooled(np.array([[1.0, 2.0], [3.0, 4.0]]), "mean").tolist()
        [2.0, 3.0]
    """
    wide = states.astype(np.float64)
    if pooling == "mean":
        mean: Floats = wide.mean(axis=0)
        return mean
    if pooling in ("cls", "last"):
        row: Floats = wide[0 if pooling == "cls" else -1]
        return row
    if pooling == "none":
        return wide
    raise Unsupported(
        "hidden states cannot be pooled so",
        rule="pooling",
        got=pooling,
        expected="mean, cls, last or none",
    )
