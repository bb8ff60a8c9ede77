"""What takes part in a case: a function call or a command, measured in a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple


class Role(StrEnum):
    """What a contender is to a case."""

    OURS = "ours"
    PEER = "peer"
    FLOOR = "floor"


class Outcome(NamedTuple):
    """What a timed call gives back.

    Attributes:
        seen: figures that all contenders of a case must agree on, such as how many tensors;
            ``bytes`` are those of the result.
        held: what has to stay in memory until the memory is read.
        check: more such figures, found when time and memory have been taken.
    """

    seen: dict[str, int]
    held: object = None
    check: Callable[[], dict[str, int]] = dict


Timed = Callable[[], Outcome]
Prepare = Callable[..., Timed]
Argv = Callable[[Path, Path], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Contender:
    """One way of doing what a case asks.

    Attributes:
        name: as the tables call it, unique in its case.
        how: the call or the command, as its own documentation has it.
        needs: the distributions that must be installed.
        input: another input than the case's own.
        role: what it is to the case.
    """

    name: str
    how: str
    needs: tuple[str, ...] = ()
    input: str | None = None
    role: Role = Role.PEER

    def missing(self) -> str | None:
        """Return why it cannot take part here, None where it can."""
        absent = [name for name in self.needs if installed(name) is None]
        return f"{', '.join(absent)} is not installed" if absent else None


@dataclass(frozen=True)
class Call(Contender):
    """A function call.

    Attributes:
        prepare: imports the library, which is not timed, and returns the call, which is.
        options: what `prepare` is given beside the source and a directory to write to; a
            ``device`` other than ``cpu`` must be there.
    """

    prepare: Prepare = lambda source, scratch: lambda: Outcome({})
    options: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Return why it cannot take part here, None where it can."""
        return super().missing() or no_device(self.options.get("device", "cpu"))


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


@cache
def no_device(name: str) -> str | None:
    """Return why there is no such device, None where there is one.

    Example:
        >>> no_device("cpu") is None
        True
    """
    if name == "cpu":
        return None
    if installed("torch") is None:
        return "torch is not installed"
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        return f"there is no device {name}: {str(error).splitlines()[0]}"
    return None
