"""``python -m weighbridge.benchmarks.encodings``: ggml's encodings and casts, on one core.

Beside ``libgguf``, which has ggml's C code, ``gguf``, which is in Python, and a copy of as many
float32. Time is that of the processor, over all threads: libgguf starts several.
"""

from __future__ import annotations

import os
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from weighbridge.benchmarks import report
from weighbridge.benchmarks.results import Speed
from weighbridge.encoding import DENSE
from weighbridge.kernels import cast, decode, encode
from weighbridge.kernels.ggml import BLOCKED, GGML

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

ROUNDS = 3

CASTS = (("f32", "f16"), ("f16", "f32"), ("f32", "bf16"), ("bf16", "f32"))


class Job(StrEnum):
    """What is measured."""

    ENCODE = "encode"
    DECODE = "decode"
    CAST = "cast"


def measure_encode(name: str, values: NDArray[np.float32], rounds: int = ROUNDS) -> Speed:
    """Encode rows of `values`, here and elsewhere; with weights what is made with them only."""
    import libgguf
    from gguf import GGMLQuantizationType, quants

    encoding, kind = BLOCKED[name], GGMLQuantizationType[name.upper()]
    # A first call compiles, and makes tables.
    weights = None if GGML[name].encode else _weights(values.shape[1])
    libgguf.quantize_rows(values[:1], kind, weights)
    encode(encoding, values[:1], weights)
    data, ours = _timed(lambda: encode(encoding, values, weights), rounds)
    expected, theirs = _timed(lambda: libgguf.quantize_rows(values, kind, weights), rounds)
    python = _if_known(lambda: quants.quantize(values, kind), rounds)
    same = data.tobytes() == expected.tobytes()
    return _speed(name, Job.ENCODE, values, same, (ours, theirs, python))


def _weights(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(0, 1, count).astype(np.float32)


def measure_decode(name: str, values: NDArray[np.float32], rounds: int = ROUNDS) -> Speed:
    """Decode as many values as `values` has, of random bytes with scales near to 1."""
    import libgguf
    from gguf import GGMLQuantizationType, quants

    encoding, kind = BLOCKED[name], GGMLQuantizationType[name.upper()]
    blocks = np.frombuffer(
        np.random.default_rng(0).bytes(encoding.nbytes(values.shape)), encoding.dtype
    ).copy()
    for field in ("d", "dmin", "m"):
        if field in (encoding.dtype.names or ()) and encoding.dtype[field].kind == "f":
            blocks[field] = 1.5
    data = blocks.view(np.uint8).reshape(len(values), -1)
    parts = {"data": data}
    decode(encoding, {"data": data[:1]}, values[:1].shape)
    got, ours = _timed(lambda: decode(encoding, parts, values.shape), rounds)
    wanted, theirs = _timed(lambda: libgguf.dequantize_rows(data, kind), rounds)
    python = _if_known(lambda: quants.dequantize(data, kind), rounds)
    same = np.array_equal(got, wanted, equal_nan=True)
    return _speed(name, Job.DECODE, values, same, (ours, theirs, python))


def measure_cast(source: str, to: str, values: NDArray[np.float32], rounds: int = ROUNDS) -> Speed:
    """Cast as many numbers as `values` has."""
    numbers, dtype = values.astype(DENSE[source].dtype), DENSE[to].dtype
    cast(numbers[:1], DENSE[to])
    got, ours = _timed(lambda: cast(numbers, DENSE[to]), rounds)
    expected, python = _timed(lambda: numbers.astype(dtype), rounds)
    same = got.tobytes() == expected.tobytes()
    moved = np.ones((numbers.nbytes + got.nbytes) // 2, np.uint8)
    return _speed(f"{source} to {to}", Job.CAST, moved, same, (ours, None, python))


def _speed(
    name: str,
    job: Job,
    moved: NDArray[Any],
    same: bool,
    times: tuple[float, float | None, float | None],
) -> Speed:
    _, copied = _timed(lambda: moved.copy(), ROUNDS)
    ours, theirs, python = (time and moved.nbytes / time for time in times)
    assert ours is not None
    return Speed(name, job, ours, theirs, python, moved.nbytes / copied, same)


def _if_known(job: Callable[[], NDArray[Any]], rounds: int) -> float | None:
    try:
        return _timed(job, rounds)[1]
    except NotImplementedError:
        return None


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
    job: Annotated[list[Job] | None, typer.Option(help="What to do; all by default.")] = None,
    rounds: Annotated[int, typer.Option(help="The fastest of so many counts.", min=1)] = ROUNDS,
    device: Annotated[str, typer.Option(help="A GPU to measure instead: cuda.")] = "cpu",
) -> None:
    """Print how fast values are encoded, decoded and cast, in GB/s of float32 a core."""
    if device != "cpu":
        _measure_device(device, names or list(BLOCKED), rows, rounds)
        return
    os.environ.setdefault("WEIGHBRIDGE_KERNELS", "compiled")
    values = np.random.default_rng(0).standard_normal((rows, 1024)).astype(np.float32)
    found = speeds(names, values, job or list(Job), rounds)
    Console().print(report.encodings(found))


def speeds(
    names: Sequence[str] | None,
    values: NDArray[np.float32],
    jobs: Sequence[Job] = tuple(Job),
    rounds: int = ROUNDS,
) -> Iterator[Speed]:
    """Yield how fast encodings are; casts are measured where no names are given."""
    for name in names or list(GGML):
        if Job.ENCODE in jobs and name in encodable():
            yield measure_encode(name, values, rounds)
        if Job.DECODE in jobs and name not in _ONLY_HERE:
            yield measure_decode(name, values, rounds)
    if Job.CAST in jobs and not names:
        for source, to in CASTS:
            yield measure_cast(source, to, values, rounds)


def _measure_device(device: str, names: list[str], rows: int, rounds: int) -> None:
    import torch

    from weighbridge.benchmarks.on_device import table_of

    if torch.cuda.is_available():
        Console().print(table_of(names, rows, rounds, device))
    else:
        Console().print("no CUDA device here: nothing was measured")


_ONLY_HERE = ("q2_0", "q8_1", "q8_k")
"""What libgguf does not decode."""


def encodable() -> list[str]:
    """Return the encodings that both encode."""
    able = [name for name, codec in GGML.items() if codec.encode or codec.weighted]
    return [name for name in able if name not in _ONLY_HERE]


if __name__ == "__main__":
    typer.run(main)
