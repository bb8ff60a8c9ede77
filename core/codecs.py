"""Encodings by the names that people give them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from weighbridge import kernels
from weighbridge.encoding import DENSE, DTYPE_NAMES, Encoding, is_float
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels.importance import missing

if TYPE_CHECKING:
    from weighbridge.kernels import Codec


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


def encodable(encoding: str | Encoding, *, weighted: bool = False) -> Encoding:
    """Return an encoding that numbers can be encoded to.

    Args:
        encoding: its name, or itself.
        weighted: whether there are importance weights, without which ggml makes no IQ2_XXS,
            IQ2_XS and IQ1_S.

    Raises:
        InvalidInput: (rule ``importance``) for one that is made with importance weights only.
        Unsupported: (rule ``unknown-encoding``), (rule ``no-encoder``) for one that can only be
            decoded.

    Example:
        >>> encodable("q8_k")
        Traceback (most recent call last):
        ...
        weighbridge.errors.Unsupported: Q8_K can be decoded but not encoded [no-encoder]
    """
    found = codec(encoding)
    if not (found.encode or found.weighted):
        raise Unsupported(f"{found.encoding} can be decoded but not encoded", rule="no-encoder")
    if not found.encode and not weighted:
        raise missing(found.encoding)
    return found.encoding


def encodable_weights(encoding: str | Encoding, *, weighted: bool = False) -> Encoding:
    """Return an encoding that weights can be encoded to: as `encodable`, but of floats only.

    Raises:
        InvalidInput: (rule ``encoding``) for one of integers or complex numbers.
    """
    found = encodable(encoding, weighted=weighted)
    if not is_float(found):
        raise InvalidInput("is not a dtype of weights", rule="encoding", got=encoding)
    return found


def _names() -> list[str]:
    # Only who asks for an unknown encoding needs all names.
    from weighbridge.kernels.ggml import GGML
    from weighbridge.registry import encodings

    return [*DENSE, *GGML, *encodings()]
