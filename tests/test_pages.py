"""New memory in huge pages: aligned, not shared between results, and given back."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from weighbridge.encoding import DENSE
from weighbridge.engine import pages
from weighbridge.engine.memory import HostMemory
from weighbridge.engine.pages import ALIGNED, ALONE, HUGE, SHARED, Pages

if TYPE_CHECKING:
    import pytest


def address(memory: memoryview) -> int:
    return np.frombuffer(memory, np.uint8).ctypes.data


def resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * mmap.PAGESIZE


def test_results_are_aligned_and_do_not_overlap() -> None:
    source = Pages()
    sizes = [1, 63, 64, 65, 100_000, ALONE - 1, ALONE, ALONE + 1, SHARED // 2, 3] * 3
    taken = [source.take(size) for size in sizes]
    for number, memory in enumerate(taken):
        memory[:] = bytes([number + 1]) * len(memory)
    for number, (memory, size) in enumerate(zip(taken, sizes, strict=True)):
        assert len(memory) == size
        assert address(memory) % ALIGNED == 0
        assert set(memory) == {number + 1} if size < 1000 else memory[0] == memory[-1] == number + 1


def test_memory_lasts_as_long_as_what_is_made_of_it_and_no_longer() -> None:
    gc.collect()
    before = resident()
    tensor = HostMemory().empty("x", (1 << 25,), DENSE["bf16"])
    tensor.fill_(1)
    part = tensor[5:9]
    del tensor
    gc.collect()
    assert part.tolist() == [1] * 4
    assert resident() - before > 60_000_000
    del part
    gc.collect()
    assert resident() - before < 8_000_000


def test_small_results_take_no_more_than_they_have() -> None:
    before = resident()
    taken = [Pages().take(1000) for _ in range(50)]
    for memory in taken:
        memory[:] = bytes(1000)
    assert resident() - before < 50 * HUGE // 10


def test_what_is_filled_stays_when_more_is_taken() -> None:
    source = Pages()
    taken = []
    for number in range(40):
        memory = source.take(HUGE * 3 // 8)
        memory[:] = bytes([number + 1]) * len(memory)
        taken.append(memory)
    for number, memory in enumerate(taken):
        assert bytes(memory) == bytes([number + 1]) * len(memory)


def test_once_huge_pages_are_slow_no_more_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Map(mmap.mmap):
        def madvise(self, option: int, start: int, length: int) -> None:
            asked.append((option, length))

    monkeypatch.setattr(mmap, "mmap", Map)
    monkeypatch.setattr(pages, "_is_quick", lambda memory, place: len(asked) < 2)
    source = Pages()
    for _ in range(3):
        source.take(2 * HUGE + 5)
    wanted, unwanted = mmap.MADV_HUGEPAGE, mmap.MADV_NOHUGEPAGE
    assert asked == [(wanted, HUGE)] * 2 + [(unwanted, HUGE)]


def test_nothing_breaks_where_there_are_no_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Map(mmap.mmap):
        def madvise(self, option: int, start: int, length: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Map)
    memory = Pages().take(ALONE)
    assert torch.frombuffer(memory, dtype=torch.uint8).sum() == 0
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    assert len(Pages().take(ALONE)) == ALONE
