"""A conversion as data: what will be written, by which route, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from weighbridge.errors import Error, InvalidPlan, escaped, printable
from weighbridge.ops import Applied
from weighbridge.rearranged import Rearranged
from weighbridge.recode import Recoded
from weighbridge.sizes import human
from weighbridge.tensor import Extent, Lazy, Tensor
from weighbridge.text import columns, counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from weighbridge.engine.progress import Progress
    from weighbridge.engine.write import Result
    from weighbridge.layout import Layout, Slot
    from weighbridge.model import Model
    from weighbridge.report import Note

SHOWN_FILES = 12
"""Files that the text of a plan names one by one."""


class Route(StrEnum):
    """How a tensor gets from its source to its target; the first three lose nothing.

    ``copy``: the same encoding, no operation: the kernel copies the byte range. ``move``: the same
    encoding, and operations that move whole grains. ``repack``: two encodings of the same numbers.
    ``decode``: decode, operations, encode.
    """

    COPY = "copy"
    MOVE = "move"
    REPACK = "repack"
    DECODE = "decode"


def route_of(tensor: Lazy) -> Route:
    """Return the route of a tensor, from the tensor alone.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> route_of(from_array("x", np.zeros(2, np.float32))).value
        'copy'
    """
    if isinstance(tensor, Tensor):
        foreign = any(isinstance(p, Extent) and p.order != "<" for p in tensor.parts.values())
        return Route.MOVE if foreign else Route.COPY
    if isinstance(tensor, Rearranged):
        return Route.REPACK if tensor.exact else Route.DECODE
    if isinstance(tensor, Recoded):
        return Route.REPACK if _only_moves(tensor.inner) and _same_numbers(tensor) else Route.DECODE
    return Route.MOVE if _only_moves(tensor) else Route.DECODE


def _only_moves(tensor: Lazy) -> bool:
    if not isinstance(tensor, Applied):
        return isinstance(tensor, Tensor)
    moves = tensor.op.run([source.shape for source in tensor.inputs]) is not None
    packed = all(source.encoding == tensor.encoding for source in tensor.inputs)
    return moves and packed and all(map(_only_moves, tensor.inputs))


def _same_numbers(tensor: Recoded) -> bool:
    from weighbridge import kernels  # keeps planning free of the codecs where nothing is recoded

    return tensor.exact or kernels.lossless(tensor.inner.encoding, tensor.encoding)


@dataclass(frozen=True)
class Step:
    """One tensor of the target.

    Attributes:
        name: its name in the target.
        tensor: where it comes from, in the encoding that the target has.
        slots: where each part goes.
    """

    name: str
    tensor: Lazy
    slots: Mapping[str, Slot]

    @cached_property
    def route(self) -> Route:
        """How it gets there."""
        return route_of(self.tensor)

    @property
    def read_bytes(self) -> int:
        """The stored bytes that it is made from."""
        return sum(leaf.nbytes for leaf in self.tensor.leaves())

    @property
    def written_bytes(self) -> int:
        """The bytes that it has in the target."""
        return self.tensor.nbytes

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the stored tensors that it is made from."""
        return tuple(leaf.name for leaf in self.tensor.leaves())


