"""Numbers of dense encodings on a device: casts that refuse what the CPU's refuse."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from weighbridge.encoding import DENSE, Dense
from weighbridge.errors import InvalidInput
from weighbridge.kernels import dense
from weighbridge.kernels.ranges import range_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DTYPES: Mapping[str, torch.dtype] = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f8_e4m3": torch.float8_e4m3fn,
    "f8_e5m2": torch.float8_e5m2,
}
"""The encodings to which numbers are cast on a device."""

PLAIN = (torch.float32, torch.float16, torch.bfloat16)
"""The types that are cast: float32 holds all their numbers."""


def cast(values: torch.Tensor, to: Dense) -> torch.Tensor:
    """Return numbers of a type in `PLAIN` as numbers of `to`, rounded to nearest, ties to even.

    The bits are those that `weighbridge.kernels.cast` gives, but for what makes a NaN one.

    Raises:
        InvalidInput: (rule ``overflow``) for a number that has no place there.

    Example:
        >>> cast(torch.tensor([1.00390625, 70000]), DENSE["bf16"]).tolist()
        [1.0, 70144.0]
    """
    dtype = DTYPES[to.name]
    if values.dtype == dtype or not values.numel():
        return values.to(dtype)
    if to.name != "f32":
        _refuse_misfits(values, to)
    return values.to(torch.float32).to(dtype)


def readable(encoding: Dense) -> bool:
    """Tell whether `singles` reads numbers of an encoding."""
    return encoding.name in DTYPES or (encoding.bits <= 8 and 8 % encoding.bits == 0)


def singles(data: torch.Tensor, encoding: Dense, count: int) -> torch.Tensor:
    """Return the `count` numbers in bytes as a type in `PLAIN` that holds them all.

    Example:
        >>> singles(torch.tensor([0x21, 0x0F], dtype=torch.uint8), DENSE["i4"], 3).tolist()
        [1.0, 2.0, -1.0]
    """
    dtype = DTYPES.get(encoding.name)
    if dtype in PLAIN:
        at = data.storage_offset() * data.element_size()
        aligned = data if at % encoding.grain_bytes == 0 else data.clone()
        return aligned.view(dtype)
    return _of_each_byte(encoding, data.device)[data.to(torch.int32)].reshape(-1)[:count]


@functools.cache
def _of_each_byte(encoding: Dense, device: torch.device) -> torch.Tensor:
    """Return a row of float32 for each byte: the numbers that are in it."""
    octets = np.arange(256, dtype=np.uint8)
    numbers = dense.cast(dense.unpack(octets, encoding, 256 * 8 // encoding.bits), DENSE["f32"])
    return torch.from_numpy(numbers.reshape(256, -1).copy()).to(device)


def _refuse_misfits(values: torch.Tensor, to: Dense) -> None:
    numbers = range_of(to)
    # The bounds are next to ties: float32 would round them.
    low, high = numbers.rounded
    wide = values.to(torch.float64)
    misfits = ~((wide >= low) & (wide <= high))
    if numbers.infinity:
        misfits &= ~wide.isinf()
    if numbers.nan:
        misfits &= ~wide.isnan()
    if bool(misfits.any()):
        raise InvalidInput(
            f"out of {to}'s range",
            rule="overflow",
            got=values[misfits][0].item(),
            expected=f"{numbers.low:g} to {numbers.high:g}",
        )
