"""Bounded reads for untrusted headers: every parser uses them, nothing else slices a header.

A number from a file is never cast, added, multiplied or used as an index bare.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NoReturn

from weighbridge.errors import InvalidFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LIMIT = (1 << 63) - 1
"""The largest size or offset that is ever believed: what a file system can address."""

MAX_DIMENSIONS = 64
"""The most axes that a tensor may have: NumPy's own limit."""


MAX_VALUES = LIMIT // 16
"""The longest that the axes of an empty tensor may be together: NumPy's limit, 16 bytes each."""


def product(factors: Iterable[int], *, path: Path | str, tensor: str | None = None) -> int:
    """Return the product of a shape's axes.

    Raises:
        InvalidFile: (rule ``shape-overflow``) for a negative axis, for a product over `LIMIT`, and
            for one over `MAX_VALUES` of the axes beside one of length 0.

    Example:
        >>> product([2, 3], path="x")
        6
    """
    total = 1
    most = LIMIT
    for factor in factors:
        most = MAX_VALUES if factor == 0 else most
        total *= factor or 1
        if factor < 0 or total > most:
            raise InvalidFile(
                "the shape is not one that memory can hold",
                rule="shape-overflow",
                path=path,
                tensor=tensor,
            )
    return total if most == LIMIT else 0


class Reader:
    r"""A cursor over the bytes of an untrusted header.

    Attributes:
        buffer: the bytes, usually a view of a whole file.
        path: the file's path, for messages.
        offset: where the next read starts.
        order: ``<`` for little-endian numbers, ``>`` for big-endian ones.

    Example:
        >>> Reader(memoryview(b"\x02\0\0\0hi"), "x").text("I")
        'hi'
    """

    def __init__(
        self, buffer: memoryview, path: Path | str, offset: int = 0, order: str = "<"
    ) -> None:
        """Start at `offset`."""
        self.buffer = buffer
        self.path = path
        self.offset = offset
        self.order = order

    @property
    def remaining(self) -> int:
        """The bytes from the cursor to the end."""
        return len(self.buffer) - self.offset

    def take(self, length: int) -> memoryview:
        """Return the next `length` bytes.

        Raises:
            InvalidFile: (rule ``truncated``) when the buffer ends before.
        """
        start = self._skip(length)
        return self.buffer[start : self.offset]

    def _skip(self, length: int) -> int:
        """Move behind `length` bytes and return where they begin."""
        start = self.offset
        if length < 0 or start + length > len(self.buffer):
            self.fail(
                "the file ends inside its header",
                "truncated",
                got=f"{len(self.buffer)} bytes",
                expected=f"at least {start + length} bytes",
            )
        self.offset = start + length
        return start

    def number(self, code: str) -> int | float | bool:
        """Return the next number; `code` is its `struct` letter."""
        value: int | float | bool = self.numbers(code)[0]
        return value

    def numbers(self, codes: str) -> tuple[Any, ...]:
        """Return the next numbers, which follow each other without gaps.

        Args:
            codes: their `struct` letters.

        Example:
            >>> Reader(memoryview(bytes([1, 0, 2])), "x").numbers("HB")
            (1, 2)
        """
        layout = self.order + codes
        return struct.unpack_from(layout, self.buffer, self._skip(struct.calcsize(layout)))

    def integer(self, code: str) -> int:
        """Return the next integer; `code` is its `struct` letter."""
        return int(self.numbers(code)[0])

    def count(self, code: str, smallest: int) -> int:
        """Return the next integer as a number of items of at least `smallest` bytes each.

        Raises:
            InvalidFile: (rule ``count``) when so many items cannot follow in what remains.
        """
        count = self.integer(code)
        if count < 0 or count * smallest > len(self.buffer) - self.offset:
            self.fail(
                "a count is larger than the rest of the file",
                "count",
                got=count,
                expected=f"at most {self.remaining // smallest}",
            )
        return count

    def text(self, code: str) -> str:
        """Return the next string, prefixed by its length in bytes.

        Raises:
            InvalidFile: (rule ``utf-8``) when it is not text.
        """
        start = self._skip(self.count(code, 1))
        raw = self.buffer[start : self.offset]
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            self.fail("a string is not UTF-8", "utf-8", got=bytes(raw[:40]))

    def fail(
        self, problem: str, rule: str, *, got: object = None, expected: object = None
    ) -> NoReturn:
        """Reject the file.

        Raises:
            InvalidFile: always, with `rule`.
        """
        raise InvalidFile(
            f"{problem} at byte {self.offset}",
            rule=rule,
            path=self.path,
            got=got,
            expected=expected,
        )
