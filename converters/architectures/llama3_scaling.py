"""Llama 3's scaling of rotary embeddings, which GGUF says by a tensor of divisors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.tensor import Lazy

    Factors = NDArray[np.float32]

FREQS = "rope_freqs.weight"

LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
"""The numbers of the scaling."""

LARGEST_HEAD = 1 << 16
"""The most values of a head for which factors are made: hostile configs say billions."""


def llama3_factors(
    theta: float, head_dim: int, factor: float, low: float, high: float, original: float
) -> Factors:
    """Return what Llama 3's scaling divides each frequency by, as llama.cpp's converter does.

    Frequencies whose wavelength is under ``original / high`` stay, those over ``original / low``
    are divided by `factor`, and between the two the divisor moves smoothly.

    Every step is taken in float32, in torch's order (which divides by multiplying with the
    reciprocal), and powers are correctly rounded: torch without vector instructions gives the same
    bits; with them its powers, and so a factor here and there, may differ in the last bit.

    Example:
        >>> llama3_factors(500000.0, 8, 8.0, 1.0, 4.0, 8192.0)
        array([1.     , 1.     , 2.69453, 8.     ], dtype=float32)
    """
    f32 = np.float32
    with np.errstate(all="ignore"):
        exponents = np.arange(0, head_dim, 2, dtype=f32) / f32(head_dim)
        powers = np.power(float(theta), exponents.astype(np.float64)).astype(f32)
        wavelengths = (f32(1) / (f32(1) / powers)) * f32(2 * math.pi)
        smooth = ((f32(1) / wavelengths) * f32(original) - f32(low)) / f32(high - low)
        between = f32(1) / ((f32(1) - smooth) / f32(factor) + smooth)
        factors = np.where(wavelengths > f32(original / low), f32(factor), between)
        return np.where(wavelengths < f32(original / high), f32(1), factors).astype(f32)


def recover_llama3(factors: Factors, theta: float) -> dict[str, float | int] | None:
    """Return the numbers of Llama 3's scaling that give these factors; None when there are none.

    The largest factor is ``factor``; those in between say ``original / (high - low)`` and
    ``low / (high - low)``, so that ``low`` may be taken as 1. Where there are too few of them,
    Llama 3's own numbers are tried. The numbers are taken only if they give the same factors again,
    but for the last bits (see `llama3_factors`).

    Example:
        >>> found = recover_llama3(llama3_factors(5e5, 64, 32.0, 1.0, 4.0, 8192.0), 5e5)
        >>> list(found.values())
        [32.0, 1.0, 4.0, 8192]
    """
    factor = float(str(np.max(factors, initial=1)))
    several = np.count_nonzero((factors > 1) & (factors < factor)) > 1
    guesses = _fitted(factors, theta, factor) if several else []
    for high, original in [*guesses, (4.0, 8192)]:
        made = llama3_factors(theta, 2 * len(factors), factor, 1.0, high, original)
        if np.allclose(made, factors, rtol=1e-6, atol=0):
            return dict(zip(LLAMA3, (factor, 1.0, high, original), strict=True))
    return None


def _fitted(factors: Factors, theta: float, factor: float) -> list[tuple[float, int]]:
    """Return ``high`` and ``original`` from two factors in between, with ``low`` as 1."""
    between = np.flatnonzero((factors > 1) & (factors < factor))[[0, -1]]
    with np.errstate(all="ignore"):
        turns = 1 / (2 * math.pi * np.power(theta, between / len(factors)))
        smooth = (1 / factors[between].astype(np.float64) - 1 / factor) / (1 - 1 / factor)
        slope = np.diff(smooth)[0] / np.diff(turns)[0]
        offset = smooth[0] - slope * turns[0]
    if not -math.inf < offset < 0 < slope < math.inf:
        return []
    return [(round(float(1 - 1 / offset), 3), round(float(-slope / offset)))]


def recovered(stored: Lazy, theta: float) -> dict[str, Any] | None:
    """Return the scaling that a stored tensor of divisors says, None where it changes nothing.

    Raises:
        Unsupported: (rule ``rope-factors``) for divisors that are not those of Llama 3's scaling.
    """
    if stored.ndim != 1 or not 0 < stored.size <= LARGEST_HEAD:
        raise not_llama3(f"have the shape {list(stored.shape)}")
    factors = stored.values("f32")
    if np.all(factors == 1):
        return None
    found = recover_llama3(factors, theta) if np.all(np.isfinite(factors)) else None
    if found is None:
        raise not_llama3("are not those of Llama 3's scaling")
    return {"rope_type": "llama3", **found}


def not_llama3(what: str) -> Unsupported:
    """Return the error of divisors that no config can say."""
    return Unsupported(
        f"its factors of rotary frequencies {what}: no config can say them",
        rule="rope-factors",
        tensor=FREQS,
    )
