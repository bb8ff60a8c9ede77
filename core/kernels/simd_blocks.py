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


def decoder(encoding: Blocked, name: str, signature: Signature) -> Code | None:
    """Return what decodes the bytes of blocks into float32 values; None: unknown."""
    body = decoders.BODIES.get(encoding.name)
    if body is None:
        return None
    grain, nbytes = encoding.grain, encoding.grain_bytes

    def decode(data: Any, blocks: Any, values: Any) -> Any:
        for k in range(blocks):
            body(data, k * nbytes, values, k * grain)
        return True

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
    convert = _CASTS.get((source, to))
    if convert is None:
        return None

    def run(values: Any, count: Any, results: Any) -> Any:
        fits = True
        for at in range(0, count - WIDTH + 1, WIDTH):
            fits = convert(values, at, results) and fits
        return convert(values, count - WIDTH, results) and fits

    return code_of(run, name, signature)


@register_jitable  # type: ignore[untyped-decorator]
def _f16_to_f32(values: Any, at: int, results: Any) -> Any:
    words.set_words(results, at, words.from_half(words.halfwords(values, at)))
    return True


@register_jitable  # type: ignore[untyped-decorator]
def _bf16_to_f32(values: Any, at: int, results: Any) -> Any:
    words.set_words(results, at, words.halfwords(values, at) << 16)
    return True


@register_jitable  # type: ignore[untyped-decorator]
def _f32_to_f16(values: Any, at: int, results: Any) -> Any:
    bits = words.whole_words(values, at)
    rounded = words.to_half(bits)
    words.set_halfwords(results, at, rounded)
    return words.none_lost(bits, rounded, 0x7C00)


@register_jitable  # type: ignore[untyped-decorator]
def _f32_to_bf16(values: Any, at: int, results: Any) -> Any:
    bits = words.whole_words(values, at)
    rounded = words.to_bfloat(bits)
    words.set_halfwords(results, at, rounded)
    return words.none_lost(bits, rounded, 0x7F80)


_CASTS = {
    ("f16", "f32"): _f16_to_f32,
    ("bf16", "f32"): _bf16_to_f32,
    ("f32", "f16"): _f32_to_f16,
    ("f32", "bf16"): _f32_to_bf16,
}
