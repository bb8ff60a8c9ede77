"""Which tensors of a graph are its own constants: scalars, shapes, masks and indices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.encoding import is_float

if TYPE_CHECKING:
    from weighbridge.tensor import Lazy


def is_constant(tensor: Lazy) -> bool:
    """Tell whether a tensor is too small for a weight, or holds no fractions.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> is_constant(from_array("shape", np.array([2, 3, -1])))
        True
    """
    return tensor.size <= 1 or not is_float(tensor.encoding)
