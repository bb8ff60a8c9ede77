"""The vocabulary of simple kernels: 16 neighbouring numbers of an array at a time.

A kernel's body is a plain function that Numba compiles; it says how the bytes of one block become
its values, 16 by 16, or the other way round. What a word is given is an array without gaps and a
place in it.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba.core import cgutils, types

from weighbridge.kernels.simd_lanes import (
    BYTES,
    FLOATS,
    INTS,
    LANES,
    MASK,
    VECTOR_INTS,
    WIDTH,
    const,
    first_lane,
    half_bits,
    host_has,
    splat,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Ints = Any
Lanes = Any
Array = Any

_LANE = ir.Constant(VECTOR_INTS, list(range(WIDTH)))


def octets(data: Array, at: int) -> Ints:
    """Return 16 bytes."""


def signed(data: Array, at: int) -> Ints:
    """Return 16 bytes as numbers from -128 to 127."""


def u16(data: Array, at: int) -> Any:
    """Return two bytes as a number, the first one lowest."""


def u32(data: Array, at: int) -> Any:
    """Return four bytes as a number."""


def half(data: Array, at: int) -> Any:
    """Return two bytes, a float16, as float32."""


def half_of(bits: int) -> Any:
    """Return the bits of a float16 as float32."""


def single(data: Array, at: int) -> Any:
    """Return four bytes, a float32."""


def fields(number: int, bits: int) -> Ints:
    """Return 16 fields of 1 or 2 bits of a number, the lowest first."""


def nibbles(data: Array, at: int) -> Ints:
    """Return the low halves of 8 bytes, then the high halves."""


def two_points(grid: Array, first: int, second: int) -> Ints:
    """Return two rows of a grid of int8, 8 numbers each."""


def four_points(grid: Array, first: int, second: int, third: int, fourth: int) -> Ints:
    """Return four rows of a grid of int8, 4 numbers each."""


def pick(table: Array, codes: Ints) -> Ints:
    """Return the numbers of a table of 16 int8 at `codes`."""


def singles(ints: Ints) -> Lanes:
    """Return whole numbers as float32."""


def flip(lanes: Lanes, bits: int) -> Lanes:
    """Change the signs of those lanes whose bit is set."""


def halves(first: float, second: float) -> Lanes:
    """Return lanes of which 8 are one number, 8 another."""


def store(values: Array, at: int, lanes: Lanes) -> None:
    """Set 16 values."""


def put(values: Array, at: int, number: float) -> None:
    """Set a value."""


def store_half(values: Array, at: int, lanes: Lanes) -> None:
    """Set 16 float16 numbers of an array of uint16, rounded as `to_half` does."""


def put_half(values: Array, at: int, number: float) -> None:
    """Set one, likewise."""


def store_bfloat(values: Array, at: int, lanes: Lanes) -> None:
    """Set 16 bfloat16 numbers of an array of uint16, rounded as `to_bfloat` does."""


def put_bfloat(values: Array, at: int, number: float) -> None:
    """Set one, likewise."""


def load(values: Array, at: int) -> Lanes:
    """Return 16 values."""


def extent(first: Lanes, second: Lanes) -> Any:
    """Return the largest magnitude; what is not finite counts as larger than what is."""


def least(lanes: Lanes) -> Any:
    """Return the smallest of 16 values."""


def most(lanes: Lanes) -> Any:
    """Return the largest of 16 values."""


def first(mask: Any, lanes: Lanes) -> Any:
    """Return the value of the first lane where `mask` is true."""


def away(lanes: Lanes, step: float) -> Lanes:
    """Move values away from zero by `step`."""


def whole(lanes: Lanes, top: float) -> Ints:
    """Return values without their fraction, none above `top`; those not finite are 0."""


def ones(ints: Ints) -> Any:
    """Return a number with a bit for each lane that is not 0."""


def set_octets(data: Array, at: int, ints: Ints) -> None:
    """Set 16 bytes."""


def set_half(data: Array, at: int, number: float) -> None:
    """Set two bytes to a float16."""


def bits_of(number: float) -> Any:
    """Return the bits of a float32."""


def set_u8(data: Array, at: int, number: int) -> None:
    """Set one byte."""


def set_u16(data: Array, at: int, number: int) -> None:
    """Set two bytes, the first one lowest."""


def halfwords(data: Array, at: int) -> Ints:
    """Return 16 numbers of an array of uint16."""


def whole_words(data: Array, at: int) -> Ints:
    """Return 16 numbers of an array of uint32."""


def set_halfwords(data: Array, at: int, ints: Ints) -> None:
    """Set 16 numbers of an array of uint16."""


def set_words(data: Array, at: int, ints: Ints) -> None:
    """Set 16 numbers of an array of uint32."""


def from_half(ints: Ints) -> Ints:
    """Return the bits of float32 numbers that have the bits `ints` as float16."""


def to_half(ints: Ints) -> Ints:
    """Return the bits of float16 numbers nearest to those with the bits `ints` as float32."""


def to_bfloat(ints: Ints) -> Ints:
    """Return the bits of bfloat16 numbers, likewise; NaN keep theirs, and are quiet."""


def none_lost(ints: Ints, rounded: Ints, infinity: int) -> Any:
    """Tell whether only infinities, as float32 bits, were rounded to `infinity`."""


def all_finite(data: Array, at: int, count: int, infinity: int) -> Any:
    """Tell whether numbers of 16 bits are finite, of which 16 or a multiple are looked at."""


def _load(builder: Any, data: Any, at: Any, kind: ir.Type) -> Any:
    pointer = builder.bitcast(builder.gep(data, [at]), kind.as_pointer())
    return builder.load(pointer, align=1)


def _number(builder: Any, data: Any, at: Any, bits: int) -> Any:
    return builder.zext(_load(builder, data, at, ir.IntType(bits)), ir.IntType(64))


@word(octets, INTS, types.Array, types.intp)
def _octets(builder: Any, data: Any, at: Any) -> Any:
    return builder.zext(_load(builder, data, at, BYTES), VECTOR_INTS)


@word(signed, INTS, types.Array, types.intp)
def _signed(builder: Any, data: Any, at: Any) -> Any:
    return builder.sext(_load(builder, data, at, BYTES), VECTOR_INTS)


@word(u16, types.intp, types.Array, types.intp)
def _u16(builder: Any, data: Any, at: Any) -> Any:
    return _number(builder, data, at, 16)


@word(u32, types.intp, types.Array, types.intp)
def _u32(builder: Any, data: Any, at: Any) -> Any:
    return _number(builder, data, at, 32)


@word(single, types.float32, types.Array, types.intp)
def _single(builder: Any, data: Any, at: Any) -> Any:
    return _load(builder, data, at, ir.FloatType())


@word(half, types.float32, types.Array, types.intp)
def _half(builder: Any, data: Any, at: Any) -> Any:
    return _half_of(builder, _number(builder, data, at, 16))


@word(half_of, types.float32, types.intp)
def _half_of(builder: Any, bits: Any) -> Any:
    number = single_bits(builder, builder.trunc(bits, ir.IntType(32)))
    return builder.bitcast(number, ir.FloatType())


def single_bits(builder: Any, bits: Any) -> Any:
    """Return the bits of float16 numbers, one or 16, as those of float32."""
    # LLVM's own cast crashes on processors that have no instruction for it.
    shifted = builder.shl(builder.and_(bits, const(bits, 0x7FFF)), const(bits, 13))
    normal = builder.add(shifted, const(bits, 112 << 23))
    # Below 2**-14 the digits are those of a multiple of 2**-24.
    vector = isinstance(bits.type, ir.VectorType)
    kind = FLOATS if vector else ir.FloatType()
    base = ir.Constant(kind, [2.0**-14] * WIDTH if vector else 2.0**-14)
    above = builder.bitcast(builder.add(shifted, const(bits, 113 << 23)), kind)
    small = builder.bitcast(builder.fsub(above, base), bits.type)
    large = builder.or_(shifted, const(bits, 0x7F800000))
    is_small = builder.icmp_unsigned("<", shifted, const(bits, 0x0400 << 13))
    is_large = builder.icmp_unsigned(">=", shifted, const(bits, 0x7C00 << 13))
    value = builder.select(is_large, large, builder.select(is_small, small, normal))
    sign = builder.shl(builder.and_(bits, const(bits, 0x8000)), const(bits, 16))
    return builder.or_(value, sign)


@word(fields, INTS, types.intp, types.intp)
def _fields(builder: Any, number: Any, bits: Any) -> Any:
    narrow = ir.IntType(32)
    numbers = splat(builder, builder.trunc(number, narrow), VECTOR_INTS)
    width = builder.trunc(bits, narrow)
    shifts = builder.mul(_LANE, splat(builder, width, VECTOR_INTS))
    mask = builder.sub(builder.shl(narrow(1), width), narrow(1))
    return builder.and_(builder.lshr(numbers, shifts), splat(builder, mask, VECTOR_INTS))


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Return the bytes of some numbers as one vector."""
    kind = ir.VectorType(parts[0].type, len(parts))
    vector = ir.Constant(kind, ir.Undefined)
    for i, part in enumerate(parts):
        vector = builder.insert_element(vector, part, ir.IntType(32)(i))
    return builder.bitcast(vector, BYTES)


