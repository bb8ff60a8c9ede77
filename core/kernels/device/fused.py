"""Decoders in Triton: one pass over memory, from packed bytes to float32 or bfloat16.

The functions are those that `weighbridge.kernels.device.decoders` names; here are their words in
Triton (`weighbridge.kernels.device.words` says what each means) and what runs them over blocks.
Triton is told not to fuse a product and a sum into one operation, which would round once where the
CPU rounds twice. How fast this is on a GPU has not been measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from weighbridge.kernels.device.decoders import DECODERS, Decoder, table
from weighbridge.kernels.device.substitute import Substitution

if TYPE_CHECKING:
    from weighbridge.encoding import Blocked

PROGRAM = 2048
"""Values that a program decodes."""

OPTIONS = {"enable_fp_fusion": False, "num_warps": 4}
"""How all kernels are compiled."""


def byte(blocks: tl.tensor, at: tl.tensor) -> tl.tensor:
    """Return bytes: `blocks` are the addresses where each begins."""
    return tl.load(blocks + at).to(tl.int32)


def signed(blocks: tl.tensor, at: tl.tensor) -> tl.tensor:
    """Return bytes as numbers from -128 to 127."""
    return tl.load(blocks + at).to(tl.int8, bitcast=True).to(tl.int32)


def u16(blocks: tl.tensor, at: tl.tensor) -> tl.tensor:
    """Return words of two bytes, which may begin anywhere."""
    return byte(blocks, at) | (byte(blocks, at + 1) << 8)


def u32(blocks: tl.tensor, at: tl.tensor) -> tl.tensor:
    """Return words of four bytes."""
    return u16(blocks, at) | (u16(blocks, at + 2) << 16)


def half(blocks: tl.tensor, at: tl.tensor) -> tl.tensor:
    """Return float16 numbers."""
    return as_half(u16(blocks, at))


def as_half(bits: tl.tensor) -> tl.tensor:
    """Return the float16 numbers that have these bits."""
    return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


def as_single(bits: tl.tensor) -> tl.tensor:
    """Return the float32 numbers that have these bits."""
    return bits.to(tl.float32, bitcast=True)


def single(whole: tl.tensor) -> tl.tensor:
    """Return whole numbers as float32."""
    return whole.to(tl.float32)


def look(table: tl.tensor, index: tl.tensor) -> tl.tensor:
    """Return what a table has at each index: `table` is its address."""
    return tl.load(table + index).to(tl.float32)


def select(mask: tl.tensor, yes: tl.tensor, no: tl.tensor) -> tl.tensor:
    """Return `yes` where `mask` is true, `no` elsewhere."""
    return tl.where(mask, yes, no)


WORDS = (byte, signed, u16, u32, half, as_half, as_single, single, look, select)

_TYPES = ("Blocks", "Single", "Table", "Whole")
"""What the types of arguments are called: Triton wants to know those names too."""

_in_triton = Substitution(
    {word.__name__: word for word in WORDS} | {"tl": tl} | dict.fromkeys(_TYPES, tl.constexpr(0)),
    triton.jit,
    tl.constexpr,
)


def _decode_blocks(
    packed: tl.tensor,
    values: tl.tensor,
    table: tl.tensor,
    count: tl.tensor,
    body: tl.constexpr,
    nbytes: tl.constexpr,
    blocks: tl.constexpr,
    runs: tl.constexpr,
    run: tl.constexpr,
) -> None:
    """Decode `blocks` blocks of `count`; lanes behind the last one do that one again."""
    number = tl.program_id(0).to(tl.int64) * blocks + tl.arange(0, blocks)
    number = tl.minimum(number, count - 1)[:, None, None]
    s = tl.arange(0, runs)[None, :, None]
    j = tl.arange(0, run)[None, None, :]
    found = body(packed + number * nbytes, table, s, j)
    tl.store(values + number * (runs * run) + s * run + j, found.to(values.dtype.element_ty))


KERNEL = triton.jit(_decode_blocks)


def decode(encoding: Blocked, packed: torch.Tensor, values: torch.Tensor) -> None:
    """Decode whole blocks into memory on the same device.

    Args:
        encoding: one that `DECODERS` has.
        packed: their bytes, uint8, contiguous.
        values: contiguous, of float32 or bfloat16.
    """
    count = packed.numel() // encoding.grain_bytes
    if not count:
        return
    constants = constants_of(encoding)
    grid = (triton.cdiv(count, constants["blocks"]),)
    decoder = DECODERS[encoding.name]
    looked_up = table(decoder.table, packed.device) if decoder.table else packed
    with torch.cuda.device_of(packed):  # type: ignore[no-untyped-call]
        KERNEL[grid](packed, values, looked_up, count, **constants, **OPTIONS)


def constants_of(encoding: Blocked) -> dict[str, Any]:
    """Return what the kernel is compiled for, to decode `encoding`."""
    decoder: Decoder = DECODERS[encoding.name]
    return {
        "body": _in_triton.of(decoder.body),
        "nbytes": encoding.grain_bytes,
        "blocks": max(1, PROGRAM // encoding.grain),
        "runs": encoding.grain // decoder.run,
        "run": decoder.run,
    }
