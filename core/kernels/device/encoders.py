"""Which types are encoded on a device, and how: by bodies in lanes, or whole blocks at a time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from weighbridge.errors import InvalidInput
from weighbridge.kernels.device.lanes import retargeted
from weighbridge.kernels.device.packers import PACKERS
from weighbridge.kernels.ggml import GGML
from weighbridge.kernels.target import BODIES, tables_of

if TYPE_CHECKING:
    from types import ModuleType

    from weighbridge.encoding import Blocked

assert GGML, "the types' modules say which bodies there are"

CHUNK = 1 << 24
"""Values that are encoded at once: a body takes some ten times the memory of their float32."""


def encodes(encoding: Blocked) -> bool:
    """Tell whether `encode` makes blocks of an encoding."""
    return encoding.name in PACKERS or encoding.name in BODIES


def encode(encoding: Blocked, values: torch.Tensor) -> torch.Tensor:
    """Return the blocks of float32 values of shape ``(blocks, grain)``, a row of bytes each.

    Raises:
        InvalidInput: (rule ``not-finite``) for infinities and NaN, (rule ``overflow``) for numbers
            whose squares are too large for a grid.
    """
    packed = values.new_empty((len(values), encoding.grain_bytes), dtype=torch.uint8)
    step = max(1, CHUNK // encoding.grain)
    for start in range(0, len(values), step):
        part = values[start : start + step].to(torch.float32)
        _refuse_not_finite(part, encoding)
        packed[start : start + step] = _encoded(encoding, part)
    return packed


def _encoded(encoding: Blocked, values: torch.Tensor) -> torch.Tensor:
    if encoding.name in PACKERS:
        return PACKERS[encoding.name](values)
    fused = _fused(values.device.type)
    if fused is not None and encoding.name in fused.SCRATCH:
        made: torch.Tensor = fused.encode(encoding, values)
        return made
    return _in_lanes(encoding, values)


@functools.cache
def _fused(device: str) -> ModuleType | None:
    """Return the encoders in Triton, for a GPU and where it is installed."""
    if device != "cuda":
        return None
    try:
        from weighbridge.kernels.device import fused_encoders
    except ImportError:
        return None
    return fused_encoders


def _in_lanes(encoding: Blocked, values: torch.Tensor) -> torch.Tensor:
    body, grid = BODIES[encoding.name]
    out = values.new_empty((encoding.grain_bytes, len(values)), dtype=torch.uint8)
    failed = retargeted(body)(values.T.contiguous(), out, *_tables(grid, values.device))
    if failed is not None and bool(failed.numbers.any()):
        raise InvalidInput(
            f"{encoding} cannot hold numbers whose squares are out of float32's range",
            rule="overflow",
            got=values.abs().max().item(),
        )
    return out.T


@functools.cache
def _tables(grid: str, device: torch.device) -> tuple[torch.Tensor, ...]:
    tables = tables_of(grid)
    return tuple(torch.from_numpy(np.asarray(each)).to(device) for each in tables)


def _refuse_not_finite(values: torch.Tensor, encoding: Blocked) -> None:
    finite = values.isfinite()
    if not bool(finite.all()):
        raise InvalidInput(
            f"{encoding} cannot hold numbers that are not finite",
            rule="not-finite",
            got=values[~finite][0].item(),
        )
