"""What a run is going to compute, known before it starts, and the compiled code for it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from weighbridge.encoding import Blocked, Dense
from weighbridge.engine.budget import budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.encoding import Encoding
    from weighbridge.engine.budget import Budget
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


def prepared(
    expected: Mapping[tuple[str, str], int], memory: int, threads: int | None = None
) -> Budget:
    """Have compiled code ready where it pays, and return the bounds that are left.

    Args:
        expected: what is to be computed; see `conversions`.
        memory: the bytes to work in, beside what is taken already.
        threads: how many threads work; None takes one for each core.

    Raises:
        InvalidInput: (rules ``memory``, ``threads``) as `budget` does.
    """
    if expected:
        from weighbridge.kernels import shortcuts  # the codecs are needed only here

        memory -= shortcuts.expect(expected, memory)
    return budget(memory, threads, beside=True)
