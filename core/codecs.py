"""Encodings by the names that people give them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from weighbridge import kernels
from weighbridge.encoding import DENSE, DTYPE_NAMES, Encoding, is_float
from weighbridge.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from weighbridge.kernels import Codec

NEEDS_IMPORTANCE = frozenset({"iq1_s", "iq2_xxs", "iq2_xs"})
"""What ggml encodes with importance weights only (its ``ggml_quantize_requires_imatrix``)."""


def codec(encoding: str | Encoding) -> Codec:
    """Return how an encoding is coded, given its name as anyone spells it.

    Raises:
        Unsupported: (rule ``unknown-encoding``) when there is none; the hint has a similar name.

    Example:
        >>> codec("Q4_K").encoding.grain, str(codec("bfloat16").encoding)
        (256, 'BF16')
    """
    if isinstance(encoding, Encoding):
        return kernels.codec_for(encoding)
    lower = encoding.lower().removeprefix("torch.")
    name = DTYPE_NAMES.get(lower, lower)
    try:
        return kernels.codec_for(name)
    except Unsupported as error:
        like = difflib.get_close_matches(name, _names(), 1)
        error.got = encoding
        error.hint = f"is {like[0].upper()} meant?" if like else "as Q4_K, Q8_0, MXFP4, BF16"
        raise


def encodable(encoding: str | Encoding) -> Encoding:
    """Return an encoding that numbers can be encoded to.

    Raises:
        Unsupported: (rule ``unknown-encoding``), (rule ``no-encoder``) for one that can only be
            decoded.

    Example:
        >>> encodable("iq2_xxs")
        Traceback (most recent call last):
        ...
        weighbridge.errors.Unsupported: IQ2_XXS is made with importance weights only, which no \
encoder here takes yet [no-encoder]
    """
    found = codec(encoding)
    if found.encode is not None:
        return found.encoding
    if found.encoding.name in NEEDS_IMPORTANCE:
        problem = "is made with importance weights only, which no encoder here takes yet"
    else:
        problem = "can be decoded but not encoded"
    raise Unsupported(f"{found.encoding} {problem}", rule="no-encoder")


def encodable_weights(encoding: str | Encoding) -> Encoding:
    """Return an encoding that weights can be encoded to: as `encodable`, but of floats only.

    Raises:
        InvalidInput: (rule ``encoding``) for one of integers or complex numbers.
    """
    found = encodable(encoding)
    if not is_float(found):
        raise InvalidInput("is not a dtype of weights", rule="encoding", got=encoding)
    return found


def _names() -> list[str]:
    # Only who asks for an unknown encoding needs all names.
    from weighbridge.kernels.ggml import GGML
    from weighbridge.registry import encodings

    return [*DENSE, *GGML, *encodings()]
