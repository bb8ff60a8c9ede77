"""What a run is going to compute, known before it starts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from weighbridge.encoding import Blocked, Dense

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.encoding import Encoding
    from weighbridge.tensor import Lazy


def conversions(results: Iterable[tuple[Lazy, Encoding]]) -> Mapping[tuple[str, str], int]:
    """Return how many values have to be made: of which stored encoding, in which one, by name.

    Args:
        results: what is to be computed, and in which encoding.

    Example:
        >>> import numpy as np
        >>> from weighbridge.encoding import DENSE
        >>> from weighbridge.tensor import from_array
        >>> dict(conversions([(from_array("x", np.zeros(3, np.float32)), DENSE["bf16"])]))
        {('f32', 'bf16'): 3}
    """
    counts: Counter[tuple[str, str]] = Counter()
    for tensor, encoding in results:
        for leaf in tensor.leaves():
            if isinstance(leaf.encoding, Blocked | Dense) and leaf.encoding != encoding:
                counts[leaf.encoding.name, encoding.name] += leaf.size
    return counts
