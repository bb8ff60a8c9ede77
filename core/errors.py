"""What can go wrong, as values: every rejection names the rule that it breaks.

A message is one line: ``path: tensor 'x': what is wrong (got A, expected B) [rule]; what to do``.
Tests and callers look at the fields, people read the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Error(Exception):
    """The root of all errors that Weighbridge raises on purpose.

    Attributes:
        problem: what is wrong, as a clause without a full stop.
        rule: the broken rule's name in kebab-case, stable across versions.
        path: the file or directory concerned, if there is one.
        tensor: the tensor concerned, under the name that its file gives it.
        got: what was found.
        expected: what would have been right.
        hint: what the user can do.

    Example:
        >>> print(Error("ends too early", rule="truncated", path="a.gguf", got=10, expected=24))
        a.gguf: ends too early (got 10, expected 24) [truncated]
    """

    def __init__(
        self,
        problem: str,
        *,
        rule: str,
        path: str | Path | None = None,
        tensor: str | None = None,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        """Keep every field; see the class for their meaning."""
        super().__init__(problem)
        self.problem = problem
        self.rule = rule
        self.path = None if path is None else str(path)
        self.tensor = tensor
        self.got = got
        self.expected = expected
        self.hint = hint

    def fields(self) -> dict[str, Any]:
        """Return every field by name, the problem first."""
        names = ("problem", "rule", "path", "tensor", "got", "expected", "hint")
        return {name: getattr(self, name) for name in names}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with every field, so that an error can come back from another process."""
        return _restored, (type(self), self.fields())

    def __str__(self) -> str:
        """Return the one line that the command prints."""
        where = [escaped(self.path)] if self.path is not None else []
        if self.tensor is not None:
            where.append(f"tensor '{printable(self.tensor)}'")
        line = ": ".join([*where, escaped(self.problem)])
        compared = [
            f"{word} {printable(value)}"
            for word, value in (("got", self.got), ("expected", self.expected))
            if value is not None
        ]
        if compared:
            line += f" ({', '.join(compared)})"
        line += f" [{self.rule}]"
        return f"{line}; {escaped(self.hint)}" if self.hint else line


def _restored(kind: type[Error], fields: dict[str, Any]) -> Error:
    return kind(fields.pop("problem"), **fields)


def escaped(value: object) -> str:
    r"""Return `value` as text that is safe in one line of a terminal.

    Example:
        >>> escaped("a\nb\x1b[0m")
        'a\\nb\\x1b[0m'
    """
    text = str(value)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def printable(value: object, limit: int = 200) -> str:
    """Return `value` as text that is safe in one line of a terminal, at most `limit` long.

    Example:
        >>> printable("weight", 4)
        'wei…'
    """
    text = escaped(str(value)[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


class InvalidFile(Error, ValueError):
    """A file breaks a rule of its format."""


class InvalidInput(Error, ValueError):
    """An argument or an option that cannot be honoured."""


class NotFound(Error, FileNotFoundError):
    """A file or directory that does not exist."""


class AlreadyExists(Error, FileExistsError):
    """A target that exists and may not be replaced."""


class Unsupported(Error, NotImplementedError):
    """Understood, but not something this library can do: refused by name, never guessed."""


class MissingDependency(Error, ImportError):
    """An optional package is needed; the hint says how to install it."""


class SystemRefusal(Error, OSError):
    """The operating system would not read or write: a full disk, a right that is missing."""


class OutOfMemory(Error, MemoryError):
    """There is no room for a tensor, on the CPU or on a device."""


class InvalidPlan(Error, ValueError):
    """A conversion that cannot be done; `problems` holds every reason at once."""

    def __init__(self, problems: Iterable[Error]) -> None:
        """Keep all `problems`; the first gives the fields."""
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(**first.fields())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with every problem."""
        return InvalidPlan, (self.problems,)

    def __str__(self) -> str:
        """Return one line for each problem."""
        return "\n".join(str(problem) for problem in self.problems)
