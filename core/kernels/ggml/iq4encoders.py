"""How values are encoded as IQ4_NL and IQ4_XS (``quantize_row_iq4_nl_impl`` in ``ggml-quants.c``).

Each body takes the values of a block as rows of lanes (see `weighbridge.kernels.lanes`), and their
importance weights if there are any, and sets the bytes of the block.
"""

from __future__ import annotations

import numpy as np

from weighbridge.kernels.ggml.iblocks import IQ4_NL, IQ4_XS, LEVELS
from weighbridge.kernels.ggml.search import fit_levels, spread_weights, sum_of_squares
from weighbridge.kernels.lanes import (
    Lanes,
    Octets,
    Rows,
    clamp,
    fabs,
    half,
    like,
    nearest,
    row,
    scratch,
    select,
    setbyte,
    sethalf,
    setrow,
    staircase,
    upper,
    wrap,
)
from weighbridge.kernels.target import encoder, offsets, weighted_encoder

_NL_D, _NL_QS = offsets(IQ4_NL)
_XS_D, _XS_HIGH, _XS_LOW, _XS_QS = offsets(IQ4_XS)

_EDGES = (LEVELS[:-1] + LEVELS[1:]) / np.float32(2)
_CODES = np.arange(16, dtype=np.float32)
_STEPS = np.arange(-7, 8, dtype=np.float32) + LEVELS[0]


def iq4_nl(x: Rows, out: Octets) -> None:
    """Fit a scale to 32 values, and take the level nearest to each."""
    _one_scale(x, None, out)


def weighted_iq4_nl(x: Rows, w: Rows, out: Octets) -> None:
    """Do as `iq4_nl`, with weights as in `spread_weights`, of twice the block's mean square."""
    _one_scale(x, w, out)


def _one_scale(x: Rows, w: Rows | None, out: Octets) -> None:
    scale = _fit(x, w, 0, like(row(x, 0), 0.0) if w is None else _spread(x))
    sethalf(out, _NL_D, half(scale))
    _set_levels(x, 0, _inverse(scale), out, _NL_QS)


def iq4_xs(x: Rows, out: Octets) -> None:
    """Fit a scale to each 32 values.

    The scales become codes from -32 to 31, -32 for the one of largest magnitude, of the block's
    scale before it is rounded to float16.
    """
    _eight_scales(x, None, out)


def weighted_iq4_xs(x: Rows, w: Rows, out: Octets) -> None:
    """Do as `iq4_xs`, with weights as in `spread_weights`, of twice the block's mean square."""
    _eight_scales(x, w, out)


def _eight_scales(x: Rows, w: Rows | None, out: Octets) -> None:
    scales = scratch(x, 8)
    extreme = like(row(x, 0), 0.0)
    spread = extreme if w is None else _spread(x)
    for s in range(8):
        scale = _fit(x, w, 32 * s, spread)
        setrow(scales, s, scale)
        extreme = select(fabs(scale) > fabs(extreme), scale, extreme)
    d = -extreme / 32.0
    sethalf(out, _XS_D, d)
    inverse = _inverse(d)
    for s in range(8):
        code = clamp(nearest(inverse * row(scales, s)), -32.0, 31.0)
        setrow(scales, s, code + 32.0)
        _set_levels(x, 32 * s, _inverse(d * code), out, _XS_QS + 16 * s)
    for s in range(4):
        low, high = row(scales, 2 * s), row(scales, 2 * s + 1)
        setbyte(out, _XS_LOW + s, wrap(low, 4) + 16.0 * wrap(high, 4))
    for s in range(2):
        high = like(d, 0.0)
        for i in range(4):
            high = high + upper(row(scales, 4 * s + i), 4) * (1 << (2 * i))
        setbyte(out, _XS_HIGH + s, high)


def _spread(x: Rows) -> Lanes:
    return sum_of_squares(x) * (2.0 / len(x))


def _fit(x: Rows, w: Rows | None, at: int, spread: Lanes) -> Lanes:
    """Return the scale of 32 values; `spread` matters with weights only."""
    if w is None:
        return fit_levels(x, at, 32, None, _EDGES, LEVELS, _STEPS)
    weights = scratch(x, 32)
    spread_weights(x, w, at, spread, weights)
    return fit_levels(x, at, 32, weights, _EDGES, LEVELS, _STEPS)


def _inverse(scale: Lanes) -> Lanes:
    zero = like(scale, 0.0)
    return select(scale == 0.0, zero, 1.0 / scale)


def _set_levels(x: Rows, at: int, inverse: Lanes, out: Octets, byte: int) -> None:
    for i in range(16):
        low = staircase(inverse * row(x, at + i), _EDGES, _CODES)
        high = staircase(inverse * row(x, at + 16 + i), _EDGES, _CODES)
        setbyte(out, byte + i, low + 16.0 * high)


encode_iq4_nl = encoder(IQ4_NL, iq4_nl)
encode_iq4_xs = encoder(IQ4_XS, iq4_xs)
encode_weighted_iq4_nl = weighted_encoder(IQ4_NL, weighted_iq4_nl)
encode_weighted_iq4_xs = weighted_encoder(IQ4_XS, weighted_iq4_xs)