@dataclass
class Plan:
    """What a conversion will do; printing it is the dry run, `run` does it.

    Attributes:
        source: the opened model.
        target: the file or directory to be written.
        format: the target's format by name.
        directory: whether the target is a directory.
        replaces: the files and directories that the target takes the place of.
        model: what is written, in the target's dialect.
        layout: the target's files; None where problems leave no layout.
        steps: one for each tensor of the target.
        problems: all that is wrong; a plan with a problem does not run.
        notes: what is dropped, tied, generated or rounded.
    """

    source: Model
    target: Path
    format: str
    directory: bool
    replaces: frozenset[Path]
    model: Model
    layout: Layout | None
    steps: tuple[Step, ...]
    problems: tuple[Error, ...]
    notes: tuple[Note, ...]

    @property
    def read_bytes(self) -> int:
        """The bytes of weights to read."""
        return sum(step.read_bytes for step in self.steps)

    @property
    def written_bytes(self) -> int:
        """The bytes to write, headers included."""
        return sum(file.size for file in self.layout.files) if self.layout else 0

    def check(self) -> None:
        """Raise what is wrong.

        Raises:
            InvalidPlan: with every problem.
        """
        if self.problems:
            raise InvalidPlan(self.problems)

    def run(
        self,
        *,
        memory: int | str | None = None,
        threads: int | None = None,
        executor: Executor | None = None,
        progress: bool | Progress = False,
    ) -> Result:
        """Write the target: it appears when it is complete and synced, or not at all.

        Args:
            memory: the most memory that the process may have resident, in bytes or as ``"1GB"``;
                None allows 1 GB beside what it has already.
            threads: how many threads work; None takes one for each core.
            executor: runs the pieces of work elsewhere, such as a process pool or the executor of
                a Dask cluster that sees the same file system.
            progress: True shows a bar on standard error; a function is told of every piece.

        Raises:
            InvalidPlan: when the plan has problems.
            AlreadyExists: (rule ``exists``) when something appeared where the target is to be.
            InvalidFile: (rule ``changed`` or ``truncated``) when the source has changed.
            SystemRefusal: (rule ``disk-full``, ``system`` or ``worker``) when the system will not
                go on.
        """
        from weighbridge.engine.write import write

        return write(self, memory=memory, threads=threads, executor=executor, progress=progress)

    def routes(self) -> list[tuple[str, str, str, int, int]]:
        """Return (route, from, to, tensors, bytes written) for each kind, the largest first."""
        count: Counter[tuple[str, str, str]] = Counter()
        size: Counter[tuple[str, str, str]] = Counter()
        for step in self.steps:
            sources = sorted({str(leaf.encoding) for leaf in step.tensor.leaves()})
            kind = (str(step.route), "+".join(sources), str(step.tensor.encoding))
            count[kind] += 1
            size[kind] += step.written_bytes
        return [(*kind, count[kind], total) for kind, total in size.most_common()]

    def __str__(self) -> str:
        """Return the plan as text: files, routes, notes, problems."""
        source = f"{escaped(self.source.path or 'memory')} ({self.source.format})"
        return "\n".join(
            [
                f"{source} -> {escaped(self.target)} ({self.format})",
                *(f"  {line}" for line in columns(self._rows(), right=[2])),
                *(f"  {note}" for note in self.notes),
                *(f"  problem: {problem}" for problem in self.problems),
            ]
        )

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield a line for each file, or each of the largest, and for each kind of tensor."""
        files = self.layout.files if self.layout else ()
        if len(files) > SHOWN_FILES:
            files = tuple(sorted(files, key=lambda file: -file.size))
        for file in files[:SHOWN_FILES]:
            yield "write", printable(file.name), human(file.size)
        rest = files[SHOWN_FILES:]
        if rest:
            yield "write", f"{counted(len(rest), 'more file')}", human(sum(f.size for f in rest))
        for route, source, stored, tensors, size in self.routes():
            change = source if stored == source else f"{source} -> {stored}"
            yield route, f"{counted(tensors, 'tensor')}, {change}", human(size)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON would hold it; the keys are stable across versions."""
        return {
            "source": {"path": str(self.source.path), "format": self.source.format},
            "target": {"path": str(self.target), "format": self.format},
            "read_bytes": self.read_bytes,
            "written_bytes": self.written_bytes,
            "files": [
                {"name": file.name, "size": file.size}
                for file in (self.layout.files if self.layout else ())
            ],
            "steps": [
                {
                    "name": step.name,
                    "shape": list(step.tensor.shape),
                    "encoding": step.tensor.encoding.name,
                    "route": str(step.route),
                    "sources": list(step.sources),
                    "bytes": step.written_bytes,
                }
                for step in self.steps
            ],
            "notes": [vars(note) for note in self.notes],
            "problems": [problem_json(problem) for problem in self.problems],
        }


def problem_json(problem: Error) -> dict[str, Any]:
    """Return an error's fields as JSON would hold them."""
    return {name: None if value is None else str(value) for name, value in problem.fields().items()}
