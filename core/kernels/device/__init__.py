"""Encode and decode where torch tensors are: on a GPU, with the bytes that the CPU gives.

Where Triton is installed, as it is with torch for CUDA, decoders and the encoders of most types
that are searched for are Triton's; all others are torch's. On tensors of the CPU and in Triton's
interpreter all give the bits of the NumPy code, and what Triton compiles for a GPU fuses no product
with a sum. How fast it is on a GPU has not been measured.

Import this where torch is wanted: all modules here need it.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch

from weighbridge.encoding import DATA, DENSE, Blocked, Dense, Encoding, Scaled, Shape
from weighbridge.errors import InvalidInput
from weighbridge.kernels.device import encoders, in_torch
from weighbridge.kernels.device.decoders import DECODERS
from weighbridge.kernels.device.numbers import DTYPES, PLAIN, cast, readable, singles
from weighbridge.kernels.device.scaled import decode_scaled, scalable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Decode = Callable[[Blocked, torch.Tensor, torch.Tensor], None]

__all__ = ["decode", "decode_into", "decodes", "encode", "encodes"]

CHUNK = 1 << 22
"""Values that are worked on at once where that takes other memory than the result."""


def decodes(encoding: Encoding, to: Dense) -> bool:
    """Tell whether `decode` turns this encoding into numbers of that one."""
    if to.name not in DTYPES:
        return False
    if isinstance(encoding, Dense):
        return readable(encoding)
    return scalable(encoding) if isinstance(encoding, Scaled) else encoding.name in DECODERS


def encodes(encoding: Encoding, dtype: torch.dtype) -> bool:
    """Tell whether `encode` turns numbers of a type into this encoding."""
    if dtype not in PLAIN:
        return False
    return encoding.name in DTYPES or (isinstance(encoding, Blocked) and encoders.encodes(encoding))


def decode(
    encoding: Encoding, parts: Mapping[str, torch.Tensor], shape: Shape, to: Dense = DENSE["f32"]
) -> torch.Tensor:
    """Return the numbers of a tensor of `shape` on the device of its parts.

    Args:
        encoding: how the parts are encoded; see `decodes`.
        parts: bytes, uint8 of one axis, of the sizes that ``encoding.sizes(shape)`` says.
        shape: of the tensor.
        to: the type of the result.

    Raises:
        InvalidInput: (rule ``overflow``) for a number that has no place in `to`.

    Example:
        >>> data = torch.tensor([0x80, 0x3F, 0x00, 0xC0], dtype=torch.uint8)
        >>> decode(DENSE["bf16"], {"data": data}, (2,)).tolist()
        [1.0, -2.0]
    """
    values = torch.empty(shape, dtype=DTYPES[to.name], device=parts[DATA].device)
    if isinstance(encoding, Scaled):
        numbers = decode_scaled(encoding, parts, shape)
    elif isinstance(encoding, Dense):
        numbers = singles(parts[DATA], encoding, math.prod(shape))
    else:
        assert isinstance(encoding, Blocked)
        decode_into(encoding, parts[DATA], values)
        return values
    _cast_into(numbers.reshape(-1), values.reshape(-1), to)
    return values


def decode_into(encoding: Blocked, packed: torch.Tensor, out: torch.Tensor) -> None:
    """Decode a run of whole blocks into memory on the same device.

    To float32, and to bfloat16 where no number can be too large for it, this is one pass over
    memory in Triton and waits for nothing; other types are checked chunk by chunk.

    Args:
        encoding: one of ggml's.
        packed: the blocks' bytes: uint8, contiguous.
        out: receives their values: float32, bfloat16, float16 or an FP8 type, contiguous.

    Raises:
        InvalidInput: (rule ``fill``) when `out` has not the place for the values of `packed`, on
            the same device; (rule ``overflow``) for a number that has no place in its type.

    Example:
        >>> from weighbridge.kernels.ggml.legacy import Q8_0
        >>> packed = torch.tensor([0, 0x3C, *range(32)], dtype=torch.uint8)
        >>> out = torch.empty(32, dtype=torch.bfloat16)
        >>> decode_into(Q8_0, packed, out)
        >>> out[:4].tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    to = _checked(encoding, packed, out)
    run = _decoder(packed.device.type)
    octets, values = packed.reshape(-1), out.reshape(-1)
    exact = to.name == "f32" or (to.name == "bf16" and not DECODERS[encoding.name].wide)
    if exact:
        run(encoding, octets, values)
        return
    count = max(1, CHUNK // encoding.grain)
    data = torch.split(octets, count * encoding.grain_bytes)
    for part, piece in zip(data, torch.split(values, count * encoding.grain), strict=True):
        numbers = torch.empty(piece.shape, dtype=torch.float32, device=piece.device)
        run(encoding, part, numbers)
        piece.copy_(cast(numbers, to))


def encode(encoding: Encoding, values: torch.Tensor) -> torch.Tensor:
    """Return rows as bytes, on their device: uint8 of shape ``(..., bytes of a row)``.

    Args:
        encoding: see `encodes`.
        values: numbers of shape ``(..., n)``.

    Raises:
        InvalidInput: (rule ``overflow`` or ``not-finite``) for a number that has no place there.
        Unsupported: (rule ``block-size``) when the rows are no whole number of blocks.

    Example:
        >>> encode(DENSE["bf16"], torch.tensor([1.0, -2.0])).tolist()
        [128, 63, 0, 192]
    """
    shape = (*values.shape[:-1], encoding.nbytes(values.shape[-1:]))
    if isinstance(encoding, Blocked):
        packed = encoders.encode(encoding, values.reshape(-1, encoding.grain))
        return packed.reshape(shape)
    assert isinstance(encoding, Dense)
    numbers = torch.empty(values.shape, dtype=DTYPES[encoding.name], device=values.device)
    _cast_into(values.reshape(-1), numbers.reshape(-1), encoding)
    return numbers.view(torch.uint8).reshape(shape)


def _cast_into(numbers: torch.Tensor, values: torch.Tensor, to: Dense) -> None:
    for source, target in zip(torch.split(numbers, CHUNK), torch.split(values, CHUNK), strict=True):
        target.copy_(cast(source, to))


def _checked(encoding: Blocked, packed: torch.Tensor, out: torch.Tensor) -> Dense:
    """Return the encoding that `out` has; refuse what cannot be decoded into it."""
    to = next((name for name, dtype in DTYPES.items() if dtype == out.dtype), None)
    blocks, rest = divmod(packed.numel(), encoding.grain_bytes)
    fits = not rest and out.numel() == blocks * encoding.grain and packed.dtype == torch.uint8
    plain = packed.is_contiguous() and out.is_contiguous() and packed.device == out.device
    if to is None or not fits or not plain:
        raise InvalidInput(
            f"cannot be filled with blocks of {encoding}",
            rule="fill",
            got=f"{out.numel()} {out.dtype} on {out.device}, of {packed.numel()} bytes",
            expected=f"{encoding.grain} values for each {encoding.grain_bytes} bytes, contiguous",
        )
    return DENSE[to]


@functools.cache
def _decoder(device: str) -> Decode:
    """Return what decodes blocks to float32 or bfloat16 on a kind of device."""
    if device == "cuda":
        try:
            from weighbridge.kernels.device import fused
        except ImportError:
            return in_torch.decode
        return fused.decode
    return in_torch.decode
