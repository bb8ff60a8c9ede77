"""Initialisers as writers write them: axes, type, name, then the numbers or where they are.

What is of another form, or breaks a rule, is left to `weighbridge.formats.onnx.tensors`, which says
what is wrong with it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from weighbridge.formats.onnx.forms import HEAD, Forms
from weighbridge.formats.onnx.schema import GraphProto
from weighbridge.protobuf import BYTES, FEW, Message
from weighbridge.tensor import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weighbridge.file import File
    from weighbridge.formats.onnx.forms import Kind
    from weighbridge.formats.onnx.tensors import Source
    from weighbridge.protobuf import Field

_ELSEWHERE = re.compile(
    rb"j.\n\x08location\x12.([ -~]{1,100})"
    rb"j.\n\x06offset\x12.([0-9]{1,19})"
    rb"j.\n\x06length\x12.([0-9]{1,19})p\x01",
    re.DOTALL,
)

_WRITTEN = (
    b"j%c\n\x08location\x12%c%b"
    b"j%c\n\x06offset\x12%c%b"
    b"j%c\n\x06length\x12%c%bp\x01"
)  # fmt: skip
"""Three entries of ``external_data`` and the location, of texts whose lengths are a byte each."""


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
        at, large = graph.start, False
        while at < graph.end:
            if large:
                found, at = self._read(at, graph.end)
                yield found
                large = False
            for field in Message(graph.buffer, graph.path, at, graph.end).fields():
                at = field.end
                if field.number not in _INITIALISERS:
                    other = graph.run(field)
                    at = other.end
                    if len(others) <= FEW:
                        others.append(other)
                    break
                run = self._of_field(graph, field, scope)
                yield run or field
                large = run is not None and field.end - field.start > _LARGE
                if large:
                    break
        graph.hold(others)

    def _read(self, at: int, end: int) -> tuple[Run, int]:
        """Return plain initialisers from `at` on, and where there is something else.

        Between numbers that fill pages, to read some bytes costs less than to map two pages.
        """
        file, rows = self._source.file, list[Row]()
        descriptor, form_of = file.descriptor, self._forms.form
        with suppress(UnicodeDecodeError):  # in a name
            while at < end:
                head = os.pread(descriptor, _WINDOW, at)
                form = form_of(head)
                if form is None:
                    break
                (shape, encoding, nbytes, raw), begin, stop, numbers, length = form
                if head[stop:numbers] != raw or at + length > end:
                    break
                name = head[begin:stop].decode()
                rows.append((name, shape, encoding, at + numbers, nbytes))
                at += length
        return Run(file, rows), at

    def _of_field(self, graph: Message, field: Field, scope: str) -> Run | None:
        """Return an initialiser; None where it is not plain, or not valid."""
        if field.number != GraphProto.INITIALIZER or field.wire != BYTES:
            return None
        head = bytes(graph.buffer[field.start : min(field.end, field.start + _WINDOW)])
        found = HEAD.match(head)
        kind = self._forms.kind(found[1]) if found else None
        if found is None or kind is None:
            return None
        stop = found.end() + found[2][0]
        begin = stop + len(kind.raw)
        name, start = _text(head[found.end() : stop]), field.start + begin
        if name is None:
            return None
        if start + kind.nbytes == field.end and head[stop:begin] == kind.raw:
            return Run(self._source.file, [(name, kind.shape, kind.encoding, start, kind.nbytes)])
        return self._elsewhere(name, kind, head[stop:], scope)

    def _elsewhere(self, name: str, kind: Kind, rest: bytes, scope: str) -> Run | None:
        found = _ELSEWHERE.fullmatch(rest)
        if found is None:
            return None
        location, offset, length = found.groups()
        written = _WRITTEN % (
            len(location) + 12, len(location), location,
            len(offset) + 10, len(offset), offset,
            len(length) + 10, len(length), length,
        )  # fmt: skip
        if rest != written or int(length) != kind.nbytes:
            return None
        file = self._source.external.file(location.decode(), scope + name)
        if int(offset) + kind.nbytes > file.size:
            return None
        return Run(file, [(name, kind.shape, kind.encoding, int(offset), kind.nbytes)])


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


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


_WINDOW = 384
"""Bytes that are read at once, more than come before the numbers of a plain initialiser."""

_LARGE = 4096
"""Bytes of an initialiser behind which the next one is on another page."""

_INITIALISERS = (GraphProto.INITIALIZER, GraphProto.SPARSE_INITIALIZER)
