"""Encode and decode of every encoding.

Each function here works on whole grains, keeps no state, and may be called from any thread. What
is written in NumPy below is the specification that faster kernels have to match bit for bit.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weighbridge.encoding import (
    DATA,
    DENSE,
    DTYPE_NAMES,
    Blocked,
    Dense,
    Encoding,
    Scaled,
    Shape,
)
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels import shortcuts
from weighbridge.kernels.codec import Blocks, Codec, Values, block_dtype
from weighbridge.kernels.dense import cast, cast_into, dense_of, narrow_exactly, pack, unpack
from weighbridge.kernels.importance import checked, matrices, missing
from weighbridge.kernels.ranges import lossless
from weighbridge.kernels.scaled import decode_scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Codec",
    "cast",
    "codec_for",
    "decode",
    "decode_into",
    "encode",
    "lossless",
    "narrow_exactly",
]

Part = NDArray[np.uint8] | memoryview | bytes

_BATCH = 1 << 18
"""Values encoded at once: what they need stays in a core's own cache."""

_DECODED = 1 << 16
"""Values decoded at once: so few that what NumPy makes on the way is in memory it has already."""


def decode(
    encoding: Encoding,
    parts: Mapping[str, Part],
    shape: Shape,
    out_dtype: str | Dense | None = "f32",
) -> NDArray[Any]:
    """Return the numbers of a tensor, or of some of its rows, as an array of `shape`.

    Args:
        encoding: how `parts` are encoded.
        parts: the bytes of each part that ``encoding.sizes(shape)`` names.
        shape: the shape of the result.
        out_dtype: a dense encoding or its name. None asks for what needs no cast: the numbers'
            own type for a dense encoding (a view where they are whole bytes), float32 otherwise.

    Raises:
        InvalidInput: (rule ``part-size``) when a part is missing or of another size; (rule
            ``overflow``) when a number is out of `out_dtype`'s range.
        Unsupported: (rule ``unknown-encoding``) when nothing here decodes it.

    Example:
        >>> decode(DENSE["bf16"], {"data": bytes.fromhex("803f00c0")}, (2,)).tolist()
        [1.0, -2.0]
    """
    held = _checked(encoding, parts, shape)
    target = _dense(out_dtype) if out_dtype is not None else None
    if isinstance(encoding, Dense):
        numbers = unpack(held[DATA], encoding, math.prod(shape)).reshape(shape)
        return numbers if target is None else cast(numbers, target)
    target = target or DENSE["f32"]
    if isinstance(encoding, Scaled):
        return cast(decode_scaled(encoding, held, shape), target)
    values = np.empty(shape, target.dtype)
    _decode_blocks(codec_for(encoding), held[DATA], target, values.reshape(-1))
    return values


def decode_into(encoding: Blocked, parts: Mapping[str, Part], out: NDArray[Any]) -> None:
    """Set a contiguous array to the numbers of blocks, without another array of its size.

    Args:
        encoding: how `parts` are encoded.
        parts: the bytes of the part ``data`` of ``out.size`` values.
        out: of one axis; its dtype is that of a dense encoding of whole bytes.

    Raises:
        InvalidInput: as `decode` does.

    Example:
        >>> from weighbridge.kernels.ggml import BLOCKED
        >>> out = np.ones(32, np.float16)
        >>> decode_into(BLOCKED["q8_0"], {"data": bytes(34)}, out)
        >>> float(out.sum())
        0.0
    """
    held = _checked(encoding, parts, out.shape)
    _decode_blocks(codec_for(encoding), held[DATA], dense_of(out), out)