@word(nibbles, INTS, types.Array, types.intp)
def _nibbles(builder: Any, data: Any, at: Any) -> Any:
    eight = _load(builder, data, at, ir.IntType(64))
    codes = builder.zext(_joined(builder, [eight, eight]), VECTOR_INTS)
    shifts = ir.Constant(VECTOR_INTS, [0] * 8 + [4] * 8)
    return builder.and_(builder.lshr(codes, shifts), ir.Constant(VECTOR_INTS, [15] * WIDTH))


def _points(builder: Any, grid: Any, rows: Any) -> Any:
    size = WIDTH // len(rows)
    kind = ir.IntType(8 * size)
    parts = [_load(builder, grid, builder.mul(row, row.type(size)), kind) for row in rows]
    return builder.sext(_joined(builder, parts), VECTOR_INTS)


@word(two_points, INTS, types.Array, types.intp, types.intp)
def _two_points(builder: Any, grid: Any, *rows: Any) -> Any:
    return _points(builder, grid, rows)


@word(four_points, INTS, types.Array, types.intp, types.intp, types.intp, types.intp)
def _four_points(builder: Any, grid: Any, *rows: Any) -> Any:
    return _points(builder, grid, rows)


@word(pick, INTS, types.Array, INTS)
def _pick(builder: Any, table: Any, codes: Any) -> Any:
    # Written lane by lane, LLVM finds the instruction that permutes bytes, where there is one.
    source = _load(builder, table, ir.IntType(64)(0), BYTES)
    index = builder.trunc(codes, BYTES)
    result = ir.Constant(BYTES, ir.Undefined)
    for i in range(WIDTH):
        lane = ir.IntType(32)(i)
        number = builder.extract_element(source, builder.extract_element(index, lane))
        result = builder.insert_element(result, number, lane)
    return builder.sext(result, VECTOR_INTS)


