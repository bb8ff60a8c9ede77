"""How values are encoded as ggml's first types on a device: see `weighbridge.kernels.ggml.legacy`.

Each function takes finite float32 of shape ``(blocks, 32)`` and returns the bytes of the blocks,
one axis of them; the steps and their order are those of the functions in NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HALF_DOWN = float(np.nextafter(np.float32(0.5), np.float32(0)))


def q4_0(values: torch.Tensor) -> torch.Tensor:
    """Scale by -1/8 of the value of largest magnitude, the first of equals."""
    d = _quotient(_extreme(values), -8)
    return torch.cat((_half(d), _nibbles(_offset_codes(values, d, 8))), dim=1)


def q4_1(values: torch.Tensor) -> torch.Tensor:
    """Scale by 1/15 of the span."""
    low, d = _low_and_scale(values, 15)
    return torch.cat((_half(d), _half(low), _nibbles(_codes_above(values, low, d, 15))), dim=1)


def q5_0(values: torch.Tensor) -> torch.Tensor:
    """Scale by -1/16 of the value of largest magnitude, the first of equals."""
    d = _quotient(_extreme(values), -16)
    codes = _offset_codes(values, d, 16)
    return torch.cat((_half(d), _fifth_bits(codes), _nibbles(codes)), dim=1)


def q5_1(values: torch.Tensor) -> torch.Tensor:
    """Scale by 1/31 of the span."""
    low, d = _low_and_scale(values, 31)
    codes = _codes_above(values, low, d, 31)
    return torch.cat((_half(d), _half(low), _fifth_bits(codes), _nibbles(codes)), dim=1)


def q8_0(values: torch.Tensor) -> torch.Tensor:
    """Scale by 1/127 of the largest magnitude; round ties away from zero."""
    d = _quotient(values.abs().amax(dim=1, keepdim=True), 127)
    scaled = values * _inverse(d)
    codes = _without_fraction(scaled + torch.full_like(scaled, _HALF_DOWN).copysign(scaled))
    return torch.cat((_half(d), codes.to(torch.int8).view(torch.uint8)), dim=1)


PACKERS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "q4_0": q4_0,
    "q4_1": q4_1,
    "q5_0": q5_0,
    "q5_1": q5_1,
    "q8_0": q8_0,
}


def _quotient(numbers: torch.Tensor, by: float) -> torch.Tensor:
    """Return quotients, correctly rounded: by a number, torch multiplies with its inverse."""
    return torch.div(numbers, torch.full_like(numbers, by))


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, 0, torch.div(torch.ones_like(scale), scale))


def _first(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return each row's first value among those that are chosen."""
    places = torch.arange(values.shape[1], device=values.device, dtype=torch.int32)
    first = torch.where(chosen, places, values.shape[1]).amin(dim=1, keepdim=True)
    return values.gather(1, first.to(torch.int64))


def _extreme(values: torch.Tensor) -> torch.Tensor:
    """Return each row's first value of largest magnitude; +0 for a row of zeros."""
    magnitudes = values.abs()
    return _first(values, magnitudes == magnitudes.amax(dim=1, keepdim=True)) + 0.0


def _low_and_scale(values: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's smallest value and a `steps`-th of its span; of equals the first counts."""
    low = _first(values, values == values.amin(dim=1, keepdim=True))
    high = _first(values, values == values.amax(dim=1, keepdim=True))
    return low, _quotient(high - low, steps)


def _without_fraction(scaled: torch.Tensor) -> torch.Tensor:
    """Return whole numbers; what is not finite is 0."""
    return torch.where(scaled.isfinite(), scaled, 0).to(torch.int32)


def _offset_codes(values: torch.Tensor, d: torch.Tensor, offset: int) -> torch.Tensor:
    scaled = values * _inverse(d) + (offset + 0.5)
    return _without_fraction(scaled).clamp(max=2 * offset - 1)


def _codes_above(
    values: torch.Tensor, low: torch.Tensor, d: torch.Tensor, steps: int
) -> torch.Tensor:
    return _without_fraction((values - low) * _inverse(d) + 0.5).clamp(max=steps)


def _half(numbers: torch.Tensor) -> torch.Tensor:
    """Return the two bytes of each number as float16; too large ones are infinite."""
    return numbers.to(torch.float16).view(torch.uint8)


def _nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Return the low four bits of codes, value ``j`` beside value ``j + 16``."""
    low = codes & 15
    return (low[:, :16] | (low[:, 16:] << 4)).to(torch.uint8)


def _fifth_bits(codes: torch.Tensor) -> torch.Tensor:
    """Return the fifth bits of codes, eight in a byte, the first in the lowest bit."""
    bits = (codes >> 4).reshape(-1, 4, 8)
    places = torch.arange(8, device=codes.device, dtype=torch.int32)
    return (bits << places).sum(dim=2).to(torch.uint8)
