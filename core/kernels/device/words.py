"""The vocabulary of the device's decoders: what is at one place in a block, for many blocks.

A decoder is a plain function over these words and the operators of Python. It gets the blocks,
a table (of which most types make no use), and where in a block the values are that it shall
return: numbers of runs and places in a run, which broadcast. It does what the NumPy decoder of the
type does, in the same order, so that it gives the same bits. What the words mean depends on who
calls:

- here they are torch's, on tensors of any device, one pass over memory for each;
- in Triton (see `weighbridge.kernels.device.fused`) the whole function is one pass.

Whole numbers are int32, others float32.
"""

from __future__ import annotations

import torch

Blocks = torch.Tensor
"""Bytes of blocks: uint8 of shape ``(blocks, bytes of a block)``."""

Table = torch.Tensor
"""Numbers that are looked up: int8 of one axis."""

Whole = torch.Tensor
"""An int32 for each block and place, or for some that it is the same for."""

Single = torch.Tensor
"""Likewise a float32."""


def byte(blocks: Blocks, at: Whole | int) -> Whole:
    """Return the bytes at some places of each block.

    Example:
        >>> byte(torch.tensor([[3, 4], [5, 255]], dtype=torch.uint8), 1).tolist()
        [[[4]], [[255]]]
    """
    if isinstance(at, int):
        return blocks[:, at].to(torch.int32)[:, None, None]
    return blocks[:, at[0]].to(torch.int32)


def signed(blocks: Blocks, at: Whole) -> Whole:
    """Return the bytes at some places as numbers from -128 to 127."""
    return byte(blocks.view(torch.int8), at)


def u16(blocks: Blocks, at: Whole | int) -> Whole:
    """Return words of two bytes, little endian."""
    return byte(blocks, at) | (byte(blocks, at + 1) << 8)


def u32(blocks: Blocks, at: Whole | int) -> Whole:
    """Return words of four bytes, little endian; the highest bit is the sign."""
    return u16(blocks, at) | (u16(blocks, at + 2) << 16)


def half(blocks: Blocks, at: Whole | int) -> Single:
    """Return float16 numbers, little endian."""
    return as_half(u16(blocks, at))


def as_half(bits: Whole) -> Single:
    """Return the float16 numbers that have these bits.

    Example:
        >>> as_half(torch.tensor([0x3C00, 0xC000], dtype=torch.int32)).tolist()
        [1.0, -2.0]
    """
    return bits.to(torch.int16).view(torch.float16).to(torch.float32)


def as_single(bits: Whole) -> Single:
    """Return the float32 numbers that have these bits."""
    return bits.view(torch.float32)


def single(whole: Whole) -> Single:
    """Return whole numbers as float32."""
    return whole.to(torch.float32)


def look(table: Table, index: Whole) -> Single:
    """Return what a table of int8 has at each index."""
    return table[index].to(torch.float32)


def select(mask: torch.Tensor, yes: torch.Tensor | float, no: torch.Tensor | float) -> torch.Tensor:
    """Return `yes` where `mask` is true, `no` elsewhere."""
    return torch.where(mask, yes, no)
