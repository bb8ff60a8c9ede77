"""Compiled by Numba, what NumPy does well too: decoders, simple encoders, and casts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba.extending import register_jitable

from weighbridge.kernels import simd_codes as words
from weighbridge.kernels import simd_decoders as decoders
from weighbridge.kernels import simd_packers as packers
from weighbridge.kernels.simd import code_of, own_functions
from weighbridge.kernels.simd_lanes import WIDTH

if TYPE_CHECKING:
    from weighbridge.encoding import Blocked
    from weighbridge.kernels.native import Code, Signature

for _module in (decoders, packers):
    for _function in own_functions(_module):
        register_jitable(_function)


_HALF, _BFLOAT = 0x7C00, 0x7F80
_INFINITIES = {"f16": _HALF, "bf16": _BFLOAT}
"""The bits of infinity."""


def decoder(encoding: Blocked, to: str, name: str, signature: Signature) -> Code | None:
    """Return what decodes the bytes of blocks; None: unknown.

    It tells whether all is well: of values that are rounded to 16 bits, whether all are finite.

    Args:
        encoding: of the blocks.
        to: what the values become: ``f32``, ``f16`` or ``bf16``.
        name: of the function.
        signature: its arrays.
    """
    if encoding.name not in decoders.BODIES:
        return None
    body = register_jitable(decoders.rounding(encoding.name, to))
    grain, nbytes, infinity = encoding.grain, encoding.grain_bytes, _INFINITIES.get(to, 0)

    def decode(data: Any, blocks: Any, values: Any) -> Any:
        for k in range(blocks):
            body(data, k * nbytes, values, k * grain)
        # In the loop above, Numba would count references, with functions that are not kept.
        return words.all_finite(values, 0, blocks * grain, infinity) if infinity else True

    return code_of(decode, name, signature)


def packer(encoding: Blocked, name: str, signature: Signature) -> Code | None:
    """Return what encodes values, and tells whether all were finite; None: unknown."""
    body = packers.BODIES.get(encoding.name)
    if body is None:
        return None
    grain, nbytes = encoding.grain, encoding.grain_bytes

    def encode(values: Any, blocks: Any, data: Any) -> Any:
        finite = True
        for k in range(blocks):
            finite = body(values, k * grain, data, k * nbytes) and finite
        return finite

    return code_of(encode, name, signature)


def caster(source: str, to: str, name: str, signature: Signature) -> Code | None:
    """Return what casts bits to bits, and tells whether all had a place; None: unknown.

    It casts 16 numbers at a time, the last 16 last: there have to be as many.
    """
    if source not in _READERS or to not in _SETTERS:
        return None
    read, put = register_jitable(_READERS[source]), register_jitable(_SETTERS[to])

    def run(values: Any, count: Any, results: Any) -> Any:
        fits = True
        for at in range(0, count - WIDTH + 1, WIDTH):
            fits = put(results, at, read(values, at)) and fits
        return put(results, count - WIDTH, read(values, count - WIDTH)) and fits

    return code_of(run, name, signature)


def _f32_bits(values: Any, at: int) -> Any:
    return words.whole_words(values, at)


def _f16_bits(values: Any, at: int) -> Any:
    return words.from_half(words.halfwords(values, at))


def _bf16_bits(values: Any, at: int) -> Any:
    return words.halfwords(values, at) << 16


def _set_f32(results: Any, at: int, bits: Any) -> Any:
    words.set_words(results, at, bits)
    return True


def _set_f16(results: Any, at: int, bits: Any) -> Any:
    rounded = words.to_half(bits)
    words.set_halfwords(results, at, rounded)
    return words.none_lost(bits, rounded, _HALF)


def _set_bf16(results: Any, at: int, bits: Any) -> Any:
    rounded = words.to_bfloat(bits)
    words.set_halfwords(results, at, rounded)
    return words.none_lost(bits, rounded, _BFLOAT)


_READERS = {"f32": _f32_bits, "f16": _f16_bits, "bf16": _bf16_bits}
_SETTERS = {"f32": _set_f32, "f16": _set_f16, "bf16": _set_bf16}
"""How 16 numbers are read, as the bits of float32 numbers, and set from such bits."""
