"""Importance weights: how much the error of each column of a matrix counts when it is encoded.

They are what ggml calls ``quant_weights``, and llama.cpp an importance matrix: a number for each
column, the same for all rows. A stack of matrices, one for each expert, has such numbers for each
of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from weighbridge.encoding import Encoding, Shape
    from weighbridge.kernels.codec import Values


def checked(importance: NDArray[Any], shape: Shape) -> Values:
    """Return the weights of the columns of an array of `shape` as float32.

    Args:
        importance: numbers of shape ``(n,)`` for matrices with rows of `n` values; or a row for
            each matrix of a stack, of shape ``shape[:-2] + (n,)``.
        shape: the shape of what they are for.

    Raises:
        InvalidInput: (rule ``importance``) when they have another shape, or one is negative,
            infinite or not a number.

    Example:
        >>> checked(np.ones(64), (2, 10, 64)).shape
        (64,)
    """
    allowed = [shape[-1:], (*shape[:-2], *shape[-1:])]
    if importance.shape not in allowed:
        raise InvalidInput(
            "importance weights are one for each column",
            rule="importance",
            got=f"shape {list(importance.shape)}",
            expected=" or ".join(f"shape {list(one)}" for one in dict.fromkeys(allowed)),
        )
    with np.errstate(all="ignore"):
        weights = np.ascontiguousarray(importance, np.float32)
    wrong = ~((weights >= 0) & np.isfinite(weights))
    if wrong.any():
        raise InvalidInput(
            "importance weights are finite, and not negative",
            rule="importance",
            got=importance[wrong][0],
        )
    return weights


def matrices(
    values: NDArray[Any], importance: Values
) -> Iterator[tuple[slice, NDArray[Any], Values]]:
    """Yield matrices whose rows have the same weights.

    With each come the rows that it has of all the rows of `values`, before it, and its weights
    behind it, of shape ``(n,)``.

    Example:
        >>> stack, weights = np.zeros((2, 3, 32)), np.ones((2, 32), np.float32)
        >>> [(rows, matrix.shape) for rows, matrix, _ in matrices(stack, weights)]
        [(slice(0, 3, None), (3, 32)), (slice(3, 6, None), (3, 32))]
        >>> [matrix.shape for _, matrix, _ in matrices(stack, weights[0])]
        [(6, 32)]
    """
    length = values.shape[-1]
    weights = importance.reshape(math.prod(importance.shape[:-1]), length)
    rows = values.reshape(math.prod(values.shape[:-1]), length)
    count = len(rows) // len(weights) if len(weights) else 0
    for i, row in enumerate(weights):
        part = slice(i * count, (i + 1) * count)
        yield part, rows[part], row


def missing(encoding: Encoding) -> InvalidInput:
    """Return the error for who gives no weights for what ggml makes with weights only."""
    return InvalidInput(
        f"{encoding} is made with importance weights only",
        rule="importance",
        got="none",
        expected="a weight for each column",
    )
