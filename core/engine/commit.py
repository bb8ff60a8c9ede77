"""A target appears when it is complete and synced, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from weighbridge.engine.disk import reserve, write_at
from weighbridge.errors import AlreadyExists

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from weighbridge.layout import Layout, OutputFile

PARTIAL = ".partial-"
"""In the name of whatever is not complete yet."""

NAME_LENGTH = 40
"""How much of a name its temporary name keeps: both must fit in 255 bytes."""


class Staging:
    """The files of a layout under temporary names beside the target.

    Leaving the block without `commit` removes them.

    Attributes:
        files: where each file of the layout is written.
    """

    def __init__(
        self, target: Path, layout: Layout, *, directory: bool, replaces: frozenset[Path]
    ) -> None:
        """Choose the names; nothing is created.

        Args:
            target: a directory, or the first of the files.
            layout: the files.
            directory: whether `target` is a directory of these files. It is replaced whole.
            replaces: what may be there already, and gives way.
        """
        self.target = target.absolute()
        self.layout = layout
        self.replaces = replaces
        self._token = secrets.token_hex(4)
        self._folder = self._partial(self.target.name, "") if directory else None
        self.files: Sequence[Path] = [
            self._folder / file.name if self._folder else self._partial(file.name, f"-{number}")
            for number, file in enumerate(layout.files)
        ]

    def _partial(self, name: str, end: str) -> Path:
        return self.target.with_name(f".{name[:NAME_LENGTH]}{PARTIAL}{self._token}{end}")

    def __enter__(self) -> Self:
        """Create the files at their full size, with the bytes that are known."""
        try:
            if self._folder:
                self._folder.mkdir()
            for path, file in zip(self.files, self.layout.files, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                _create(path, file)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was not committed."""
        self._remove()

    def commit(self) -> None:
        """Sync every file, then give all of them their names, or none.

        Raises:
            AlreadyExists: (rule ``exists``) when something appeared meanwhile.
        """
        for path in self.files:
            sync(path)
        if self._folder:
            for folder in {path.parent for path in self.files} | {self._folder}:
                sync(folder)
            self._publish([(self._folder, self.target)])
        else:
            names = (self.target.with_name(file.name) for file in self.layout.files)
            self._publish(list(zip(self.files, names, strict=True)))
        sync(self.target.parent)

    def _publish(self, moves: Sequence[tuple[Path, Path]]) -> None:
        """Move each to its name; an index, being last, appears last."""
        if len(moves) == 1 and not self._folder and moves[0][1] in self.replaces:
            made, name = moves[0]
            made.replace(name)  # in one step: at no time is there neither the old nor the new
            return
        olds = [self._partial(name.name, f"-old-{n}") for n, (_, name) in enumerate(moves)]
        marks = [made.stat() for made, _ in moves]
        try:
            for (made, name), old in zip(moves, olds, strict=True):
                if name in self.replaces and os.path.lexists(name):
                    name.rename(old)
                _move(made, name)
        except BaseException:
            for (_, name), old, mark in zip(moves, olds, marks, strict=True):
                _take_back(name, old, mark)
            raise
        _discard(olds)

    def _remove(self) -> None:
        _discard([self._folder] if self._folder else self.files)


def _move(made: Path, name: Path) -> None:
    """Give a file or a directory its name, which must be free.

    Raises:
        AlreadyExists: (rule ``exists``) when it is not.
    """
    if os.path.lexists(name):
        raise AlreadyExists("appeared while it was being written", rule="exists", path=name)
    if made.is_dir():
        made.rename(name)
        return
    try:
        os.link(made, name)  # unlike a rename, it never replaces what appeared this very moment
    except FileExistsError:
        raise AlreadyExists(
            "appeared while it was being written", rule="exists", path=name
        ) from None
    except OSError:  # a file system without links
        made.rename(name)
    else:
        made.unlink()


def _take_back(name: Path, old: Path, mark: os.stat_result) -> None:
    """Undo a move that may have happened: `mark` tells whether what has the name is ours."""
    if os.path.lexists(name) and os.path.samestat(name.lstat(), mark):
        _discard([name])
    if os.path.lexists(old):
        old.rename(name)


def _discard(paths: Sequence[Path]) -> None:
    """Remove files, links and whole directories, those that are there."""
    try:
        for path in paths:
            _remove(path)
    except BaseException:  # somebody who is impatient interrupts again
        for path in paths:
            _remove(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _create(path: Path, file: OutputFile) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        reserve(descriptor, file.size)
        for offset, content in file.pieces:
            write_at(descriptor, memoryview(content), offset)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until a file or a directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