@word(singles, LANES, INTS)
def _singles(builder: Any, ints: Any) -> Any:
    return builder.sitofp(ints, FLOATS)


@word(flip, LANES, LANES, types.intp)
def _flip(builder: Any, lanes: Any, bits: Any) -> Any:
    numbers = splat(builder, builder.trunc(bits, ir.IntType(32)), VECTOR_INTS)
    signs = builder.shl(builder.lshr(numbers, _LANE), ir.Constant(VECTOR_INTS, [31] * WIDTH))
    return builder.bitcast(builder.xor(builder.bitcast(lanes, VECTOR_INTS), signs), FLOATS)


@word(halves, LANES, types.float32, types.float32)
def _halves(builder: Any, first: Any, second: Any) -> Any:
    order = ir.Constant(VECTOR_INTS, [0] * 8 + [WIDTH] * 8)
    return builder.shuffle_vector(splat(builder, first), splat(builder, second), order)


@word(store, types.none, types.Array, types.intp, LANES)
def _store(builder: Any, values: Any, at: Any, lanes: Any) -> None:
    pointer = builder.bitcast(builder.gep(values, [at]), FLOATS.as_pointer())
    builder.store(lanes, pointer, align=4)


@word(put, types.none, types.Array, types.intp, types.float32)
def _put_value(builder: Any, values: Any, at: Any, number: Any) -> None:
    builder.store(number, builder.gep(values, [at]))


@word(load, LANES, types.Array, types.intp)
def _loaded(builder: Any, values: Any, at: Any) -> Any:
    return builder.load(builder.bitcast(builder.gep(values, [at]), FLOATS.as_pointer()), align=4)


@word(extent, types.float32, LANES, LANES)
def _extent(builder: Any, first: Any, second: Any) -> Any:
    mask = ir.Constant(VECTOR_INTS, [0x7FFFFFFF] * WIDTH)
    a, b = (builder.and_(builder.bitcast(part, VECTOR_INTS), mask) for part in (first, second))
    larger = builder.select(builder.icmp_unsigned(">", a, b), a, b)
    kind = ir.FunctionType(ir.IntType(32), [VECTOR_INTS])
    name = f"llvm.vector.reduce.umax.v{WIDTH}i32"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.bitcast(builder.call(function, [larger]), ir.FloatType())


def _reduced(builder: Any, lanes: Any, sign: str) -> Any:
    step = WIDTH // 2
    while step:
        order = ir.Constant(VECTOR_INTS, [(i + step) % WIDTH for i in range(WIDTH)])
        other = builder.shuffle_vector(lanes, lanes, order)
        lanes = builder.select(builder.fcmp_ordered(sign, lanes, other), lanes, other)
        step //= 2
    return builder.extract_element(lanes, ir.IntType(32)(0))


