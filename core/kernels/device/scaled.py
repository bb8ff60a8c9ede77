"""Numbers with separate scales on a device; see `weighbridge.kernels.scaled`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from weighbridge.encoding import DATA, Dense, Scaled, Shape
from weighbridge.kernels.device.numbers import readable, singles

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def scalable(encoding: Scaled) -> bool:
    """Tell whether `decode_scaled` decodes an encoding."""
    return all(readable(part) for part in encoding.parts.values())


def decode_scaled(
    encoding: Scaled, parts: Mapping[str, torch.Tensor], shape: Shape
) -> torch.Tensor:
    """Return the numbers as float32, given the bytes of each part; `Scaled` has the formula."""
    scales_shape = encoding.scales_shape(shape)
    values = _read(parts[DATA], encoding.element, shape).float()
    if encoding.zero:
        zeros = _read(parts["zero"], encoding.zero, scales_shape)
        values = values - _spread(zeros.float(), encoding, shape)
    scales = _read(parts["scale"], encoding.scale, scales_shape).float()
    if encoding.outer:
        outer = _read(parts["outer"], encoding.outer, ()).float()
        scales = scales / outer if encoding.divides else scales * outer
    return values * _spread(scales, encoding, shape)


def _read(data: torch.Tensor, dense: Dense, shape: Shape) -> torch.Tensor:
    return singles(data, dense, math.prod(shape)).reshape(shape)


def _spread(scales: torch.Tensor, encoding: Scaled, shape: Shape) -> torch.Tensor:
    """Return for each value the number of its block; one axis of length 1 stays so."""
    first = len(shape) - len(encoding.block)
    for axis, size in enumerate(encoding.block, first):
        if size > 1 and scales.shape[axis] > 1:
            scales = scales.repeat_interleave(size, axis).narrow(axis, 0, shape[axis])
    return scales
