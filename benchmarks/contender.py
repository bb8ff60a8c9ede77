"""What takes part in a case: a function call or a command, measured in a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a timed call gives back.

    Attributes:
        seen: figures that all contenders of a case must agree on, such as how many tensors.
        held: what has to stay in memory until the memory is read.
    """

    seen: dict[str, int]
    held: object = None


Timed = Callable[[], Outcome]
Prepare = Callable[[Path, Path], Timed]
Argv = Callable[[Path, Path], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Contender:
    """One way of doing what a case asks.

    Attributes:
        name: as the tables call it, unique in its case.
        how: the call or the command, as its own documentation has it.
        needs: the distributions that must be installed.
        input: another input than the case's own.
    """

    name: str
    how: str
    needs: tuple[str, ...] = ()
    input: str | None = None

    def missing(self) -> str | None:
        """Return why it cannot take part here, None where it can."""
        absent = [name for name in self.needs if installed(name) is None]
        return f"{', '.join(absent)} is not installed" if absent else None


@dataclass(frozen=True)
class Call(Contender):
    """A function call.

    Attributes:
        prepare: imports the library, which is not timed, and returns the call, which is.
    """

    prepare: Prepare = lambda source, scratch: lambda: Outcome({})


@dataclass(frozen=True)
class Command(Contender):
    """A whole process, or several one after the other, from start to exit.

    Attributes:
        argv: returns the command lines.
    """

    argv: Argv = lambda source, scratch: ()

    def missing(self) -> str | None:
        """Return why it cannot take part here, None where it can."""
        lines = self.argv(Path("source"), Path("scratch"))
        absent = [line[0] for line in lines if shutil.which(line[0]) is None]
        return super().missing() or (f"{absent[0]} is not there" if absent else None)


def installed(distribution: str) -> str | None:
    """Return an installed distribution's version.

    Example:
        >>> installed("there-is-no-such-distribution") is None
        True
    """
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