@word(least, types.float32, LANES)
def _least(builder: Any, lanes: Any) -> Any:
    return _reduced(builder, lanes, "<")


@word(most, types.float32, LANES)
def _most(builder: Any, lanes: Any) -> Any:
    return _reduced(builder, lanes, ">")


@word(first, types.float32, MASK, LANES)
def _first(builder: Any, mask: Any, lanes: Any) -> Any:
    return first_lane(builder, mask, lanes)


@word(away, LANES, LANES, LANES)
def _away(builder: Any, lanes: Any, step: Any) -> Any:
    mask = ir.Constant(VECTOR_INTS, [-0x80000000] * WIDTH)
    sign = builder.and_(builder.bitcast(lanes, VECTOR_INTS), mask)
    signed_step = builder.or_(builder.bitcast(step, VECTOR_INTS), sign)
    return builder.fadd(lanes, builder.bitcast(signed_step, FLOATS))


@word(whole, INTS, LANES, LANES)
def _whole(builder: Any, lanes: Any, top: Any) -> Any:
    bits = builder.bitcast(lanes, VECTOR_INTS)
    finite = builder.icmp_unsigned(
        "<", builder.and_(bits, const(bits, 0x7FFFFFFF)), const(bits, 0x7F800000)
    )
    lanes = builder.select(finite, lanes, ir.Constant(FLOATS, [0.0] * WIDTH))
    lanes = builder.select(builder.fcmp_ordered("<", lanes, top), lanes, top)
    return builder.fptosi(lanes, VECTOR_INTS)


@word(ones, types.intp, INTS)
def _ones(builder: Any, ints: Any) -> Any:
    mask = builder.icmp_unsigned("!=", ints, const(ints, 0))
    return builder.zext(builder.bitcast(mask, ir.IntType(WIDTH)), ir.IntType(64))


def _put(builder: Any, data: Any, at: Any, value: Any) -> None:
    pointer = builder.bitcast(builder.gep(data, [at]), value.type.as_pointer())
    builder.store(value, pointer, align=1)


@word(set_octets, types.none, types.Array, types.intp, INTS)
def _set_octets(builder: Any, data: Any, at: Any, ints: Any) -> None:
    _put(builder, data, at, builder.trunc(ints, BYTES))


@word(set_half, types.none, types.Array, types.intp, types.float32)
def _set_half(builder: Any, data: Any, at: Any, number: Any) -> None:
    bits = half_bits(builder, builder.bitcast(number, ir.IntType(32)))
    _put(builder, data, at, builder.trunc(bits, ir.IntType(16)))


@word(bits_of, types.intp, types.float32)
def _bits_of(builder: Any, number: Any) -> Any:
    return builder.zext(builder.bitcast(number, ir.IntType(32)), ir.IntType(64))


@word(set_u8, types.none, types.Array, types.intp, types.intp)
def _set_u8(builder: Any, data: Any, at: Any, number: Any) -> None:
    _put(builder, data, at, builder.trunc(number, ir.IntType(8)))


@word(set_u16, types.none, types.Array, types.intp, types.intp)
def _set_u16(builder: Any, data: Any, at: Any, number: Any) -> None:
    _put(builder, data, at, builder.trunc(number, ir.IntType(16)))


_SHORTS = ir.VectorType(ir.IntType(16), WIDTH)


@word(halfwords, INTS, types.Array, types.intp)
def _halfwords(builder: Any, data: Any, at: Any) -> Any:
    return builder.zext(_load(builder, data, at, _SHORTS), VECTOR_INTS)


@word(whole_words, INTS, types.Array, types.intp)
def _whole_words(builder: Any, data: Any, at: Any) -> Any:
    return _load(builder, data, at, VECTOR_INTS)


@word(set_halfwords, types.none, types.Array, types.intp, INTS)
def _set_halfwords(builder: Any, data: Any, at: Any, ints: Any) -> None:
    _put(builder, data, at, builder.trunc(ints, _SHORTS))


@word(set_words, types.none, types.Array, types.intp, INTS)
def _set_words(builder: Any, data: Any, at: Any, ints: Any) -> None:
    _put(builder, data, at, ints)


@word(from_half, INTS, INTS)
def _from_half(builder: Any, ints: Any) -> Any:
    return single_bits(builder, ints)


