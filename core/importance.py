"""Importance matrices: how much the columns of a model's matrices count when they are quantised.

A dialect reads one from a file; the recipe, the plan and the encoders use it. What the weights of
one matrix mean is said in `kernels.importance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge import region as regions
from weighbridge.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from weighbridge.region import Region, Shape


@dataclass(frozen=True, eq=False)
class Importance:
    """The weights of one tensor's columns. One is equal to itself only.

    Attributes:
        weights: float32 of shape ``(n,)`` for a matrix with rows of n values; a stack of matrices
            has such a row for each, in shape ``shape[:-2] + (n,)``.

    Example:
        >>> import numpy as np
        >>> stack = Importance(np.float32([[1, 2], [3, 4]]))
        >>> stack.of(((1, 2), (0, 5), (0, 2))).tolist()
        [[3.0, 4.0]]
    """

    weights: NDArray[np.float32]

    def of(self, region: Region) -> NDArray[np.float32]:
        """Return the weights of a region of the tensor's shape that has whole rows."""
        return self.weights[regions.slices(region[:-2])]


@dataclass(frozen=True, eq=False)
class ImportanceMatrix:
    """The importance of many tensors, as a file has it.

    Attributes:
        path: the file.
        entries: a tensor's name -> its weights, float32 of one axis, those of an expert after
            those of the one before.
        datasets: what it was made from, as the file names it.
        chunks: how many pieces of text it was made from, 0 where the file does not say.
        loose: the tensors whose entries are as good as missing where they do not fit.
    """

    path: Path
    entries: Mapping[str, NDArray[np.float32]]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    loose: frozenset[str] = frozenset()

    def of(self, name: str, shape: Shape) -> Importance | None:
        """Return the importance of a tensor of two axes or more, None where there is no entry.

        Raises:
            InvalidInput: (rule ``importance``) for an entry that is not of a tensor of that shape.

        Example:
            >>> import numpy as np
            >>> from pathlib import Path
            >>> matrix = ImportanceMatrix(Path("x.gguf"), {"a": np.ones(64, np.float32)})
            >>> matrix.of("a", (2, 10, 32)).weights.shape
            (2, 32)
            >>> matrix.of("a", (10, 32))
            Traceback (most recent call last):
            ...
            weighbridge.errors.InvalidInput: x.gguf: tensor 'a': the importance matrix is of a \
tensor of another shape (got 64 weights, expected 32) [importance]
        """
        weights = self.entries.get(name)
        if weights is None:
            return None
        columns = (*shape[:-2], shape[-1])
        if weights.size != math.prod(columns) and name in self.loose:
            return None
        if weights.size != math.prod(columns):
            raise InvalidInput(
                "the importance matrix is of a tensor of another shape",
                rule="importance",
                tensor=name,
                path=self.path,
                got=f"{weights.size} weights",
                expected=math.prod(columns),
            )
        return Importance(weights.reshape(columns))
