"""How values are encoded as NVFP4 (``quantize_row_nvfp4_ref`` in ``ggml-quants.c``).

The body takes the 64 values of a block as rows of lanes (see `weighbridge.kernels.lanes`) and sets
the bytes of the block.
"""

from __future__ import annotations

import numpy as np

from weighbridge.kernels.ggml.mblocks import DOUBLED, NVFP4
from weighbridge.kernels.lanes import (
    Lanes,
    Octets,
    Rows,
    clamp,
    fabs,
    like,
    row,
    select,
    setbyte,
    staircase,
    upper,
)
from weighbridge.kernels.target import encoder, offsets

_D, _QS = offsets(NVFP4)

_POWERS = np.ldexp(np.float32(1), np.arange(-6, 8))
"""The powers of two from E4M3's smallest normal number on; a scale from 2**8 on is too large."""

_EXPONENTS = np.arange(14, dtype=np.float32)

_MAGNITUDES = DOUBLED[:8].copy()


def nvfp4(x: Rows, out: Octets) -> None:
    """Give each 16 values a scale of a sixth of their largest magnitude, and the nearest codes.

    The scale is rounded to E4M3, halves up; what would be more than 240 becomes 448.
    """
    for s in range(4):
        most = like(row(x, 0), 0.0)
        for i in range(16):
            magnitude = fabs(row(x, 16 * s + i))
            most = select(most < magnitude, magnitude, most)
        code, scale = _rounded_scale(most / 6.0)
        setbyte(out, _D + s, code)
        for i in range(8):
            low = _nearest_code(row(x, 16 * s + i), scale)
            high = _nearest_code(row(x, 16 * s + 8 + i), scale)
            setbyte(out, _QS + 8 * s + i, low + 16.0 * high)


def _rounded_scale(wanted: Lanes) -> tuple[Lanes, Lanes]:
    """Return a scale as E4M3: its code, and half of its value."""
    small = wanted < 0.015625
    wanted = select(wanted > 448.0, like(wanted, 448.0), wanted)
    power = staircase(wanted, _POWERS[1:], _POWERS)
    digits = upper(wanted / power * 8.0 + 0.5, 0)
    tiny = clamp(upper(wanted * 512.0 + 0.5, 0), 0.0, 7.0)
    exponent = staircase(wanted, _POWERS[1:], _EXPONENTS)
    code = select(small, tiny, exponent * 8.0 + digits)
    scale = select(small, tiny * 0.0009765625, digits * power * 0.0625)
    large = code > 119.0
    return select(large, like(code, 126.0), code), select(large, like(code, 224.0), scale)


def _nearest_code(value: Lanes, scale: Lanes) -> Lanes:
    """Return the first of the codes whose values are nearest; there is no minus zero."""
    magnitude = fabs(value)
    least = magnitude
    best = like(value, 0.0)
    for i in range(1, 8):
        error = fabs(_MAGNITUDES[i] * scale - magnitude)
        nearer = error < least
        least = select(nearer, error, least)
        best = select(nearer, like(best, i), best)
    return select((value < 0.0) & (best > 0.0), best + 8.0, best)


encode_nvfp4 = encoder(NVFP4, nvfp4)
