"""Copies from file to file are exact wherever both ends lie, and the disk is asked nicely."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from weighbridge.engine import disk, jobs
from weighbridge.engine.jobs import CopyJob
from weighbridge.errors import InvalidFile
from weighbridge.file import File
from weighbridge.tensor import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LENGTH = 3 * jobs.BUFFER_BYTES + 777


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(np.random.default_rng(1).bytes(LENGTH + 3 * jobs.PAGE))
    return path


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


@pytest.mark.parametrize("start", [0, 1, 40, jobs.PAGE])
@pytest.mark.parametrize("offset", [0, 32, jobs.PAGE + 40])
@pytest.mark.parametrize("length", [0, 1, jobs.PAGE, LENGTH])
@pytest.mark.usefixtures("descriptor")
def test_a_copy_is_exact(
    source: Path, tmp_path: Path, start: int, offset: int, length: int
) -> None:
    target = tmp_path / "target"
    where = Extent(File(source), 8, length + start)
    job = CopyJob("x", where, start, length, target, offset)
    assert job.run() == length
    expected = bytes(offset) + source.read_bytes()[8 + start :][:length] if length else b""
    assert target.read_bytes() == expected


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.usefixtures("descriptor")
def test_a_source_that_has_shrunk_is_an_error(source: Path, tmp_path: Path, start: int) -> None:
    where = Extent(File(source), 0, LENGTH)
    os.truncate(source, LENGTH // 2)
    with pytest.raises(InvalidFile) as raised:
        CopyJob("x", where, start, LENGTH - start, tmp_path / "target", 0).run()
    assert raised.value.rule == "truncated"


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_reserving_gives_the_size(descriptor: int, size: int) -> None:
    disk.reserve(descriptor, size)
    assert os.fstat(descriptor).st_size == size


def refuses(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the file system refuse to reserve."""

    def fallocate(*arguments: Any) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(disk, "_libc", lambda *_: fallocate)


def test_a_full_disk_is_found_out_at_once(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(monkeypatch, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        disk.reserve(descriptor, 1)


def test_a_file_system_that_cannot_reserve_is_no_error(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses(monkeypatch, errno.EOPNOTSUPP)
    disk.reserve(descriptor, 1000)
    assert os.fstat(descriptor).st_size == 1000


def test_other_systems_do_without(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.sys, "platform", "darwin")
    disk._libc.cache_clear()
    disk.reserve(descriptor, disk.EARLY_BYTES)
    disk.start_writing(descriptor, 0, disk.EARLY_BYTES)
    assert os.fstat(descriptor).st_size == disk.EARLY_BYTES
    disk._libc.cache_clear()
