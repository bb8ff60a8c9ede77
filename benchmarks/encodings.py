"""``python -m weighbridge.benchmarks.encodings``: ggml's encodings, on one core.

Beside ``libgguf``, which has ggml's C code. Time is that of the processor, over all threads:
libgguf starts several.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from weighbridge.kernels import decode, encode
from weighbridge.kernels.ggml import BLOCKED, GGML

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """Gigabytes of float32 a second of one core: ours, and libgguf's.

    Attributes:
        name: of the encoding.
        job: ``encode`` or ``decode``.
        ours: this package's.
        theirs: libgguf's.
        same: whether the results were the same.
    """

    name: str
    job: str
    ours: float
    theirs: float
    same: bool


def measure(name: str, values: NDArray[np.float32], rounds: int = ROUNDS) -> list[Speed]:
    """Encode and decode rows of `values`, here and in libgguf."""
    import libgguf
    from gguf import GGMLQuantizationType

    encoding, kind = BLOCKED[name], GGMLQuantizationType[name.upper()]
    speeds = []
    # A first call compiles, and makes tables.
    libgguf.quantize_rows(values[:1], kind)
    encode(encoding, values[:1])
    data, ours = _timed(lambda: encode(encoding, values), rounds)
    expected, theirs = _timed(lambda: libgguf.quantize_rows(values, kind), rounds)
    same = data.tobytes() == expected.tobytes()
    speeds.append(Speed(name, "encode", values.nbytes / ours, values.nbytes / theirs, same))
    parts = {"data": data}
    got, ours = _timed(lambda: decode(encoding, parts, values.shape), rounds)
    wanted, theirs = _timed(lambda: libgguf.dequantize_rows(expected, kind), rounds)
    same = got.tobytes() == wanted.tobytes()
    speeds.append(Speed(name, "decode", values.nbytes / ours, values.nbytes / theirs, same))
    return speeds


def _timed(job: Callable[[], NDArray[Any]], rounds: int) -> tuple[NDArray[Any], float]:
    """Return what a job makes, and the least nanoseconds that it took."""
    times = []
    for _ in range(rounds):
        start = time.process_time_ns()
        result = job()
        times.append(time.process_time_ns() - start)
    return result, max(1, min(times))


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Encodings; all by default.")] = None,
    rows: Annotated[int, typer.Option(help="Rows of 1024 values.", min=1)] = 512,
) -> None:
    """Print how fast values are encoded and decoded, in GB/s of float32 a core."""
    values = np.random.default_rng(0).standard_normal((rows, 1024)).astype(np.float32)
    table = Table("encoding", "job", "ours", "libgguf", "ratio", "bytes")
    for name in names or measurable():
        for speed in measure(name, values):
            table.add_row(
                name,
                speed.job,
                f"{speed.ours:.3f}",
                f"{speed.theirs:.3f}",
                f"{speed.ours / speed.theirs:.1f}",
                "same" if speed.same else "differ",
            )
    Console().print(table)


def measurable() -> list[str]:
    """Return the encodings that both encode."""
    return [name for name, codec in GGML.items() if codec.encode and name != "q2_0"]


if __name__ == "__main__":
    typer.run(main)
