"""Reading key-values: typed, in one walk, and without decoding what nobody looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from weighbridge.formats.gguf.strings import skip_strings
from weighbridge.formats.gguf.types import (
    CODES,
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_KEY,
    MAX_NESTED,
    VALUE_TYPES,
)
from weighbridge.metadata import LazyStrings, Scalar, Value, array, scalar, string

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.checked import Reader

_SMALLEST_PAIR = 14
"""Bytes in a key of one letter with a value of one byte."""

_SMALLEST_ARRAY = 12
"""Bytes in an empty array."""

_LONG_TEXT = 4096
"""Strings of more bytes than this wait until they are looked at: whole JSON files are kept so."""


class Numbers(Sequence[Scalar]):
    """The numbers of an array, in the file until they are looked at.

    Items are Python's own numbers; `numpy.asarray` gives all of them without a copy.

    Example:
        >>> numbers = Numbers(np.array([1, 2, 3], ">u2"))
        >>> numbers[1], numbers[1:], len(numbers)
        (2, [2, 3], 3)
    """

    def __init__(self, array: NDArray[Any]) -> None:
        """Keep a view of the file."""
        self.array = array

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> Scalar: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scalar]: ...
    def __getitem__(self, index: int | slice) -> Scalar | list[Scalar]:
        """Return one item, or a list of those of a slice."""
        found: Scalar | list[Scalar] = self.array[index].tolist()
        return found

    def __iter__(self) -> Iterator[Scalar]:
        """Yield the items."""
        return iter(self.array.tolist())

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Return the items as an array, read-only where it is the file's own bytes."""
        return np.array(self.array, dtype, copy=copy)


class KeyValues(Mapping[str, Value]):
    """The key-values of a file, in its order; a long string is decoded when it is first asked for.

    Example:
        >>> KeyValues({"a": LazyStrings(memoryview(b"text"), [0], [4])})["a"].plain()
        'text'
    """

    def __init__(self, entries: dict[str, Value | LazyStrings]) -> None:
        """Keep the entries: values, and strings that are not decoded yet."""
        self._entries = entries

    def __getitem__(self, key: str) -> Value:
        """Return the value of a key."""
        entry = self._entries[key]
        if isinstance(entry, LazyStrings):
            entry = self._entries[key] = string(entry[0])
        return entry

    def __iter__(self) -> Iterator[str]:
        """Yield the keys."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._entries)

    def __or__(self, other: KeyValues) -> KeyValues:
        """Return both, with the values of `other` where a key is in both."""
        return KeyValues(self._entries | other._entries)

    def without(self, prefix: str) -> KeyValues:
        """Return the key-values whose keys do not begin with `prefix`."""
        return KeyValues({k: v for k, v in self._entries.items() if not k.startswith(prefix)})


def read_key_values(reader: Reader, count: int, behind: int) -> KeyValues:
    """Read `count` pairs of a key and a value; `behind` bytes of the header follow at the least.

    Raises:
        InvalidFile: when one is not what the specification allows; rules ``truncated``, ``count``,
            ``utf-8``, ``key-length``, ``duplicate-key``, ``unknown-value-type``, ``bool`` and
            ``nesting``.
    """
    if count * _SMALLEST_PAIR > reader.remaining:
        reader.fail("there are more key-values than the file can hold", "count", got=count)
    entries: dict[str, Value | LazyStrings] = {}
    walk = _Walk(reader, behind)
    for _ in range(count):
        key = reader.text("Q")
        if not 0 < len(key.encode()) <= MAX_KEY:
            reader.fail(
                "a key is empty or too long", "key-length", got=len(key), expected=f"1 to {MAX_KEY}"
            )
        if key in entries:
            reader.fail("a key appears twice", "duplicate-key", got=key)
        entries[key] = walk.value()
    return KeyValues(entries)


class _Walk:
    """Reads values one after the other.

    Attributes:
        behind: how many bytes of the header follow the last value at the least.
        nested: how many arrays have been found inside of others so far.
    """

    def __init__(self, reader: Reader, behind: int) -> None:
        self.reader = reader
        self.behind = behind
        self.nested = 0

    def value(self) -> Value | LazyStrings:
        type = self.type()
        if type == "array":
            return self.array(1)
        if type == "string":
            return self.text()
        return scalar(type, self.bool() if type == "bool" else self.reader.number(CODES[type]))

    def type(self) -> str:
        number = self.reader.integer("I")
        if number not in VALUE_TYPES:
            self.reader.fail(
                "a value has an unknown type", "unknown-value-type", got=number, expected="0 to 12"
            )
        return VALUE_TYPES[number]

    def bool(self) -> bool:
        number = self.reader.integer("B")
        if number > 1:
            self.reader.fail("a bool is neither 0 nor 1", "bool", got=number)
        return bool(number)

    def text(self) -> Value | LazyStrings:
        length = self.reader.count("Q", 1)
        start = self.reader.offset
        raw = self.reader.take(length)
        if length > _LONG_TEXT:
            return LazyStrings(self.reader.buffer, [start], [length])
        return string(str(raw, "utf-8", "surrogateescape"))

    def array(self, depth: int) -> Value:
        items = self.type()
        if items == "array":
            return array(items, self.arrays(depth + 1))
        if items == "string":
            count = self.reader.count("Q", 8)
            return array(items, skip_strings(self.reader, count, self.behind))
        return array(items, self.numbers(items))

    def arrays(self, depth: int) -> tuple[Value, ...]:
        count = self.reader.count("Q", _SMALLEST_ARRAY)
        self.nested += count
        if depth > MAX_DEPTH or self.nested > MAX_NESTED:
            self.reader.fail(
                "too many arrays inside of arrays",
                "nesting",
                got=f"{self.nested} arrays, {depth} deep",
                expected=f"at most {MAX_NESTED} arrays, {MAX_DEPTH} deep",
            )
        return tuple(self.array(depth) for _ in range(count))

    def numbers(self, items: str) -> Numbers:
        dtype = np.dtype(self.reader.order + CODES[items])
        count = self.reader.count("Q", dtype.itemsize)
        if count > MAX_ITEMS:
            self.reader.fail("an array is too long", "count", got=count, expected=MAX_ITEMS)
        raw = self.reader.take(count * dtype.itemsize)
        if items == "bool" and count and np.frombuffer(raw, np.uint8).max() > 1:
            self.reader.fail("a bool is neither 0 nor 1", "bool")
        return Numbers(np.frombuffer(raw, dtype))
