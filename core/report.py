"""What a conversion has to say before it starts: everything that is wrong, and all that changes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.errors import Error, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Note:
    """Something that the user should know, and that does not stop the conversion.

    Attributes:
        kind: ``dropped``, ``renamed``, ``tied``, ``generated``, ``unpacked``, ``repacked``,
            ``decoded``, ``rounded``, ``weighted`` or ``warning``.
        subject: the tensor, key or file concerned, under the name that the source gives it.
        text: what happens to it and why, as a clause.
    """

    kind: str
    subject: str
    text: str

    def __str__(self) -> str:
        """Return one line."""
        return escaped(f"{self.kind}: {self.subject}: {self.text}")


@dataclass
class Report:
    """Collects problems and notes, so that all are told at once.

    Attributes:
        problems: each stops the conversion.
        notes: none does.

    Example:
        >>> report = Report()
        >>> report.note("dropped", "lm_head.weight", "equal to the embedding")
        >>> print(report.notes[0])
        dropped: lm_head.weight: equal to the embedding
    """

    problems: list[Error] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    _told: set[str] = field(default_factory=set, repr=False)

    def problem(self, error: Error) -> None:
        """Keep a problem; one that two parts of the conversion run into is kept once."""
        if str(error) not in self._told:
            self._told.add(str(error))
            self.problems.append(error)

    def note(self, kind: str, subject: str, text: str) -> None:
        """Keep a note."""
        self.notes.append(Note(kind, subject, text))

    def add(self, other: Report, names: Mapping[str, str]) -> None:
        """Keep what another report has, its tensors under other names where `names` has one.

        Example:
            >>> report, told = Report(), Report()
            >>> told.note("dropped", "bert.pooler.bias", "no place")
            >>> report.add(told, {"bert.pooler.bias": "pooler.bias"})
            >>> report.notes[0].subject
            'pooler.bias'
        """
        for note in other.notes:
            self.note(note.kind, names.get(note.subject, note.subject), note.text)
        for problem in other.problems:
            if problem.tensor is not None:
                problem.tensor = names.get(problem.tensor, problem.tensor)
            self.problem(problem)

    @contextmanager
    def collect(self, tensor: str | None = None) -> Iterator[None]:
        """Keep an error that is raised inside as a problem, and go on after the block.

        Args:
            tensor: the tensor that it is about, where it does not say.
        """
        try:
            yield
        except Error as error:
            error.tensor = tensor if error.tensor is None else error.tensor
            self.problem(error)
