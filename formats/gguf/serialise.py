"""Key-values as bytes, version 3, little-endian."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from weighbridge.errors import InvalidInput
from weighbridge.formats.gguf.types import CODES, MAX_KEY, VALUE_IDS
from weighbridge.formats.gguf.values import Numbers
from weighbridge.metadata import LazyStrings, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

_length = struct.Struct("<Q").pack
_PREFIX = 8


def label(data: str) -> bytes:
    r"""Return a key or a name behind its length.

    Raises:
        InvalidInput: (rule ``utf-8``) for one that is no text.

    Example:
        >>> label("a")
        b'\x01\x00\x00\x00\x00\x00\x00\x00a'
    """
    raw = _encoded(data, "strict")
    return _length(len(raw)) + raw


def text(data: str) -> bytes:
    r"""Return a value behind its length; what was no UTF-8 when it was read stays as it was.

    Raises:
        InvalidInput: (rule ``utf-8``) for characters that no file can hold.

    Example:
        >>> text("\udcff")
        b'\x01\x00\x00\x00\x00\x00\x00\x00\xff'
    """
    raw = _encoded(data)
    return _length(len(raw)) + raw


def key_value(key: str, value: Value) -> bytes:
    """Return a key, the type of its value and the value.

    Raises:
        InvalidInput: when the value cannot be of its type; rules ``key-length``, ``utf-8``,
            ``value-type`` and ``value-range``.
    """
    name = label(key)
    if not 0 < len(name) - _PREFIX <= MAX_KEY:
        raise InvalidInput(
            "a key is empty or too long",
            rule="key-length",
            got=f"{len(name) - _PREFIX} bytes",
            expected=f"1 to {MAX_KEY}",
        )
    try:
        return name + _type(value.type) + _data(value)
    except (struct.error, OverflowError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"the value of '{key}' does not fit its type {value.items or value.type}: {error}",
            rule="value-range",
        ) from None


def _type(name: str | None) -> bytes:
    if name is None or name not in VALUE_IDS:
        raise InvalidInput(
            "there is no such type of value",
            rule="value-type",
            got=name,
            expected=f"one of {', '.join(VALUE_IDS)}",
        )
    return struct.pack("<I", VALUE_IDS[name])


def _data(value: Value) -> bytes:
    data: Any = value.data
    if value.type == "array":
        return _array(value.items, data)
    if value.type == "string":
        return text(data)
    return _numbers(value.type, [data])


def _array(items: str | None, data: Any) -> bytes:
    head = _type(items) + _length(len(data))
    if items == "array":
        return head + b"".join(_array(value.items, value.data) for value in data)
    return head + (_strings(data) if items == "string" else _numbers(str(items), data))


def _numbers(type: str, data: Sequence[Any]) -> bytes:
    code = CODES[type]
    array = data.array if isinstance(data, Numbers) else data
    if isinstance(array, np.ndarray) and array.dtype.newbyteorder("<") == np.dtype("<" + code):
        return array.astype("<" + code, copy=False).tobytes()
    if type == "bool" and not all(item in (0, 1) for item in data):
        raise TypeError("a bool is True or False")
    return struct.pack(f"<{len(data)}{code}", *data)


def _strings(data: Sequence[str]) -> bytes:
    """Return strings behind their lengths; those of a file as they are in it."""
    if isinstance(data, LazyStrings):
        whole = _in_one_piece(data)
        raws = (data.raw(i) for i in range(len(data)))
    else:
        whole = _all_at_once(data)
        raws = (_encoded(item) for item in data)
    return b"".join(_length(len(raw)) + raw for raw in raws) if whole is None else whole


def _all_at_once(strings: Sequence[str]) -> bytes | None:
    """Return strings behind their lengths, if none of them holds a zero.

    They are encoded together, with a zero before each, which is then widened to a length.
    """
    encoded = _encoded("\0".join(["", *strings]))
    together = np.frombuffer(encoded, np.uint8)
    zeros = (together == 0).nonzero()[0]
    if len(zeros) != len(strings) or not len(zeros):
        return None
    widths = np.ones(len(together), np.int8)
    widths[zeros] = _PREFIX
    written = np.repeat(together, widths)
    lengths = np.diff(zeros, append=len(together)) - 1
    places = zeros + (_PREFIX - 1) * np.arange(len(zeros))
    prefixes = lengths.astype("<u8").view(np.uint8).reshape(-1, _PREFIX)
    sliding_window_view(written, _PREFIX, writeable=True)[places] = prefixes
    return written.tobytes()


def _in_one_piece(strings: LazyStrings) -> bytes | None:
    """Return the bytes of an array as they are in its file, if they can be copied to another one.

    They can where each string follows the one before and every length is little-endian.
    """
    offsets, lengths = strings.offsets, strings.lengths
    if not len(offsets):
        return b""
    begin, end = int(offsets[0]) - _PREFIX, int(offsets[-1] + lengths[-1])
    if begin < 0 or not np.array_equal(offsets[1:], offsets[:-1] + lengths[:-1] + _PREFIX):
        return None
    whole = np.frombuffer(strings.buffer, np.uint8, end - begin, begin)
    prefixes = sliding_window_view(whole, _PREFIX)[offsets - offsets[0]]
    in_order = np.array_equal(prefixes.view("<u8")[:, 0], lengths)
    return whole.tobytes() if in_order else None


def _encoded(data: str, errors: str = "surrogateescape") -> bytes:
    try:
        return data.encode("utf-8", errors)
    except UnicodeEncodeError:
        raise InvalidInput("a string cannot be UTF-8", rule="utf-8", got=ascii(data[:40])) from None
