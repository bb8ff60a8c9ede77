"""The ring of pinned buffers, on a device that does everything at the last moment."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.fake_device import FakeDevice
from support.gguf_files import smollm2
from support.plans import numbers
from support.stored import in_file

import weighbridge as wb
from weighbridge.encoding import DENSE
from weighbridge.engine import ring as rings
from weighbridge.engine.budget import Budget
from weighbridge.engine.load import Options, load_tensors, requested
from weighbridge.engine.torch_types import as_torch
from weighbridge.errors import InvalidInput, OutOfMemory
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.ops import Add, Concat, Stack, Swap, Transpose, apply
from weighbridge.recode import Recoded

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.tensor import Lazy

SMALL = Options(memory="2MB", threads=3)
"""Six buffers of 160 kB."""


@pytest.fixture
def lazies(tmp_path: Path) -> dict[str, Lazy]:
    q8_0 = in_file(numbers(BLOCKED["q8_0"], (512, 1024)), tmp_path / "q8_0")
    wide = in_file(numbers(DENSE["f32"], (2, 300_000)), tmp_path / "wide")
    small = in_file(numbers(DENSE["bf16"], (64, 96)), tmp_path / "small")
    return {
        "packed": q8_0,
        "moved": apply(Swap(0, 4, 2, 64), [q8_0])[0],
        "joined": apply(Concat(1, (1024, 1024)), [q8_0, q8_0])[0],
        "stacked": apply(Stack(2), [small, small])[0],
        "turned": apply(Transpose(), [wide])[0],
        "added": apply(Add(1.0), [q8_0])[0],
        "rounded": Recoded(q8_0, DENSE["bf16"]),
        "not decoded there": numbers(BLOCKED["q5_k"], (64, 1024)),
        "big-endian": in_file(numbers(DENSE["f32"], (300, 200)), tmp_path / "big", ">"),
        "in memory": numbers(DENSE["f16"], (100, 100)),
        "scalar": numbers(DENSE["f32"], ()),
        "empty": numbers(DENSE["f32"], (0, 5)),
        "wide": wide,
        "small": small,
        "packed bits": numbers(DENSE["f4"], (3, 5)),
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_device_gets_what_the_cpu_gets(lazies: dict[str, Lazy], dtype: str) -> None:
    device = FakeDevice()
    there = load_tensors(requested(lazies, dtype), device, SMALL)
    here = load_tensors(requested(lazies, dtype))
    for name in lazies:
        assert torch.equal(there[name], here[name]), name
    assert device.pending == 0


def test_a_real_model_comes_whole() -> None:
    with wb.open(smollm2()) as model:
        tensors = {name: model.tensors[name] for name in list(model.tensors)[:40]}
        device = FakeDevice()
        options = Options(memory="20MB", threads=2)
        there = load_tensors(requested(tensors, "bfloat16"), device, options)
        here = load_tensors(requested(tensors, "bfloat16"))
    assert all(torch.equal(there[name], here[name]) for name in tensors)
    assert device.pinned_bytes <= 10_000_000


def test_quantised_bytes_cross_the_bus(tmp_path: Path) -> None:
    packed = in_file(numbers(BLOCKED["q4_k"], (256, 1024)), tmp_path / "x")
    for tensor in (packed, apply(Swap(0, 4, 2, 32), [packed])[0]):
        device = FakeDevice()
        load_tensors(requested({"x": tensor}, "bfloat16"), device, SMALL)
        assert device.crossed == packed.nbytes


@pytest.mark.parametrize(("memory", "threads"), [("1MB", 1), ("2MB", 3), ("50MB", 2), ("8GB", 16)])
def test_pinned_memory_is_bounded(memory: str, threads: int, tmp_path: Path) -> None:
    tensor = in_file(numbers(DENSE["f32"], (1000, 1000)), tmp_path / "x")
    device = FakeDevice()
    options = Options(memory=memory, threads=threads)
    loaded = load_tensors(requested({"x": tensor}), device, options)
    assert torch.equal(loaded["x"], torch.from_numpy(tensor.values()))
    assert device.pinned_bytes <= min(wb.sizes.parse_size(memory) // 2, rings.PINNED_BYTES)
    assert len(device.buffers) == 2 * threads
    if memory == "1MB":
        assert device.copies > 2 * len(device.buffers)  # each went round more than once


def test_a_buffer_is_not_filled_before_it_is_empty() -> None:
    bounds = Budget(threads=1, values=1000, bytes=1 << 17)
    device = FakeDevice()
    target = torch.zeros(4, dtype=torch.uint8)
    with rings.ring(device, bounds) as way:
        for value in range(4):
            with way.slot() as slot:
                assert device.pending <= len(way.slots) - 1
                slot.host[0] = value
                slot.stream.copy(slot.host[:1], target[value : value + 1])
        assert device.pending == 2
    assert target.tolist() == [0, 1, 2, 3]


@given(st.data())
def test_every_shape_and_budget(data: st.DataObject) -> None:
    rows, blocks = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 5))
    kind = data.draw(st.sampled_from(["q8_0", "f32", "f16"]))
    encoding: Any = BLOCKED.get(kind) or DENSE[kind]
    tensor = numbers(encoding, (rows, 32 * blocks))
    device = FakeDevice()
    loaded = load_tensors(
        requested({"x": tensor}, "float32"),
        device,
        Options(memory=data.draw(st.integers(400_000, 900_000)), threads=1),
    )
    assert torch.equal(loaded["x"], as_torch(tensor.values("f32")))


def test_units_larger_than_a_buffer_are_cut(tmp_path: Path) -> None:
    tensor = in_file(numbers(DENSE["f32"], (4096, 512)), tmp_path / "x")
    swapped = apply(Swap(0, 2, 2, 1024), [tensor])[0]
    loaded = load_tensors(requested({"x": swapped}), FakeDevice(), SMALL)
    assert torch.equal(loaded["x"], torch.from_numpy(swapped.values()))


def test_lost_numbers_are_refused(tmp_path: Path) -> None:
    tensor = in_file(wb.tensor.from_array("x", np.float32([1, 1e30])), tmp_path / "x")
    tensors = {"fine": numbers(DENSE["f32"], (3,)), "bad": tensor}
    with pytest.raises(InvalidInput) as caught:
        load_tensors(requested(tensors, "float16"), FakeDevice(), SMALL)
    assert (caught.value.rule, caught.value.tensor) == ("overflow", "bad")


@pytest.mark.parametrize("copy", [1, 7, 20])
def test_a_broken_bus_ends_the_work(lazies: dict[str, Lazy], copy: int) -> None:
    before = threading.active_count()
    device = FakeDevice(breaks_at=copy)
    with pytest.raises(RuntimeError, match="the bus is broken"):
        load_tensors(requested(lazies, "float32"), device, SMALL)
    assert threading.active_count() == before
    assert device.pending == 0


def test_an_unreadable_file_ends_the_work(lazies: dict[str, Lazy], tmp_path: Path) -> None:
    os.truncate(tmp_path / "wide", 1000)
    before = threading.active_count()
    device = FakeDevice()
    with pytest.raises(wb.InvalidFile) as caught:
        load_tensors(requested(lazies, "float32"), device, SMALL)
    assert caught.value.rule in {"truncated", "changed"}
    assert (threading.active_count(), device.pending) == (before, 0)


def test_an_interrupt_ends_the_work(lazies: dict[str, Lazy]) -> None:
    before = threading.active_count()
    device = FakeDevice()

    def interrupt(_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        load_tensors(requested(lazies, "float32"), device, SMALL._replace(progress=interrupt))
    assert (threading.active_count(), device.pending) == (before, 0)


def test_a_device_without_room_says_for_what() -> None:
    tensors = {name: numbers(DENSE["f32"], (1000,)) for name in "abc"}
    with pytest.raises(OutOfMemory) as caught:
        load_tensors(requested(tensors), FakeDevice(room=9000), SMALL)
    assert str(caught.value) == (
        "tensor 'c': does not fit in fake:0 (got 1.0 kB free, expected 4.0 kB) [memory]"
    )
    assert isinstance(caught.value, MemoryError)


def test_progress_ends_at_the_total(lazies: dict[str, Lazy]) -> None:
    seen: list[Any] = []
    options = SMALL._replace(progress=seen.append)
    loaded = load_tensors(requested(lazies, "float32"), FakeDevice(), options)
    assert seen[-1].done == seen[-1].total == sum(tensor.nbytes for tensor in loaded.values())
