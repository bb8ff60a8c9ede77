"""Typed key-values: what a file says beside its tensors, kept verbatim and with its types.

A u32 is not an i32, an empty string and an empty array survive, and a long array of strings stays
in its file until somebody looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Scalar = int | float | bool | str
Plain = Scalar | list["Plain"]

INTEGERS: Mapping[str, range] = {
    f"{sign}{bits}": range(-(1 << bits - 1), 1 << bits - 1) if sign == "i" else range(1 << bits)
    for sign in "ui"
    for bits in (8, 16, 32, 64)
}
"""The integer types and the values that each can hold."""

TYPES = (*INTEGERS, "f32", "f64", "bool", "string", "array")
"""Every type that a value may have; the names are those of the GGUF specification, shortened."""


@dataclass(frozen=True)
class Value:
    """One value with its type.

    Attributes:
        type: one of `TYPES`.
        data: an int, float, bool or str; for ``array`` a sequence of plain items (of `Value`
            where the items are arrays themselves). Long sequences may be lazy: indexing and
            iterating read from the file.
        items: the type of an array's items, None for a scalar.

    Example:
        >>> Value("u32", 7).plain(), Value("array", ("a", "b"), items="string").plain()
        (7, ['a', 'b'])
    """

    type: str
    data: Scalar | Sequence[Scalar] | Sequence[Value]
    items: str | None = None

    def plain(self) -> Plain:
        """Return the value as JSON would hold it."""
        if self.type != "array":
            return self.data  # type: ignore[return-value]
        if self.items != "array":
            return list(self.data)  # type: ignore[arg-type]
        return [v.plain() for v in self.data]  # type: ignore[union-attr]


Metadata = Mapping[str, Value]


def scalar(type: str, data: Scalar) -> Value:
    """Return a scalar value.

    Example:
        >>> scalar("f32", 0.5)
        Value(type='f32', data=0.5, items=None)
    """
    return Value(type, data)


def string(data: str) -> Value:
    """Return a string value."""
    return Value("string", data)


def array(items: str, data: Sequence[Scalar] | Sequence[Value]) -> Value:
    """Return an array value whose items have the type `items`.

    Example:
        >>> array("u32", [1, 2]).plain()
        [1, 2]
    """
    return Value("array", data, items)


class LazyStrings(Sequence[str]):
    """Strings that lie length-prefixed in a buffer and are decoded when they are looked at.

    Attributes:
        buffer: the bytes of the file.
        offsets: where each string's first byte is; shape (n,), int64.
        lengths: how many bytes each string has; shape (n,), int64.
    """

    def __init__(self, buffer: memoryview, offsets: ArrayLike, lengths: ArrayLike) -> None:
        """Keep the addresses; nothing is decoded."""
        self.buffer = buffer
        self.offsets: NDArray[np.int64] = np.asarray(offsets, np.int64)
        self.lengths: NDArray[np.int64] = np.asarray(lengths, np.int64)

    def __len__(self) -> int:
        """Return the number of strings."""
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Decode one string, or those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.raw(index).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        """Decode them one by one."""
        buffer = self.buffer
        for start, length in zip(self.offsets.tolist(), self.lengths.tolist(), strict=True):
            yield str(buffer[start : start + length], "utf-8", "surrogateescape")

    def raw(self, index: int) -> bytes:
        """Return one string's bytes as they are in the file."""
        start = int(self.offsets[index])
        return bytes(self.buffer[start : start + int(self.lengths[index])])
