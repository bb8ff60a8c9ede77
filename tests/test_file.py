"""Files: what is read is what was there when the file was opened, or an error says why not."""

from __future__ import annotations

import gc
import os
import pickle
import socket
from typing import TYPE_CHECKING

import pytest

from weighbridge.errors import Error, InvalidFile, InvalidInput, NotFound
from weighbridge.file import File

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = bytes(range(256)) * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(CONTENT)
    return made


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def rule_of(read: object, *arguments: object) -> str:
    with pytest.raises(Error) as caught:
        read(*arguments)  # type: ignore[operator]
    return caught.value.rule


def test_ranges_are_read_and_viewed(path: Path) -> None:
    file = File(path)
    assert file.size == len(CONTENT)
    for offset, length in ((0, None), (5, 10), (4000, None), (4096, 0), (0, 0)):
        end = None if length is None else offset + length
        assert file.read(offset, length) == CONTENT[offset:end]
        assert file.view(offset, length) == CONTENT[offset:end]
    assert file.view().readonly


@pytest.mark.parametrize(
    ("offset", "length"), [(4097, 0), (0, 4097), (-1, 1), (1, -1), (1 << 70, 1)]
)
def test_ranges_outside_of_the_file_are_refused(path: Path, offset: int, length: int) -> None:
    for read in (File(path).read, File(path).view):
        assert rule_of(read, offset, length) == "truncated"


def test_an_empty_file_has_an_empty_view(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    file = File(tmp_path / "empty")
    assert (file.read(), bytes(file.view())) == (b"", b"")


@pytest.mark.parametrize(
    ("name", "kind", "rule"),
    [
        ("absent", NotFound, "not-found"),
        ("file/below", NotFound, "not-found"),
        (".", InvalidInput, "not-a-file"),
        ("pipe", InvalidInput, "not-a-file"),
        ("socket", InvalidInput, "not-a-file"),
        ("dangling", NotFound, "not-found"),
        ("loop", InvalidInput, "unreadable"),
        ("n\0l", InvalidInput, "unreadable"),
        ("x" * 300, InvalidInput, "unreadable"),
    ],
)
def test_what_is_no_file_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type, rule: str
) -> None:
    monkeypatch.chdir(path.parent)
    os.mkfifo("pipe")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        with pytest.raises(kind) as caught:
            File(name)
    assert caught.value.rule == rule


def test_an_unreadable_file_is_refused_when_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    file = File(path)
    monkeypatch.setattr(os, "open", refuse)
    assert rule_of(file.read) == "unreadable"


def test_a_relative_path_still_holds_in_another_directory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    file = File("file")
    monkeypatch.chdir("/")
    assert file.read(0, 3) == CONTENT[:3]
    assert str(file.path) == "file"


@pytest.mark.parametrize("opened", [False, True])
def test_a_file_that_shrinks_is_an_error_and_no_signal(path: Path, opened: bool) -> None:
    file = File(path)
    if opened:
        file.read(0, 1)
    os.truncate(path, 100)
    assert rule_of(file.read) == "truncated"
    assert rule_of(file.view) == "truncated"
    if opened:
        assert rule_of(file.check_unchanged) == "truncated"


def test_a_file_that_changes_before_it_is_read_is_refused(path: Path) -> None:
    file = File(path)
    path.write_bytes(CONTENT + b"more")
    assert rule_of(file.read) == "changed"


def test_a_file_that_changes_while_it_is_read_is_noticed(path: Path) -> None:
    file = File(path)
    file.read(0, 1)
    file.check_unchanged()
    os.utime(path, ns=(1, 1))
    assert rule_of(file.check_unchanged) == "changed"


def test_a_file_that_is_replaced_is_read_to_its_end(path: Path) -> None:
    file = File(path)
    file.read(0, 1)
    path.with_suffix(".new").write_bytes(b"other")
    path.with_suffix(".new").replace(path)
    assert file.read() == CONTENT
    file.check_unchanged()


def test_what_is_known_of_a_file_travels(path: Path) -> None:
    file = File(path)
    file.view()
    again = pickle.loads(pickle.dumps(file))
    assert (again.path, again.size, again.identity) == (path, file.size, file.identity)
    assert again.read() == CONTENT
    late = pickle.loads(pickle.dumps(file))
    path.write_bytes(CONTENT[::-1] + b"!")
    assert rule_of(late.read) == "changed"


def test_views_outlive_the_file(path: Path) -> None:
    file = File(path)
    view = file.view(10, 20)
    file.close()
    assert view == CONTENT[10:30]
    assert file.read(0, 2) == CONTENT[:2]


def test_nothing_stays_open(path: Path) -> None:
    before = open_files()
    file = File(path)
    file.read()
    view = file.view()
    file.close()
    del view
    file.close()
    forgotten = [File(path) for _ in range(20)]
    for each in forgotten:
        each.read(0, 1)
        each.view(0, 1)
    del each, forgotten, file
    assert open_files() == before


def test_errors_name_the_file(path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"file ends too early \(got 4096 bytes, expected 5000"):
        File(path).read(0, 5000)
