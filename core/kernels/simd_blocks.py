"""Compiled by Numba, what NumPy does well too: decoders, simple encoders, and casts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
from numba.extending import register_jitable

from weighbridge.kernels import simd_codes as words
from weighbridge.kernels import simd_decoders as decoders
from weighbridge.kernels import simd_packers as packers
from weighbridge.kernels.simd import compiled, own_functions, source_of
from weighbridge.kernels.simd_lanes import WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.encoding import Blocked

for _module in (decoders, packers):
    for _function in own_functions(_module):
        register_jitable(_function)


def decoder(encoding: Blocked) -> Callable[[Any, Any], None] | None:
    """Return a function that decodes the bytes of blocks into float32 values; None: unknown."""
    body = decoders.BODIES.get(encoding.name)
    if body is None:
        return None
    grain, nbytes = encoding.grain, encoding.grain_bytes

    def decode(data: Any, values: Any) -> None:
        for k in range(len(data) // nbytes):
            body(data, k * nbytes, values, k * grain)

    kinds = (source_of(numba.uint8), numba.float32[::1])
    dispatcher: Callable[[Any, Any], None] = compiled(decode, f"decode_{encoding.name}", kinds)
    return dispatcher


def packer(encoding: Blocked) -> Callable[[Any, Any], bool] | None:
    """Return a function that encodes values, and tells whether all were finite; None: unknown."""
    body = packers.BODIES.get(encoding.name)
    if body is None:
        return None
    grain, nbytes = encoding.grain, encoding.grain_bytes

    def encode(values: Any, data: Any) -> Any:
        finite = True
        for k in range(len(data) // nbytes):
            finite = body(values, k * grain, data, k * nbytes) and finite
        return finite

    kinds = (source_of(numba.float32), numba.uint8[::1])
    dispatcher: Callable[[Any, Any], bool] = compiled(encode, f"pack_{encoding.name}", kinds)
    return dispatcher


def caster(source: str, to: str) -> Callable[[Any, Any], bool] | None:
    """Return a function that casts bits to bits, and tells whether all had a place; None: unknown.

    It casts 16 numbers at a time, the last 16 last: there have to be as many.
    """
    known = _CASTS.get((source, to))
    if known is None:
        return None
    convert, wide, narrow = known

    def run(values: Any, results: Any) -> Any:
        fits = True
        count = len(values)
        for at in range(0, count - WIDTH + 1, WIDTH):
            fits = convert(values, at, results) and fits
        return convert(values, count - WIDTH, results) and fits

    kinds = (source_of(wide), narrow[::1])
    dispatcher: Callable[[Any, Any], bool] = compiled(run, f"cast_{source}_{to}", kinds)
    return dispatcher


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
    ("f16", "f32"): (_f16_to_f32, numba.uint16, numba.uint32),
    ("bf16", "f32"): (_bf16_to_f32, numba.uint16, numba.uint32),
    ("f32", "f16"): (_f32_to_f16, numba.uint32, numba.uint16),
    ("f32", "bf16"): (_f32_to_bf16, numba.uint32, numba.uint16),
}