@word(to_half, INTS, INTS)
def _to_half(builder: Any, ints: Any) -> Any:
    # On processors that have no instruction for it, LLVM's own cast crashes.
    if host_has("f16c"):
        short = builder.fptrunc(builder.bitcast(ints, FLOATS), ir.VectorType(ir.HalfType(), WIDTH))
        rounded = builder.zext(builder.bitcast(short, _SHORTS), VECTOR_INTS)
    else:
        rounded = half_bits(builder, ints)
    # NumPy keeps the upper bits of NaN, and one where they are all 0.
    magnitude = builder.and_(ints, const(ints, 0x7FFFFFFF))
    nan = builder.icmp_signed(">", magnitude, const(ints, 0x7F800000))
    upper = builder.and_(builder.lshr(ints, const(ints, 13)), const(ints, 0x3FF))
    upper = builder.select(
        builder.icmp_unsigned("==", upper, const(ints, 0)), const(ints, 1), upper
    )
    sign = builder.and_(builder.lshr(ints, const(ints, 16)), const(ints, 0x8000))
    kept = builder.or_(builder.or_(upper, const(ints, 0x7C00)), sign)
    return builder.select(nan, kept, rounded)


@word(to_bfloat, INTS, INTS)
def _to_bfloat(builder: Any, ints: Any) -> Any:
    upper = builder.lshr(ints, const(ints, 16))
    odd = builder.and_(upper, const(ints, 1))
    rounded = builder.add(builder.add(ints, const(ints, 0x7FFF)), odd)
    magnitude = builder.and_(ints, const(ints, 0x7FFFFFFF))
    nan = builder.icmp_signed(">", magnitude, const(ints, 0x7F800000))
    quiet = builder.or_(upper, const(ints, 0x40))
    return builder.select(nan, quiet, builder.lshr(rounded, const(ints, 16)))


@word(none_lost, types.boolean, INTS, INTS, INTS)
def _none_lost(builder: Any, ints: Any, rounded: Any, infinity: Any) -> Any:
    became = builder.icmp_unsigned("==", builder.and_(rounded, const(rounded, 0x7FFF)), infinity)
    was = builder.icmp_unsigned(
        "!=", builder.and_(ints, const(ints, 0x7FFFFFFF)), const(ints, 0x7F800000)
    )
    lost = builder.bitcast(builder.and_(became, was), ir.IntType(WIDTH))
    return builder.icmp_unsigned("==", lost, lost.type(0))


@word(all_finite, types.boolean, types.Array, types.intp, types.intp, INTS)
def _all_finite(builder: Any, data: Any, at: Any, count: Any, infinity: Any) -> Any:
    largest = cgutils.alloca_once_value(builder, ir.Constant(VECTOR_INTS, [0] * WIDTH))
    step, begin = count.type(WIDTH), count.type(0)
    with cgutils.for_range_slice(builder, begin, count, step) as (offset, _):
        ints = _halfwords(builder, data, builder.add(at, offset))
        magnitude, before = builder.and_(ints, const(ints, 0x7FFF)), builder.load(largest)
        larger = builder.icmp_unsigned(">", magnitude, before)
        builder.store(builder.select(larger, magnitude, before), largest)
    finite = builder.icmp_unsigned("<", builder.load(largest), infinity)
    bits = builder.bitcast(finite, ir.IntType(WIDTH))
    return builder.icmp_unsigned("==", bits, bits.type(-1))


def _rounding(store: Any, put: Any, round_bits: Callable[..., Any]) -> None:
    """Teach Numba to set values rounded to 16 bits."""

    @word(store, types.none, types.Array, types.intp, LANES)
    def _store_rounded(builder: Any, values: Any, at: Any, lanes: Any) -> None:
        rounded = round_bits(builder, builder.bitcast(lanes, VECTOR_INTS))
        _set_halfwords(builder, values, at, rounded)

    @word(put, types.none, types.Array, types.intp, types.float32)
    def _put_rounded(builder: Any, values: Any, at: Any, number: Any) -> None:
        rounded = round_bits(builder, builder.bitcast(splat(builder, number), VECTOR_INTS))
        first_of_all = builder.extract_element(rounded, ir.IntType(32)(0))
        _put(builder, values, at, builder.trunc(first_of_all, ir.IntType(16)))


_rounding(store_half, put_half, _to_half)
_rounding(store_bfloat, put_bfloat, _to_bfloat)


def _on_ints(key: Callable[..., Any], name: str) -> None:
    def code(builder: Any, a: Any, b: Any) -> Any:
        return getattr(builder, name)(a, b)

    word(key, INTS, INTS, INTS)(code)


for _key, _name in (
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.lshift, "shl"),
    (operator.rshift, "lshr"),
    (operator.mul, "mul"),
    (operator.add, "add"),
):
    _on_ints(_key, _name)
