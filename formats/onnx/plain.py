"""Initialisers as writers write them: axes, type, name, then the numbers or where they are.

What is of another form, or breaks a rule, is left to `weighbridge.formats.onnx.tensors`, which says
what is wrong with it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from weighbridge.formats.onnx.forms import Forms, beside_entry
from weighbridge.formats.onnx.schema import GraphProto
from weighbridge.protobuf import FEW, Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weighbridge.file import File
    from weighbridge.formats.onnx.forms import Kind
    from weighbridge.formats.onnx.tensors import Source
    from weighbridge.protobuf import Field
    from weighbridge.tensor import Row

_LOCATION = re.compile(rb"j.\n\x08location\x12.([ -~]{1,100})", re.DOTALL)

_DIGITS = 19
"""The most digits of an offset."""

_OFFSETS = [beside_entry("offset", bytes(digits))[:-digits] for digits in range(1, _DIGITS + 1)]
"""What comes before an offset of one digit, of two, and so on."""

_BEFORE_OFFSET = len(_OFFSETS[0])


class Run(NamedTuple):
    """Initialisers one after the other.

    Attributes:
        file: where their numbers are.
        rows: what there is to know of each, by the name that it has in its graph.
    """

    file: File
    rows: list[Row]


class Plain:
    """Finds plain initialisers."""

    def __init__(self, source: Source) -> None:
        """Take the files that their numbers are in."""
        self._source = source
        self._forms = Forms()
        self._files: dict[bytes, File] = {}

    def initialisers(self, graph: Message, scope: str) -> Iterator[Field | Run]:
        """Return the initialisers of a graph: in runs where they are plain, else as fields.

        The other fields are kept in `graph`, so that it is not walked again.

        Args:
            graph: the graph.
            scope: what comes before names in messages.
        """
        return _joined(self._pieces(graph, scope))

    def _pieces(self, graph: Message, scope: str) -> Iterator[Field | Run]:
        others: list[Field] = []
        at = graph.start
        while at < graph.end:
            runs, at = self._read(at, graph.end, scope)
            yield from runs
            field = next(Message(graph.buffer, graph.path, at, graph.end).fields(), None)
            if field is None:
                break
            if field.number in _INITIALISERS:
                yield field
            else:
                field = graph.run(field)
                if len(others) <= FEW:
                    others.append(field)
            at = field.end
        graph.hold(others)

    def _read(self, at: int, end: int, scope: str) -> tuple[list[Run], int]:
        """Return the plain initialisers from `at` on, and where there is something else.

        Between numbers that fill pages, to read some bytes costs less than to map two pages.
        """
        own, form_of = self._source.file, self._forms.form
        descriptor = own.descriptor
        runs = [Run(own, [])]  # and more, of other files
        chunk, begin, reach = b"", at, _WINDOW
        with suppress(UnicodeDecodeError):  # in a name
            while at < end:
                if at + _WINDOW > begin + len(chunk):
                    chunk, begin = os.pread(descriptor, reach, at), at
                head = chunk[at - begin : at - begin + _WINDOW]
                form = form_of(head)
                if form is None or at + form.end > end:
                    break
                kind, first, stop, numbers, length, inside = form
                shape, encoding, nbytes, raw, _ = kind
                file, start, name = own, at + numbers, head[first:stop].decode()
                if not inside or head[stop:numbers] != raw:
                    place = self._elsewhere(kind, head[stop:length], scope + name)
                    if place is None:
                        break
                    file, start = place
                if file is not runs[-1].file:
                    runs.append(Run(file, []))
                runs[-1].rows.append((name, shape, encoding, start, nbytes))
                reach = _CHUNK if length < _WINDOW else _WINDOW
                at += length
        return runs, at

    def _elsewhere(self, kind: Kind, rest: bytes, tensor: str) -> tuple[File, int] | None:
        """Return where the numbers are, as the rest of an initialiser says; None for all else.

        That is the entries ``location``, ``offset`` and ``length``, with texts whose lengths are a
        byte each, and that the numbers are elsewhere.
        """
        end = rest[1] + 2 if len(rest) > 1 else 0
        offset = rest[end : len(rest) - len(kind.beside)]
        digits = offset[_BEFORE_OFFSET:]
        if not (digits.isdigit() and len(digits) <= _DIGITS and rest.endswith(kind.beside)):
            return None
        if not offset.startswith(_OFFSETS[len(digits) - 1]):
            return None
        file, start = self._file(rest[:end], tensor), int(digits)
        return (file, start) if file and start + kind.nbytes <= file.size else None

    def _file(self, location: bytes, tensor: str) -> File | None:
        """Return the file that the entry `location` means."""
        if location not in self._files:
            found = _LOCATION.fullmatch(location)
            if found is None or location != beside_entry("location", found[1]):
                return None
            self._files[location] = self._source.external.file(found[1].decode(), tensor)
        return self._files[location]


def _joined(pieces: Iterable[Field | Run]) -> Iterator[Field | Run]:
    """Make one run of those that follow each other in one file."""
    run: Run | None = None
    for piece in pieces:
        if run and isinstance(piece, Run) and piece.file is run.file:
            run.rows.extend(piece.rows)
            continue
        if run:
            yield run
        run = piece if isinstance(piece, Run) else None
        if not isinstance(piece, Run):
            yield piece
    if run:
        yield run


_WINDOW = 384
"""Bytes that are read at once, more than come before the numbers of a plain initialiser."""

_CHUNK = 1 << 14
"""Bytes that are read at once where initialisers have few."""

_INITIALISERS = (GraphProto.INITIALIZER, GraphProto.SPARSE_INITIALIZER)
