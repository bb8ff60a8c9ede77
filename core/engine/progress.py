"""Who is told how far the work is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from weighbridge.errors import printable

TITLE = 40
"""Columns of a bar's title."""


@dataclass(frozen=True)
class Event:
    """How far the work is.

    Attributes:
        done: bytes written so far.
        total: bytes to write.
        name: the tensor that was worked on last.
    """

    done: int
    total: int
    name: str


Progress = Callable[[Event], None]

FORCING = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Environment variables by which rich takes a pipe for a terminal."""


def silent(event: Event) -> None:
    """Ignore the event."""


@contextmanager
def reporter(progress: bool | Progress, title: str) -> Iterator[Progress]:
    """Give the function that is told: the caller's own, a bar on standard error, or none."""
    if callable(progress):
        yield progress
    elif not progress or not _may_be_terminal():
        yield silent
    else:
        with _bar(title) as bar:
            yield bar


def _may_be_terminal() -> bool:
    """Tell whether a bar can be shown at all: finding that out spares loading what draws it."""
    return sys.stderr.isatty() or any(os.environ.get(name) for name in FORCING)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(printable(title, TITLE), total=None)

        def show(event: Event) -> None:
            bar.update(task, completed=event.done, total=event.total)

        yield show
