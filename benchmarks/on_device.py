"""How fast ggml's encodings are decoded and encoded on a GPU, against a copy of its memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from weighbridge.encoding import DENSE
from weighbridge.kernels import decode, encode
from weighbridge.kernels.ggml import BLOCKED

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

CHECKED = 1 << 18
"""Values of which the results are compared with the CPU's."""


@dataclass(frozen=True)
class DeviceSpeed:
    """Gigabytes a second of a device's memory.

    Attributes:
        name: of the encoding.
        decode: bytes read and written, to bfloat16.
        copy: bytes read and written by a copy of as many bfloat16.
        encode: bytes of float32 that are encoded; None where no kernel does.
        same: whether results were those of the CPU.
    """

    name: str
    decode: float
    copy: float
    encode: float | None
    same: bool


def measure(name: str, values: torch.Tensor, rounds: int) -> DeviceSpeed:
    """Decode as many values as `values` has, and encode these, where they are."""
    import torch

    from weighbridge.kernels import device

    encoding, to = BLOCKED[name], DENSE["bf16"]
    packed = torch.from_numpy(_blocks(name, values.shape)).to(values.device)
    out = torch.empty(values.shape, dtype=torch.bfloat16, device=values.device)
    decoding = _timed(lambda: device.decode_into(encoding, packed, out), rounds, values)
    target = torch.empty_like(out)
    copying = _timed(lambda: target.copy_(out), rounds, values)
    same = _decoded_alike(name, packed, out)
    encoding_time = None
    if device.encodes(encoding, values.dtype):
        encoding_time = _timed(lambda: device.encode(encoding, values), rounds, values)
        same &= _encoded_alike(name, values)
    moved = out.numel() * to.bits // 8
    return DeviceSpeed(
        name,
        (packed.numel() + moved) / decoding,
        2 * moved / copying,
        values.numel() * 4 / encoding_time if encoding_time else None,
        same,
    )


def table_of(names: list[str], rows: int, rounds: int, device: str) -> Table:
    """Return a table of speeds for rows of 1024 values."""
    import torch

    values = torch.randn(rows, 1024, device=device)
    columns = ("encoding", "decode to bf16", "copy", "to copy", "encode of f32", "bytes")
    table = Table(*columns, title=f"GB/s on {device}")
    for name in names:
        speed = measure(name, values, rounds)
        table.add_row(
            name,
            f"{speed.decode:.1f}",
            f"{speed.copy:.1f}",
            f"{speed.decode / speed.copy:.2f}",
            "" if speed.encode is None else f"{speed.encode:.2f}",
            "same" if speed.same else "differ",
        )
    return table


def _blocks(name: str, shape: torch.Size) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return random blocks, with scales near to 1 where they are numbers of their own."""
    encoding = BLOCKED[name]
    data = np.random.default_rng(0).bytes(encoding.nbytes(tuple(shape)))
    blocks = np.frombuffer(data, encoding.dtype).copy()
    for field in ("d", "dmin", "m"):
        if field in (encoding.dtype.names or ()) and encoding.dtype[field].kind == "f":
            blocks[field] = 1.5
    return blocks.view(np.uint8)


def _timed(job: Callable[[], object], rounds: int, on: torch.Tensor) -> float:
    """Return the least nanoseconds that a job takes, after one call that may compile."""
    job()
    times = []
    for _ in range(rounds):
        _wait(on)
        start = time.perf_counter_ns()
        job()
        _wait(on)
        times.append(time.perf_counter_ns() - start)
    return max(1, min(times))


def _wait(on: torch.Tensor) -> None:
    import torch

    if on.is_cuda:
        torch.cuda.synchronize(on.device)


def _decoded_alike(name: str, packed: torch.Tensor, out: torch.Tensor) -> bool:
    import torch

    encoding = BLOCKED[name]
    count = min(out.numel(), CHECKED) // encoding.grain
    data = packed[: count * encoding.grain_bytes].cpu().numpy()
    expected = decode(encoding, {"data": data}, (count * encoding.grain,), "bf16")
    bits = torch.from_numpy(expected.view(np.int16))
    got = out.reshape(-1)[: expected.size].cpu()
    nan = got.isnan() & bits.view(torch.bfloat16).isnan()
    return bool(((got.view(torch.int16) == bits) | nan).all())


def _encoded_alike(name: str, values: torch.Tensor) -> bool:
    from weighbridge.kernels import device

    part = values[: max(1, CHECKED // values.shape[1])]
    got = device.encode(BLOCKED[name], part).cpu().numpy()
    return encode(BLOCKED[name], part.cpu().numpy()).tobytes() == got.tobytes()
