"""What a target may replace, and what it must leave alone."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from weighbridge.errors import AlreadyExists, InvalidInput, NotFound, Unsupported
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weighbridge.layout import Layout
    from weighbridge.model import Model


def existing(target: Path, layout: Layout, *, directory: bool) -> frozenset[Path]:
    """Return what is there already where a target is to be; a link counts, whatever it points to.

    Args:
        target: a file, or a directory.
        layout: the files to be written.
        directory: whether `target` is a directory of these files, or the first of them.

    Returns:
        Absolute paths: the target and, of a directory, every file beneath it.
    """
    place = target.absolute()
    if directory:
        beneath = (path for path in place.rglob("*") if path.is_symlink() or not path.is_dir())
        return frozenset([place, *beneath] if os.path.lexists(place) else [])
    names = (place, *(place.parent / file.name for file in layout.files))
    return frozenset(path for path in names if os.path.lexists(path))


def check_place(target: Path) -> None:
    """Refuse a target where nothing can be made.

    Raises:
        NotFound: (rule ``not-found``) when there is no such directory to write in.
        InvalidInput: (rule ``not-writable``) when it may not be written to.
    """
    parent = target.absolute().parent
    if not parent.is_dir():
        raise NotFound("its directory does not exist", rule="not-found", path=target)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InvalidInput("its directory is not writable", rule="not-writable", path=target)


def check_names(layout: Layout, *, directory: bool) -> None:
    """Refuse names that lead out of the target, or that two files have.

    Args:
        layout: the files to be written.
        directory: whether they are in a directory of their own, and so may be in others therein.

    Raises:
        Unsupported: (rule ``file-name``) naming the first of them.
    """
    seen: set[PurePosixPath] = set()
    for name in (file.name for file in layout.files):
        path = PurePosixPath(name)
        plain = str(path) == name and not {".", "..", "/"} & set(path.parts) and "\0" not in name
        if not plain or not path.parts or (len(path.parts) > 1 and not directory):
            raise Unsupported("a file cannot have this name", rule="file-name", got=name)
        if path in seen:
            raise Unsupported("two files would have this name", rule="file-name", got=name)
        seen.add(path)
    for path in seen:
        if not seen.isdisjoint(path.parents):
            raise Unsupported("is a file and a directory", rule="file-name", got=path.parent)


def check_source(target: Path, layout: Layout, source: Model, *, directory: bool) -> None:
    """Refuse to write where the source is: what went wrong could not be undone.

    Raises:
        InvalidInput: (rule ``same-file``) for the source, a part of it, or a directory that holds
            it, under whatever name.
    """
    known = {file.identity for file in source.resources}
    found = (source.path is not None and directory) and _holds(target, source.path)
    for path in existing(target, layout, directory=directory):
        with suppress(OSError):
            status = path.stat()
            found = found or (status.st_dev, status.st_ino) in known
    if found:
        raise InvalidInput(
            "is what is to be converted, or a part of it",
            rule="same-file",
            path=target,
            hint="write to another place",
        )


def _holds(directory: Path, path: Path) -> bool:
    place, inner = directory.resolve(), path.resolve()
    return place == inner or place in inner.parents


def check_replaceable(
    target: Path, layout: Layout, *, directory: bool, overwrite: bool, endings: Sequence[str]
) -> frozenset[Path]:
    """Return what the target replaces; refuse to replace what should not be.

    Args:
        target: a file, or a directory.
        layout: the files to be written.
        directory: whether the target is a directory.
        overwrite: whether anything may be replaced.
        endings: of the files in a directory that may go although they are not written anew.

    Raises:
        AlreadyExists: (rule ``exists``) for what may not be replaced, (rule ``foreign-files``) for
            a directory with a file that would be lost.
    """
    present = existing(target, layout, directory=directory)
    place = target.absolute()
    for path in sorted(present):
        if not overwrite:
            raise AlreadyExists(
                "already exists",
                rule="exists",
                path=target if path == place else path,
                hint="use --overwrite to replace it",
            )
        if path.is_dir() != (directory and path == place) and not path.is_symlink():
            kind = "a directory" if path.is_dir() else "not a directory"
            raise AlreadyExists(f"exists, and is {kind}", rule="exists", path=path)
    if directory:
        _check_foreign(target, present, layout, tuple(endings))
    return present


def _check_foreign(
    target: Path, present: frozenset[Path], layout: Layout, endings: tuple[str, ...]
) -> None:
    """Refuse to replace a directory that holds more than what is written anew, and weights."""
    place = target.absolute()
    ours = {place / file.name for file in layout.files} | {place}
    for path in sorted(present - ours):
        if not path.name.endswith(endings):
            raise AlreadyExists(
                "replacing the directory would lose a file that is not written anew",
                rule="foreign-files",
                path=target,
                got=path.relative_to(place),
                hint="move it, or choose another directory",
            )


def check_appeared(
    target: Path, layout: Layout, replaces: frozenset[Path], *, directory: bool
) -> None:
    """Refuse to replace what was not there when the plan was made.

    Raises:
        AlreadyExists: (rule ``exists``) naming it.
    """
    for path in sorted(existing(target, layout, directory=directory) - replaces):
        raise AlreadyExists("appeared after the plan was made", rule="exists", path=path)


def check_space(target: Path, layout: Layout) -> None:
    """Refuse to start what the disk has no room for.

    Raises:
        InvalidInput: (rule ``disk-space``) when the target's file system is too full.
    """
    needed = sum(file.size for file in layout.files)
    free = shutil.disk_usage(target.absolute().parent).free
    if needed > free:
        raise InvalidInput(
            "the disk has no room for it",
            rule="disk-space",
            path=target,
            got=f"{human(free)} free",
            expected=human(needed),
        )
