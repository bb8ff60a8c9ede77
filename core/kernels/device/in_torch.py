"""What runs decoders in torch, on any device: some thirty passes over memory, in bounded pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from weighbridge.kernels.device.decoders import DECODERS, table

if TYPE_CHECKING:
    from weighbridge.encoding import Blocked

CHUNK = 1 << 20
"""Values that are decoded at once: each takes some 40 bytes meanwhile."""


def decode(encoding: Blocked, packed: torch.Tensor, values: torch.Tensor) -> None:
    """Decode whole blocks into memory on the same device.

    Args:
        encoding: one that `DECODERS` has.
        packed: their bytes, uint8, contiguous.
        values: contiguous, of float32 or bfloat16.
    """
    decoder, device = DECODERS[encoding.name], packed.device
    runs = torch.arange(encoding.grain // decoder.run, dtype=torch.int32, device=device)
    places = torch.arange(decoder.run, dtype=torch.int32, device=device)
    looked_up = table(decoder.table, device) if decoder.table else packed
    blocks = packed.view(-1, encoding.grain_bytes)
    at = 0
    for part in torch.split(blocks, max(1, CHUNK // encoding.grain)):
        found = decoder.body(part, looked_up, runs[None, :, None], places[None, None, :])
        values[at : at + found.numel()] = found.reshape(-1)
        at += found.numel()
