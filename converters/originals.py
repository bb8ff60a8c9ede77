"""``weighbridge.original.*``: what weights were whose bits GGUF's numbers do not give back.

A family may store a weight changed: Gemma's norms plus 1, in float32. The sum holds all of a
bfloat16 but of those under 2**-16 (and the sign of a zero), and little of a float32. So that
nothing is lost on the way back, such a vector is kept whole beside it, a few kilobytes under its
canonical name; where the stored one was changed since, that counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from weighbridge import region as regions
from weighbridge.encoding import DENSE, Dense
from weighbridge.errors import Error, InvalidFile
from weighbridge.metadata import array
from weighbridge.ops import Applied, apply
from weighbridge.recode import recode
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weighbridge.metadata import Value
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy, Tensor

PREFIX = "weighbridge.original."
"""What a key that holds a weight's bytes begins with; its canonical name follows."""

LARGEST = 1 << 20
"""The most values of a tensor that is kept: norms have thousands."""


def record(
    tensors: Mapping[str, Lazy],
    translated: Mapping[str, Lazy],
    back: Callable[[Mapping[str, Lazy]], Mapping[str, Lazy]],
) -> dict[str, Value]:
    """Return the bytes of the weights that do not come back with the same bits.

    Nothing but small tensors whose values change on the way is read.

    Args:
        tensors: the canonical tensors.
        translated: what GGUF has of them.
        back: the way back to the canonical ones.

    Example:
        >>> from weighbridge.ops import Add
        >>> def kept(number):
        ...     x = from_array("x", np.array([number], np.float32))
        ...     (there,) = apply(Add(1.0), [x])
        ...     minus = lambda tensors: {"x": apply(Add(-1.0), [tensors["x+1"]])[0]}
        ...     return list(record({"x": x}, {"x+1": there}, minus))
        >>> kept(0.25), kept(0.1)
        ([], ['weighbridge.original.x'])
    """
    again = back(translated) if any(map(_changes, translated.values())) else {}
    kept: dict[str, Value] = {}
    for name, tensor in tensors.items():
        returned = again.get(name)
        if returned is None or not _changes(returned) or not _is_kept(tensor):
            continue
        before = _bytes(tensor)
        if before != _exactly(returned, tensor):
            kept[PREFIX + name] = array("u8", list(before))
    return kept


def restored(
    tensors: Mapping[str, Lazy],
    metadata: Mapping[str, Value],
    dtype: Callable[[str], Dense | None],
    report: Report,
) -> dict[str, Lazy]:
    """Return canonical tensors, those that were kept as they were.

    Args:
        tensors: the canonical tensors, made of the stored ones.
        metadata: all key-values.
        dtype: the recorded dtype of a tensor, None where there is none.
        report: is told which were changed since.
    """
    found = dict(tensors)
    for key, value in metadata.items():
        name = key.removeprefix(PREFIX)
        if name == key or name not in tensors:
            continue
        with report.collect(name):
            original = _original(tensors[name], name, value, dtype(name))
            if original is None:
                report.note("warning", key, "the tensor was changed since: it wins")
            else:
                found[name] = original
    return found


def _is_kept(tensor: Lazy) -> bool:
    return isinstance(tensor.encoding, Dense) and tensor.size <= LARGEST


def _changes(tensor: Lazy) -> TypeGuard[Applied]:
    """Tell whether a tensor is the result of an operation on one tensor that changes values."""
    if not isinstance(tensor, Applied) or len(tensor.inputs) != 1:
        return False
    return tensor.op.run([tensor.inputs[0].shape]) is None


def _bytes(tensor: Lazy) -> bytes:
    return tensor.grains(regions.whole(tensor.grid)).tobytes()


def _exactly(back: Lazy, tensor: Lazy) -> bytes | None:
    """Return the bytes of what came back in the tensor's encoding, None where that would round."""
    try:
        return _bytes(recode(back, tensor.encoding, exact=True))
    except Error:
        return None


def _original(tensor: Lazy, name: str, value: Value, dtype: Dense | None) -> Tensor | None:
    """Return a kept tensor, None where it no longer gives what is stored."""
    content = bytes(value.data) if value.items == "u8" else b""  # type: ignore[arg-type]
    if dtype is None or len(content) != dtype.nbytes(tensor.shape) or not _changes(tensor):
        raise InvalidFile(
            f"{PREFIX}{name} is not the content of the tensor",
            rule="value-type",
            got=f"{len(content)} bytes",
            expected=dtype and dtype.nbytes(tensor.shape),
        )
    kept = from_array(name, np.frombuffer(content, dtype.dtype).reshape(tensor.shape))
    (again,) = apply(tensor.op.inverse, [kept])
    return kept if _bytes(again) == _bytes(recode(tensor.inputs[0], DENSE["f32"])) else None
