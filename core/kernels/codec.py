"""What an encoding is able to do: blocks to numbers, and numbers to blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weighbridge.encoding import Blocked, Encoding
from weighbridge.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

Blocks = NDArray[Any]
"""Blocks of one encoding: one axis, and the structured type that `block_dtype` gives."""

Values = NDArray[np.float32]
"""The numbers of some blocks: a row for each block."""


@dataclass(frozen=True)
class Codec:
    """How the blocks of an encoding are decoded and encoded.

    All functions are pure and keep no state, so that any number of threads may call them. What
    `decode` and `encode` do to a block does not depend on its neighbours, what `weighted` does to
    a row not on other rows.

    Attributes:
        encoding: the encoding.
        decode: turns blocks of shape ``(n,)`` into float32 values of shape ``(n, grain)``.
        encode: turns such values into blocks; None where no encoder is known, or none that does
            without weights.
        weighted: turns whole rows, float32 of shape ``(r, n)``, and the importance of each of
            their columns, float32 of shape ``(n,)``, into blocks of shape ``(r * n / grain,)``;
            None where importance makes no difference.

    Example:
        >>> from weighbridge.kernels import codec_for
        >>> q8_0 = codec_for("q8_0")
        >>> q8_0.decode(q8_0.blocks(bytes(34))).shape
        (1, 32)
    """

    encoding: Encoding
    decode: Callable[[Blocks], Values]
    encode: Callable[[Values], Blocks] | None = None
    weighted: Callable[[Values, Values], Blocks] | None = None

    def blocks(self, data: bytes | memoryview | NDArray[np.uint8]) -> Blocks:
        """Return `data` as blocks, without copying."""
        return np.frombuffer(data, np.uint8).view(block_dtype(self.encoding))


def block_dtype(encoding: Encoding) -> np.dtype[np.void]:
    """Return the structured type of one block: of one grain where there are no fields.

    Example:
        >>> from weighbridge.encoding import DENSE
        >>> block_dtype(DENSE["f6_e2m3"]).itemsize
        3
    """
    if isinstance(encoding, Blocked):
        return encoding.dtype
    return np.dtype([("bytes", "u1", (encoding.grain_bytes,))])


def refuse_not_finite(values: Values, encoding: Encoding) -> None:
    """Refuse numbers that no block can hold.

    Raises:
        InvalidInput: (rule ``not-finite``) when a value is infinite or not a number.
    """
    finite = np.isfinite(values)
    if not finite.all():
        raise InvalidInput(
            f"{encoding} cannot hold numbers that are not finite",
            rule="not-finite",
            got=values[~finite][0],
        )
