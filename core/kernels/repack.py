"""Pairs of encodings that hold the same numbers: elements with separate scales, and ggml's blocks.

To repack is to move codes and scales; no number changes, and what would change one is refused.
ggml's blocks lie along the last axis. Where a scale covers several of them, each gets a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weighbridge.encoding import DATA, DENSE, Scaled, scaled
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels.dense import cast
from weighbridge.kernels.ggml.bits import fill, pack_planes, planes
from weighbridge.kernels.ggml.lblocks import Q4_0, Q4_1, Q8_0
from weighbridge.kernels.ggml.mblocks import MXFP4, NVFP4

if TYPE_CHECKING:
    from weighbridge.encoding import Blocked
    from weighbridge.kernels.codec import Blocks

Array = NDArray[Any]
Parts = Mapping[str, Array]

NAN_EXPONENT, NAN_E4M3, SIGN = 0xFF, 0x7F, 0x80


@dataclass(frozen=True)
class Pair:
    """An encoding of parts and one of blocks.

    Attributes:
        scaled: the parts, with the block that one scale of ggml's has.
        blocked: the blocks.
        pack: makes blocks of parts: of codes, a row for each block, and of its scales.
        unpack: makes such parts of blocks.
        always: whether any scales and zero points can be packed.
    """

    scaled: Scaled
    blocked: Blocked
    pack: Callable[[Parts], Blocks]
    unpack: Callable[[Blocks], dict[str, Array]]
    always: bool = True

    def takes(self, encoding: Scaled) -> bool:
        """Tell whether parts of an encoding are these, with blocks of this size or a multiple."""
        size, block = self.scaled.block[-1], encoding.block
        return (
            encoding.parts == self.scaled.parts
            and bool(block)
            and set(block[:-1]) <= {1}
            and block[-1] % size == 0
        )


def pair_of(encoding: Scaled, blocked: Blocked | None = None) -> Pair | None:
    """Return the pair of an encoding of parts that any of its tensors can be repacked by.

    Args:
        encoding: the parts.
        blocked: the blocks that are wanted; None takes those that are no larger than the parts.

    Example:
        >>> found = pair_of(scaled(DENSE["f4"], DENSE["f8_e8m0"], (1, 32)))
        >>> str(found.blocked)
        'MXFP4'
    """
    for pair in PAIRS:
        same = pair.blocked == blocked if blocked else pair.scaled.block == encoding.block[-2:]
        if pair.always and same and pair.takes(encoding):
            return pair
    return None


def pair_for(blocks: str, encoding: Scaled | None = None) -> Pair:
    """Return the pair that repacks to ggml's type of that name, or from it.

    Args:
        blocks: the type, in capitals or not.
        encoding: the parts, where there are some.

    Raises:
        Unsupported: (rule ``no-repack``) when there is none.
    """
    for pair in PAIRS:
        if pair.blocked.name == blocks.lower() and (encoding is None or pair.takes(encoding)):
            return pair
    raise Unsupported(
        "no repacking is known that changes no number",
        rule="no-repack",
        got=f"{blocks} and {encoding}" if encoding else blocks,
        expected=" or ".join(f"{pair.blocked} and {pair.scaled}" for pair in PAIRS),
    )


def to_blocks(pair: Pair, encoding: Scaled, parts: Parts, start: int = 0) -> Blocks:
    """Return the blocks of some rows, or of a part of some that is whole blocks.

    Args:
        pair: says how.
        encoding: that of the parts.
        parts: the numbers of each part, as `weighbridge.parted.Parted.numbers` returns them.
        start: where on the last axis the elements begin.

    Raises:
        InvalidInput: (rule ``inexact``) for scales or zero points that the blocks cannot have.
    """
    codes = parts[DATA]
    size, wide = pair.scaled.block[-1], encoding.block[-1]
    first = start // size - start // wide * (wide // size)
    here = slice(first, first + codes.shape[-1] // size)
    flat = {
        part: numbers.repeat(wide // size, -1)[..., here].reshape(-1)
        for part, numbers in parts.items()
        if part != DATA
    }
    return pair.pack({DATA: codes.reshape(-1, size), **flat})


def _inexact(what: str, got: object) -> InvalidInput:
    return InvalidInput(
        f"{what} cannot be repacked without changing numbers", rule="inexact", got=got
    )


def _check(good: Array, numbers: Array, what: str) -> None:
    if not good.all():
        raise _inexact(what, numbers[~good][0])


def _bits(numbers: Array) -> NDArray[np.uint8]:
    """Return codes as they are stored, a byte each."""
    return np.ascontiguousarray(numbers).view(np.uint8)


def _nibbles(codes: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return codes as ggml packs them: the first half of `count` numbers in the low bits."""
    return pack_planes((codes & np.uint8(15)).reshape(len(codes), -1, 2, count // 2), 4).reshape(
        len(codes), -1
    )


def _codes(packed: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    halves = packed.reshape(len(packed), -1, count // 2)
    return planes(halves, 4).reshape(len(packed), -1)


def _pack_mxfp4(parts: Parts) -> Blocks:
    exponent = _bits(parts["scale"])
    _check(exponent != NAN_EXPONENT, parts["scale"], "a scale that is no number")
    return fill(MXFP4, e=exponent, qs=_nibbles(_bits(parts[DATA]), 32))


def _unpack_mxfp4(blocks: Blocks) -> dict[str, Array]:
    scale = np.ascontiguousarray(blocks["e"]).view(DENSE["f8_e8m0"].dtype)
    _check(blocks["e"] != NAN_EXPONENT, scale, "a scale of 2 to the power of 128")
    return {DATA: _codes(blocks["qs"], 32).view(DENSE["f4"].dtype), "scale": scale}


def _pack_nvfp4(parts: Parts) -> Blocks:
    scale = _bits(parts["scale"]).reshape(-1, 4)
    _check(scale < NAN_E4M3, parts["scale"].reshape(-1, 4), "a scale that is no positive number")
    codes = _bits(parts[DATA]).reshape(-1, 64)
    return fill(NVFP4, d=scale, qs=_nibbles(codes, 16))


def _unpack_nvfp4(blocks: Blocks) -> dict[str, Array]:
    scale = np.ascontiguousarray(blocks["d"]) & np.uint8(~SIGN & 0xFF)
    scale[scale == NAN_E4M3] = 0
    codes = _codes(blocks["qs"], 16).reshape(-1, 16)
    return {
        DATA: codes.view(DENSE["f4"].dtype),
        "scale": scale.reshape(-1).view(DENSE["f8_e4m3"].dtype),
    }


def _pack_q4_0(parts: Parts) -> Blocks:
    return fill(Q4_0, d=parts["scale"], qs=_nibbles(_bits(parts[DATA]) + np.uint8(8), 32))


def _unpack_q4_0(blocks: Blocks) -> dict[str, Array]:
    codes = _codes(blocks["qs"], 32) + np.uint8(8) & np.uint8(15)
    return {DATA: codes.view(DENSE["i4"].dtype), "scale": np.ascontiguousarray(blocks["d"])}


def _pack_q8_0(parts: Parts) -> Blocks:
    return fill(Q8_0, d=parts["scale"], qs=parts[DATA])


def _unpack_q8_0(blocks: Blocks) -> dict[str, Array]:
    return {part: np.ascontiguousarray(blocks[f]) for part, f in ((DATA, "qs"), ("scale", "d"))}


@np.errstate(all="ignore")
def _pack_q4_1(parts: Parts) -> Blocks:
    """Return blocks whose minimum is the scale times the zero point, less than nothing."""
    wide = -parts["scale"].astype(np.float32) * cast(parts["zero"], DENSE["f32"])
    least = wide.astype(np.float16)
    _check(least == wide, wide, "a minimum that is not exactly a number of F16")
    return fill(Q4_1, d=parts["scale"], m=least, qs=_nibbles(_bits(parts[DATA]), 32))


@np.errstate(all="ignore")
def _unpack_q4_1(blocks: Blocks) -> dict[str, Array]:
    scale, least = (blocks[name].astype(np.float32) for name in "dm")
    zero = np.clip(np.rint(np.nan_to_num(-least / scale)), 0, 15).astype(np.float32)
    _check(-scale * zero == least, least, "a minimum that is no multiple of its scale")
    codes = _codes(blocks["qs"], 32).view(DENSE["u4"].dtype)
    stored = np.ascontiguousarray(blocks["d"])
    return {DATA: codes, "scale": stored, "zero": cast(zero, DENSE["u4"])}


def _pair(
    element: str,
    scale: str,
    size: int,
    blocked: Blocked,
    pack: Any,
    unpack: Any,
    zero: str | None = None,
) -> Pair:
    points = DENSE[zero] if zero else None
    parts = scaled(DENSE[element], DENSE[scale], (1, size), points)
    return Pair(parts, blocked, pack, unpack, zero is None)


PAIRS = (
    _pair("f4", "f8_e8m0", 32, MXFP4, _pack_mxfp4, _unpack_mxfp4),
    _pair("f4", "f8_e4m3", 16, NVFP4, _pack_nvfp4, _unpack_nvfp4),
    _pair("i4", "f16", 32, Q4_0, _pack_q4_0, _unpack_q4_0),
    _pair("i8", "f16", 32, Q8_0, _pack_q8_0, _unpack_q8_0),
    _pair("u4", "f16", 32, Q4_1, _pack_q4_1, _unpack_q4_1, "u4"),
)
"""Which encodings of parts and of blocks hold the same numbers."""