def encode(
    encoding: Encoding, values: NDArray[Any], importance: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """Return the bytes of the part ``data`` of `values`.

    Args:
        encoding: what they are encoded to.
        values: the numbers.
        importance: how much each column counts, of shape ``(n,)`` for rows of n values, or of
            ``values.shape[:-2] + (n,)`` for a stack of matrices. Where ggml makes no use of such
            weights, as in casts and in Q8_0, they change nothing.

    Raises:
        InvalidInput: (rule ``overflow`` or ``not-finite``) for a number that has no place there;
            (rule ``importance``) for weights of another shape, for negative ones and such as are
            not finite, and for none where ggml demands them.
        Unsupported: (rule ``no-encoder``) when nothing encodes to this; (rule ``block-size``)
            when the rows are no whole number of blocks.

    Example:
        >>> encode(DENSE["bf16"], np.float32([1, -2])).tobytes().hex()
        '803f00c0'
    """
    weights = None if importance is None else checked(importance, values.shape)
    if isinstance(encoding, Dense):
        return pack(cast(values, encoding), encoding)
    codec = None if isinstance(encoding, Scaled) else codec_for(encoding)
    if codec is None or not (codec.encode or codec.weighted):
        raise Unsupported(f"nothing encodes to {encoding} yet", rule="no-encoder", got=encoding)
    encoding.sizes(values.shape)
    singles = cast(values, DENSE["f32"])
    if codec.weighted and weights is not None:
        return _encode_weighted(encoding, codec.weighted, singles, weights)
    if not codec.encode:
        raise missing(encoding)
    return _encode_blocks(encoding, codec.encode, singles)


def _encode_weighted(
    encoding: Encoding,
    encoder: Callable[[Values, Values], Blocks],
    values: Values,
    importance: Values,
) -> NDArray[np.uint8]:
    length = values.shape[-1]
    blocks = np.empty(
        (values.size // max(length, 1), length // encoding.grain), block_dtype(encoding)
    )
    for rows, matrix, weights in matrices(values, importance):
        held = blocks[rows]
        for part in _batches(len(matrix), length):
            held[part] = encoder(matrix[part], weights).reshape(held[part].shape)
    return blocks.reshape(-1).view(np.uint8)


def _encode_blocks(
    encoding: Encoding, encoder: Callable[[Values], Blocks], values: Values
) -> NDArray[np.uint8]:
    rows = values.reshape(-1, encoding.grain)
    blocks = np.empty(len(rows), block_dtype(encoding))
    if isinstance(encoding, Blocked) and _packed(encoding, rows, blocks.view(np.uint8)):
        return blocks.view(np.uint8)
    for part in _batches(len(rows), encoding.grain):
        blocks[part] = encoder(rows[part])
    return blocks.view(np.uint8)


def codec_for(encoding: Encoding | str) -> Codec:
    """Return the codec of a dense or blocked encoding: a built-in one, or one that is registered.

    Raises:
        Unsupported: (rule ``unknown-encoding``) when there is none.

    Example:
        >>> codec_for("q4_k").encoding.grain
        256
    """
    name = encoding if isinstance(encoding, str) else encoding.name
    codec = _dense_codec(DENSE[name]) if name in DENSE else _blocked_codec(name)
    if codec is None or (isinstance(encoding, Encoding) and codec.encoding != encoding):
        raise Unsupported("unknown encoding", rule="unknown-encoding", got=name)
    return codec


def _blocked_codec(name: str) -> Codec | None:
    # Both imports wait for their first use: not every caller meets quantised weights.
    from weighbridge.kernels.ggml import GGML

    if name in GGML:
        return GGML[name]
    from weighbridge.registry import encodings

    return encodings().get(name)


@functools.cache
def _dense_codec(dense: Dense) -> Codec:
    single = DENSE["f32"]

    def decoded(blocks: NDArray[Any]) -> NDArray[np.float32]:
        """Return the numbers as float32."""
        data = np.ascontiguousarray(blocks).view(np.uint8)
        return cast(unpack(data, dense, len(blocks) * dense.grain), single).reshape(-1, dense.grain)

    def encoded(values: NDArray[np.float32]) -> NDArray[Any]:
        """Return the numbers rounded to nearest, ties to even."""
        return pack(cast(values, dense), dense).view(block_dtype(dense))

    return Codec(dense, decoded, encoded)


def _packed(encoding: Blocked, rows: NDArray[np.float32], data: NDArray[np.uint8]) -> bool:
    """Encode in compiled code where that is worth it; False: NumPy has to, or to refuse."""
    pack_blocks = shortcuts.packer(encoding, rows.size)
    flat = np.ascontiguousarray(rows).reshape(-1)
    return pack_blocks is not None and flat.flags.aligned and bool(pack_blocks(flat, data))


def _decode_blocks(codec: Codec, data: NDArray[np.uint8], target: Dense, out: NDArray[Any]) -> None:
    if _decoded_at_once(codec.encoding, data, target, out):
        return
    grain, grain_bytes = codec.encoding.grain, codec.encoding.grain_bytes
    values = out.reshape(-1, grain)
    batches = _batches(len(values), grain, _DECODED)
    # One for all batches: memory that is new for each costs more than what is done in it.
    most = values[batches[0]].shape if batches else (0, grain)
    numbers = None if target.name == "f32" else np.empty(most, np.float32)
    for part in batches:
        octets = data[part.start * grain_bytes : part.stop * grain_bytes]
        singles = values[part] if numbers is None else numbers[: part.stop - part.start]
        if not _decoded_at_once(codec.encoding, octets, DENSE["f32"], singles.reshape(-1)):
            singles[:] = codec.decode(codec.blocks(octets))
        if numbers is not None:
            cast_into(singles, values[part])


def _decoded_at_once(
    encoding: Encoding, data: NDArray[np.uint8], target: Dense, out: NDArray[Any]
) -> bool:
    """Decode in compiled code; False: what is not finite, or has no place, has to be looked at."""
    kind = shortcuts.DECODED.get(target.name)
    if kind is None or not isinstance(encoding, Blocked) or not out.flags.aligned:
        return False
    swift = shortcuts.decoder(encoding, out.size, target.name)
    return swift is not None and bool(swift(data, out.view(kind)))


def _batches(count: int, grain: int, values: int = _BATCH) -> list[slice]:
    step = max(1, values // max(grain, 1))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _dense(name: str | Dense) -> Dense:
    if isinstance(name, Dense):
        return name
    dense = DENSE.get(DTYPE_NAMES.get(name, name))
    if dense is None:
        raise Unsupported("unknown number type", rule="dtype", got=name)
    return dense


def _checked(
    encoding: Encoding, parts: Mapping[str, Part], shape: Shape
) -> Mapping[str, NDArray[np.uint8]]:
    """Return the parts as bytes, each of the size that the encoding says."""
    held = {name: _octets(part) for name, part in parts.items()}
    for name, nbytes in encoding.sizes(shape).items():
        got = held[name].size if name in held else None
        if got != nbytes:
            raise InvalidInput(
                f"part '{name}' of {encoding} is not of the size of shape {shape}",
                rule="part-size",
                got="no part" if got is None else f"{got} bytes",
                expected=f"{nbytes} bytes",
            )
    return held


def _octets(part: Part) -> NDArray[np.uint8]:
    if isinstance(part, np.ndarray):
        return np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    return np.frombuffer(part, np.uint8)
