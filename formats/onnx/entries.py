"""A key and its value: what metadata and the addresses of external data are made of.

Source: ``onnx.proto``, message ``StringStringEntryProto``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.formats.onnx.schema import Entry
from weighbridge.protobuf import BYTES, bytes_field

if TYPE_CHECKING:
    from weighbridge.protobuf import Field, Message

_LONGEST = 256
"""The bytes of an entry that may have its key and its value in their plain form."""

_KEY, _VALUE = (number << 3 | BYTES for number in (Entry.KEY, Entry.VALUE))


def entry(key: str | bytes, value: bytes) -> bytes:
    r"""Return an entry, as a message.

    Example:
        >>> entry("k", b"v")
        b'\n\x01k\x12\x01v'
    """
    return bytes_field(Entry.KEY, key) + bytes_field(Entry.VALUE, value)


def key_value(owner: Message, field: Field) -> tuple[str, str]:
    r"""Return the key and the value that a field holds; one that is missing is empty.

    Raises:
        InvalidFile: (rules ``wire-type``, ``duplicate-field``, ``utf-8`` and those of
            `Message.fields`).

    Example:
        >>> from weighbridge.protobuf import Message
        >>> message = Message(memoryview(b"\x0a\x06\x0a\x01k\x12\x01v"), "x")
        >>> key_value(message, next(iter(message)))
        ('k', 'v')
    """
    if field.wire == BYTES and field.end - field.start <= _LONGEST:
        found = _plain(bytes(owner.buffer[field.start : field.end]))
        if found is not None:
            return found
    texts = owner.message(field).texts(Entry.SINGLES)
    return texts.get("key", ""), texts.get("value", "")


def _plain(raw: bytes) -> tuple[str, str] | None:
    """Return both texts where they are ASCII, short and in order, as every writer has them.

    A model has three of them for each tensor beside it: this takes a quarter of the time.
    """
    split = 2 + raw[1] if len(raw) > 3 else len(raw)
    if split + 1 >= len(raw) or raw[0] != _KEY or raw[split] != _VALUE or not raw.isascii():
        return None
    if raw[split + 1] != len(raw) - split - 2:
        return None
    return raw[2:split].decode(), raw[split + 2 :].decode()
