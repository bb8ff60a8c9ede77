"""How values are encoded as ggml's first types with importance weights.

Each body takes the 32 values of a block and their weights as rows of lanes (see
`weighbridge.kernels.lanes`) and sets the bytes of the block. Source: ``quantize_row_q4_0_impl``
and so on in ``ggml-quants.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weighbridge.kernels.ggml.lblocks import Q4_0, Q4_1, Q5_0, Q5_1
from weighbridge.kernels.ggml.search import (
    Factors,
    affine_code,
    affine_steps,
    fit_affine,
    fit_scale,
    signed_steps,
)
from weighbridge.kernels.lanes import (
    Lanes,
    Octets,
    Rows,
    clamp,
    like,
    nearest,
    row,
    scratch,
    select,
    setbyte,
    sethalf,
    setrow,
    upper,
    wrap,
)
from weighbridge.kernels.target import offsets, weighted_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.encoding import Blocked
    from weighbridge.kernels.codec import Blocks, Values

_40_D, _40_QS = offsets(Q4_0)
_41_D, _41_M, _41_QS = offsets(Q4_1)
_50_D, _50_QH, _50_QS = offsets(Q5_0)
_51_D, _51_M, _51_QH, _51_QS = offsets(Q5_1)

_40_STEPS, _50_STEPS = signed_steps(8), signed_steps(16)
_41_STEPS, _51_STEPS = (affine_steps(top, -0.9, 0.05, 36) for top in (15, 31))


def weighted_q4_0(x: Rows, w: Rows, out: Octets) -> None:
    """Fit a scale to 32 values."""
    codes = scratch(x, 32)
    sethalf(out, _40_D, _fit_signed(x, w, 8, _40_STEPS, codes))
    _set_nibbles(codes, out, _40_QS)


def weighted_q5_0(x: Rows, w: Rows, out: Octets) -> None:
    """Do as `weighted_q4_0`; codes have a bit more."""
    codes = scratch(x, 32)
    sethalf(out, _50_D, _fit_signed(x, w, 16, _50_STEPS, codes))
    _set_fifth_bits(codes, out, _50_QH)
    _set_nibbles(codes, out, _50_QS)


def weighted_q4_1(x: Rows, w: Rows, out: Octets) -> None:
    """Fit a scale and a minimum to 32 values."""
    codes = scratch(x, 32)
    scale, low = _fit_affine(x, w, 15, _41_STEPS, codes)
    sethalf(out, _41_D, scale)
    sethalf(out, _41_M, -low)
    _set_nibbles(codes, out, _41_QS)


def weighted_q5_1(x: Rows, w: Rows, out: Octets) -> None:
    """Do as `weighted_q4_1`; codes have a bit more."""
    codes = scratch(x, 32)
    scale, low = _fit_affine(x, w, 31, _51_STEPS, codes)
    sethalf(out, _51_D, scale)
    sethalf(out, _51_M, -low)
    _set_fifth_bits(codes, out, _51_QH)
    _set_nibbles(codes, out, _51_QS)


def _fit_signed(x: Rows, w: Rows, top: int, steps: Factors, codes: Rows) -> Lanes:
    """Set the codes, and return the scale."""
    scale, inverse = fit_scale(x, 0, 32, w, top, steps)
    zero = like(inverse, 0.0)
    for i in range(32):
        code = clamp(nearest(inverse * row(x, i)), -top, top - 1) + top
        setrow(codes, i, select(inverse == 0.0, zero, code))
    return scale


def _fit_affine(x: Rows, w: Rows, top: int, steps: Factors, codes: Rows) -> tuple[Lanes, Lanes]:
    """Set the codes, and return the scale and the minimum."""
    trial = scratch(x, 32)
    scale, low, inverse, start = fit_affine(x, 0, w, trial, top, steps, False, True)
    zero = like(inverse, 0.0)
    for i in range(32):
        code = affine_code(inverse * (row(x, i) - start), top, True)
        setrow(codes, i, select(inverse == 0.0, zero, code))
    return scale, low


def _set_nibbles(codes: Rows, out: Octets, at: int) -> None:
    for i in range(16):
        setbyte(out, at + i, wrap(row(codes, i), 4) + 16.0 * wrap(row(codes, i + 16), 4))


def _set_fifth_bits(codes: Rows, out: Octets, at: int) -> None:
    for k in range(4):
        byte = like(row(codes, 0), 0.0)
        for i in range(8):
            byte = byte + upper(row(codes, 8 * k + i), 4) * (1 << i)
        setbyte(out, at + k, byte)


def _by_rows(encoding: Blocked, body: Callable[..., None]) -> Callable[[Values, Values], Blocks]:
    """Return the function of a codec; a value's weight depends on its whole row."""
    encode = weighted_encoder(encoding, body)

    def encode_rows(rows: Values, importance: Values) -> Blocks:
        return encode(rows, _weights(rows, importance))

    encode_rows.__name__, encode_rows.__doc__ = encode.__name__, encode.__doc__
    return encode_rows


@np.errstate(all="ignore")
def _weights(rows: Values, importance: Values) -> Values:
    """Return the importance times the root of each value's square plus its row's mean square.

    Squares are added one by one, as C does.
    """
    squares = rows * rows
    total = np.cumsum(squares, axis=1, dtype=np.float32)[:, -1:]
    weights: Values = importance * np.sqrt(total / np.float32(rows.shape[1]) + squares)
    return weights


encode_weighted_q4_0 = _by_rows(Q4_0, weighted_q4_0)
encode_weighted_q4_1 = _by_rows(Q4_1, weighted_q4_1)
encode_weighted_q5_0 = _by_rows(Q5_0, weighted_q5_0)
encode_weighted_q5_1 = _by_rows(Q5_1, weighted_q5_1)
