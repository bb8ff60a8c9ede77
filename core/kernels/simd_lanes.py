"""The vocabulary of `weighbridge.kernels.lanes` for Numba: lanes are an LLVM vector of 16 floats.

Importing this module teaches Numba the words. Sixteen is the width of an AVX-512 register; LLVM
makes two AVX registers of it, or four of another machine, and every lane rounds the same.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, overload, register_model
from numba.np.arrayobj import _empty_nd_impl, populate_array

from weighbridge.kernels import lanes as words

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 16
"""How many lanes a vector has."""

FLOATS = ir.VectorType(ir.FloatType(), WIDTH)
VECTOR_INTS = ir.VectorType(ir.IntType(32), WIDTH)
BYTES = ir.VectorType(ir.IntType(8), WIDTH)
_BITS = ir.VectorType(ir.IntType(1), WIDTH)
_PACKED_BITS = ir.IntType(WIDTH)


class LanesType(types.Type):
    """Sixteen floats in a register."""


class MaskType(types.Type):
    """Sixteen truths in a register."""


class IntsType(types.Type):
    """Sixteen whole numbers of 32 bits in a register."""


LANES = LanesType("lanes")
INTS = IntsType("ints")
MASK = MaskType("mask")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, FLOATS)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    """A vector of bits, in memory and between functions a number of as many."""

    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _BITS)

    def get_data_type(self) -> ir.Type:
        return _PACKED_BITS

    get_argument_type = get_return_type = get_data_type

    def as_data(self, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        return builder.bitcast(value, _PACKED_BITS)

    as_argument = as_return = as_data

    def from_data(self, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        return builder.bitcast(value, _BITS)

    from_argument = from_return = from_data


@register_model(IntsType)
class _IntsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, VECTOR_INTS)


def splat(builder: ir.IRBuilder, scalar: ir.Value, kind: ir.VectorType = FLOATS) -> ir.Value:
    """Return a vector whose lanes are all `scalar`."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def _floats(number: float) -> ir.Constant:
    return ir.Constant(FLOATS, [number] * WIDTH)


def _ints(number: int) -> ir.Constant:
    return ir.Constant(VECTOR_INTS, [number] * WIDTH)


_SPREAD = {LANES: (types.float32, FLOATS), INTS: (types.int32, VECTOR_INTS)}
"""Vectors whose place a number may take: the type that it is cast to first."""


def word(key: Any, result: types.Type, *kinds: Any) -> Callable[[Any], Any]:
    """Teach Numba one word: its types, by a template, and its code, by the function decorated.

    The code is a function of the builder and the arguments; numbers come to it as float32, and
    as vectors where lanes are expected. Operators are shared with numbers and arrays: at least
    one argument has to be ours.
    """
    shared = key.__module__ == "_operator"

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) != len(kinds) or kws:
                return None
            wanted = [_accepted(kind, arg) for kind, arg in zip(kinds, args, strict=True)]
            if None in wanted or (shared and not any(isinstance(arg, _OURS) for arg in args)):
                return None
            return signature(result, *wanted)

    Template.__name__ = f"{key.__name__} of lanes"
    infer_global(key)(Template)

    def decorate(code: Any) -> Any:
        options = [(kind, _SPREAD[kind][0]) if kind in _SPREAD else (kind,) for kind in kinds]
        for chosen in _products(options):
            if not shared or any(isinstance(kind, _OURS) for kind in chosen):
                lower_builtin(key, *chosen)(_lowered(code, kinds))
        return code

    return decorate


_OURS = (LanesType, MaskType, IntsType)


def _accepted(kind: Any, got: types.Type) -> types.Type | None:
    """Return the type that an argument is cast to; None where it does not fit."""
    if kind in _SPREAD and got is not kind:
        return _SPREAD[kind][0] if isinstance(got, (types.Number, types.Literal)) else None
    if kind is types.Array:
        return got if isinstance(got, types.Array) else None
    if kind in (types.intp, types.float32):
        return kind if isinstance(got, (types.Number, types.Literal)) else None
    return got if got is kind else None


def _products(options: list[tuple[Any, ...]]) -> list[list[Any]]:
    chosen: list[list[Any]] = [[]]
    for option in options:
        chosen = [[*before, one] for before in chosen for one in option]
    return chosen


def _lowered(code: Any, kinds: tuple[Any, ...]) -> Any:
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = []
        for kind, actual, value in zip(kinds, sig.args, args, strict=True):
            if kind in _SPREAD and actual is not kind:
                values.append(splat(builder, value, _SPREAD[kind][1]))
            elif kind is types.Array:
                values.append(context.make_array(actual)(context, builder, value).data)
            else:
                values.append(value)
        result = code(builder, *values)
        return context.get_dummy_value() if result is None else result

    return lower


def _arithmetic(key: Any, name: str) -> None:
    def code(builder: Any, a: Any, b: Any) -> Any:
        return getattr(builder, name)(a, b)

    word(key, LANES, LANES, LANES)(code)


def _comparison(key: Any, sign: str, *, ordered: bool = True) -> None:
    def code(builder: Any, a: Any, b: Any) -> Any:
        compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
        return compare(sign, a, b)

    word(key, MASK, LANES, LANES)(code)


for _key, _name in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _arithmetic(getattr(operator, _key), _name)
for _key, _name in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "==")):
    _comparison(getattr(operator, _key), _name)
_comparison(operator.ne, "!=", ordered=False)


@word(operator.neg, LANES, LANES)
def _negated(builder: Any, value: Any) -> Any:
    return builder.fneg(value)


@word(operator.and_, MASK, MASK, MASK)
def _both(builder: Any, a: Any, b: Any) -> Any:
    return builder.and_(a, b)


@word(operator.or_, MASK, MASK, MASK)
def _any_of_two(builder: Any, a: Any, b: Any) -> Any:
    return builder.or_(a, b)


@word(words.select, LANES, MASK, LANES, LANES)
def _selected(builder: Any, mask: Any, yes: Any, no: Any) -> Any:
    return builder.select(mask, yes, no)


@word(words.like, LANES, LANES, types.float32)
def _alike(builder: Any, lanes: Any, number: Any) -> Any:
    return splat(builder, number)


@word(words.anyl, types.boolean, MASK)
def _anyl(builder: Any, mask: Any) -> Any:
    bits = builder.bitcast(mask, ir.IntType(WIDTH))
    return builder.icmp_unsigned("!=", bits, ir.IntType(WIDTH)(0))


def _row_pointer(builder: Any, data: Any, index: Any, kind: ir.Type) -> Any:
    start = builder.mul(index, index.type(WIDTH))
    return builder.bitcast(builder.gep(data, [start]), kind.as_pointer())


@word(words.row, LANES, types.Array, types.intp)
def _row(builder: Any, data: Any, index: Any) -> Any:
    return builder.load(_row_pointer(builder, data, index, FLOATS), align=4)


@word(words.setrow, types.none, types.Array, types.intp, LANES)
def _setrow(builder: Any, data: Any, index: Any, value: Any) -> None:
    builder.store(value, _row_pointer(builder, data, index, FLOATS), align=4)


def _store_bytes(builder: Any, data: Any, index: Any, ints: Any) -> None:
    value = builder.trunc(ints, BYTES)
    builder.store(value, _row_pointer(builder, data, index, BYTES), align=1)


@word(words.setbyte, types.none, types.Array, types.intp, LANES)
def _setbyte(builder: Any, data: Any, index: Any, value: Any) -> None:
    _store_bytes(builder, data, index, builder.fptosi(value, VECTOR_INTS))


@word(words.fabs, LANES, LANES)
def _fabs(builder: Any, value: Any) -> Any:
    return builder.bitcast(
        builder.and_(builder.bitcast(value, VECTOR_INTS), _ints(0x7FFFFFFF)), FLOATS
    )


def _llvm(builder: Any, name: str, value: Any) -> Any:
    kind = ir.FunctionType(FLOATS, [FLOATS])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{WIDTH}f32")
    return builder.call(function, [value])


@word(words.sqrt, LANES, LANES)
def _sqrt(builder: Any, value: Any) -> Any:
    return _llvm(builder, "sqrt", value)


@word(words.floor, LANES, LANES)
def _floor(builder: Any, value: Any) -> Any:
    return _llvm(builder, "floor", value)


@word(words.nearest, LANES, LANES)
def _nearest(builder: Any, value: Any) -> Any:
    bits = builder.bitcast(builder.fadd(value, _floats(12582912.0)), VECTOR_INTS)
    whole = builder.sub(builder.and_(bits, _ints(0x7FFFFF)), _ints(0x400000))
    return builder.sitofp(whole, FLOATS)


@word(words.clamp, LANES, LANES, LANES, LANES)
def _clamp(builder: Any, value: Any, low: Any, high: Any) -> Any:
    value = builder.select(builder.fcmp_ordered(">", value, low), value, low)
    return builder.select(builder.fcmp_ordered("<", value, high), value, high)


@word(words.wrap, LANES, LANES, types.intp)
def _wrap(builder: Any, value: Any, bits: Any) -> Any:
    mask = builder.sub(builder.shl(bits.type(1), bits), bits.type(1))
    mask = splat(builder, builder.trunc(mask, ir.IntType(32)), VECTOR_INTS)
    return builder.sitofp(builder.and_(builder.fptosi(value, VECTOR_INTS), mask), FLOATS)


@word(words.upper, LANES, LANES, types.intp)
def _upper(builder: Any, value: Any, bits: Any) -> Any:
    shift = splat(builder, builder.trunc(bits, ir.IntType(32)), VECTOR_INTS)
    return builder.sitofp(builder.ashr(builder.fptosi(value, VECTOR_INTS), shift), FLOATS)


def _gathered(builder: Any, data: Any, places: Any) -> Any:
    # A load for each lane: processors that have an instruction for it do the same.
    result = ir.Constant(FLOATS, ir.Undefined)
    for i in range(WIDTH):
        lane = ir.IntType(32)(i)
        place = builder.sext(builder.extract_element(places, lane), ir.IntType(64))
        number = builder.load(builder.gep(data, [place]), align=4)
        result = builder.insert_element(result, number, lane)
    return result


@word(words.lookup, LANES, types.Array, LANES)
def _lookup(builder: Any, table: Any, index: Any) -> Any:
    return _gathered(builder, table, builder.fptosi(index, VECTOR_INTS))


@word(words.pick, LANES, types.Array, LANES)
def _pick(builder: Any, rows: Any, index: Any) -> Any:
    starts = builder.mul(builder.fptosi(index, VECTOR_INTS), _ints(WIDTH))
    lanes = ir.Constant(VECTOR_INTS, list(range(WIDTH)))
    return _gathered(builder, rows, builder.add(starts, lanes))


@word(words.either, LANES, LANES, LANES)
def _either(builder: Any, a: Any, b: Any) -> Any:
    joined = builder.or_(builder.fptosi(a, VECTOR_INTS), builder.fptosi(b, VECTOR_INTS))
    return builder.sitofp(joined, FLOATS)


def const(like: ir.Value, number: int) -> ir.Constant:
    """Return a constant of the type of `like`: whole numbers, one or 16."""
    vector = isinstance(like.type, ir.VectorType)
    return ir.Constant(like.type, [number] * WIDTH if vector else number)


def _half_parts(builder: Any, bits: Any) -> tuple[Any, Any, Any]:
    """Return magnitudes' bits rounded to 11 digits, and whether magnitudes are small or NaN.

    LLVM's own cast crashes on processors that have no instruction for it.
    """
    odd = builder.and_(builder.lshr(bits, const(bits, 13)), const(bits, 1))
    rounded = builder.add(builder.add(bits, const(bits, 0xFFF)), odd)
    small = builder.icmp_signed("<", bits, const(bits, 0x38800000))
    nan = builder.icmp_signed(">", bits, const(bits, 0x7F800000))
    return rounded, small, nan


_HALF_INFINITY = 0x47800000
"""The bits of 2**16 as float32: what is rounded to it is out of float16's range."""


@word(words.half, LANES, LANES)
def _half(builder: Any, value: Any) -> Any:
    bits = builder.and_(builder.bitcast(value, VECTOR_INTS), _ints(0x7FFFFFFF))
    rounded, small, nan = _half_parts(builder, bits)
    magnitude = builder.bitcast(bits, FLOATS)
    shifted = builder.fsub(builder.fadd(magnitude, _floats(0.5)), _floats(0.5))
    result = builder.and_(rounded, _ints(~0x1FFF))
    large = builder.icmp_signed(">=", result, _ints(_HALF_INFINITY))
    result = builder.select(large, _ints(0x7F800000), result)
    result = builder.select(small, builder.bitcast(shifted, VECTOR_INTS), result)
    result = builder.select(nan, _ints(0x7FC00000), result)
    sign = builder.and_(builder.bitcast(value, VECTOR_INTS), _ints(-0x80000000))
    return builder.bitcast(builder.or_(result, sign), FLOATS)


def half_bits(builder: Any, signed: Any) -> Any:
    """Return the bits of float32 numbers, one or 16, as those of float16, rounded to even."""
    bits = builder.and_(signed, const(signed, 0x7FFFFFFF))
    rounded, small, nan = _half_parts(builder, bits)
    vector = isinstance(signed.type, ir.VectorType)
    kind, one_half = (FLOATS, _floats(0.5)) if vector else (ir.FloatType(), ir.FloatType()(0.5))
    shifted = builder.fadd(builder.bitcast(bits, kind), one_half)
    tiny = builder.sub(builder.bitcast(shifted, signed.type), const(signed, 0x3F000000))
    result = builder.sub(builder.lshr(rounded, const(signed, 13)), const(signed, 112 << 10))
    large = builder.icmp_signed(">=", rounded, const(signed, _HALF_INFINITY))
    result = builder.select(large, const(signed, 0x7C00), result)
    result = builder.select(small, tiny, result)
    result = builder.select(nan, const(signed, 0x7E00), result)
    sign = builder.and_(builder.lshr(signed, const(signed, 16)), const(signed, 0x8000))
    return builder.or_(result, sign)


@word(words.half_bits, LANES, LANES)
def _half_bits(builder: Any, value: Any) -> Any:
    return builder.sitofp(half_bits(builder, builder.bitcast(value, VECTOR_INTS)), FLOATS)


@word(words.sethalf, types.none, types.Array, types.intp, LANES)
def _sethalf(builder: Any, data: Any, index: Any, value: Any) -> None:
    result = half_bits(builder, builder.bitcast(value, VECTOR_INTS))
    _store_bytes(builder, data, index, result)
    _store_bytes(builder, data, builder.add(index, index.type(1)), builder.lshr(result, _ints(8)))


def _span(table: Any, start: int) -> Any:
    """Return 16 numbers of a table: a word of `_nearest_point` alone, like the next ones."""


def _cell(rows: Any, index: int, lane: int) -> Any:
    """Return the number in one lane of a row."""


def _setcell(rows: Any, index: int, lane: int, number: float) -> None:
    """Set the number in one lane of a row."""


def _whole(lanes: Any) -> Any:
    """Return whole numbers as such."""


def _picked(table: Any, numbers: Any, shift: int) -> Any:
    """Return what is in the lanes of a table that three bits of each number name.

    Its first 8 lanes are its last 8 lanes too.
    """


def _least(lanes: Any) -> Any:
    """Return the smallest of 16 numbers, none negative; NaN counts as larger than any other."""


def _bits(mask: Any) -> Any:
    """Return a number with a bit for each lane, the first one lowest."""


def _lowest(bits: int) -> Any:
    """Return the place of the lowest bit that is set; there is one."""


@word(_span, LANES, types.Array, types.intp)
def _span_code(builder: Any, data: Any, start: Any) -> Any:
    pointer = builder.bitcast(builder.gep(data, [start]), FLOATS.as_pointer())
    return builder.load(pointer, align=4)


def _cell_pointer(builder: Any, data: Any, index: Any, lane: Any) -> Any:
    return builder.gep(data, [builder.add(builder.mul(index, index.type(WIDTH)), lane)])


@word(_cell, types.float32, types.Array, types.intp, types.intp)
def _cell_code(builder: Any, data: Any, index: Any, lane: Any) -> Any:
    return builder.load(_cell_pointer(builder, data, index, lane))


@word(_setcell, types.none, types.Array, types.intp, types.intp, types.float32)
def _setcell_code(builder: Any, data: Any, index: Any, lane: Any, number: Any) -> None:
    builder.store(number, _cell_pointer(builder, data, index, lane))


@word(_whole, INTS, LANES)
def _whole_code(builder: Any, value: Any) -> Any:
    return builder.fptosi(value, VECTOR_INTS)


@word(_picked, LANES, LANES, INTS, types.intp)
def _picked_code(builder: Any, table: Any, numbers: Any, shift: Any) -> Any:
    shifts = splat(builder, builder.trunc(shift, ir.IntType(32)), VECTOR_INTS)
    index = builder.lshr(numbers, shifts)
    if host_has("avx512f"):
        return _permuted(builder, "avx512.permvar.sf.512", table, index)
    if host_has("avx2"):
        return _half_by_half(builder, table, index)
    index = builder.and_(index, _ints(7))
    result = ir.Constant(FLOATS, ir.Undefined)
    for i in range(WIDTH):
        lane = ir.IntType(32)(i)
        number = builder.extract_element(table, builder.extract_element(index, lane))
        result = builder.insert_element(result, number, lane)
    return result


def host_has(feature: str) -> bool:
    """Tell whether code is compiled for this processor, and it has a feature that LLVM names."""
    is_host = config.CPU_NAME is None and config.CPU_FEATURES is None
    return is_host and bool(get_host_cpu_features().get(feature))


def _permuted(builder: Any, name: str, table: Any, index: Any) -> Any:
    kind = ir.FunctionType(table.type, [table.type, index.type])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")
    return builder.call(function, [table, index])


def _half_by_half(builder: Any, table: Any, index: Any) -> Any:
    order = ir.VectorType(ir.IntType(32), WIDTH // 2)
    low, high = (ir.Constant(order, list(range(at, at + WIDTH // 2))) for at in (0, WIDTH // 2))
    table = builder.shuffle_vector(table, table, low)
    halves = [
        _permuted(builder, "avx2.permps", table, builder.shuffle_vector(index, index, part))
        for part in (low, high)
    ]
    return builder.shuffle_vector(*halves, ir.Constant(VECTOR_INTS, list(range(WIDTH))))


@word(_least, types.float32, LANES)
def _least_code(builder: Any, value: Any) -> Any:
    # Numbers that are not negative are in the order of their bits.
    kind = ir.FunctionType(ir.IntType(32), [VECTOR_INTS])
    name = f"llvm.vector.reduce.umin.v{WIDTH}i32"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.bitcast(
        builder.call(function, [builder.bitcast(value, VECTOR_INTS)]), ir.FloatType()
    )


@word(_bits, types.intp, MASK)
def _bits_code(builder: Any, mask: Any) -> Any:
    return builder.zext(builder.bitcast(mask, ir.IntType(WIDTH)), ir.IntType(64))


@word(_lowest, types.intp, types.intp)
def _lowest_code(builder: Any, bits: Any) -> Any:
    return builder.cttz(bits, ir.IntType(1)(1))


def first_lane(builder: Any, mask: Any, value: Any) -> Any:
    """Return the number in the first lane where `mask` is true, in the first if it nowhere is."""
    bits = builder.bitcast(mask, ir.IntType(WIDTH))
    lane = builder.cttz(builder.zext(bits, ir.IntType(32)), ir.IntType(1)(0))
    return builder.extract_element(value, builder.and_(lane, lane.type(WIDTH - 1)))


@intrinsic  # type: ignore[untyped-decorator]
def _repeated(typing: Any, levels: Any) -> Any:
    """Return the numbers of a tuple as lanes: a power of two of them, again and again."""
    period = 1 << words.point_shape(levels)[1]

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result = ir.Constant(FLOATS, ir.Undefined)
        for i in range(WIDTH):
            level = builder.extract_value(args[0], min(i % period, levels.count - 1))
            level = builder.fptrunc(level, ir.FloatType())
            result = builder.insert_element(result, level, ir.IntType(32)(i))
        return result

    return LANES(levels), code


@overload(words.point_shape, strict=False)  # type: ignore[untyped-decorator]
def _point_shape(levels: Any) -> Any:
    shape = words.point_shape(levels)
    return lambda levels: shape


_LARGEST = np.finfo(np.float32).max


@overload(
    words.nearest_point, strict=False, jit_options={"forceinline": True, "no_cfunc_wrapper": True}
)  # type: ignore[untyped-decorator]
def _nearest_point(
    values: Any,
    weights: Any,
    at: Any,
    levels: Any,
    scale: Any,
    start: Any,
    neighbours: Any,
    space: Any,
) -> Any:
    per, bits = words.point_shape(levels)

    def nearest_point(
        values: Any,
        weights: Any,
        at: Any,
        levels: Any,
        scale: Any,
        start: Any,
        neighbours: Any,
        space: Any,
    ) -> Any:
        # One block after the other: here the lanes are 16 of its neighbours. What a digit adds to
        # their distances is one of few numbers, each computed once.
        words.setrow(space, 0, start)
        words.setrow(space, 1, scale)
        words.setrow(space, 2, words.like(scale, -1.0))
        numbers = _repeated(levels)
        todo = _bits(start >= 0.0)
        while todo:
            lane = _lowest(todo)
            todo &= todo - 1
            first = int(_cell(space, 0, lane))
            end = first + int(neighbours[first])
            scaled = _cell(space, 1, lane) * numbers
            least = _LARGEST
            while first < end:
                points = _whole(_span(neighbours, first + 1))
                distance = words.like(scale, 0.0)
                for i in range(per):
                    error = scaled - _cell(values, at + i, lane)
                    error = _cell(weights, at + i, lane) * error * error
                    distance = distance + _picked(error, points, bits * i)
                smallest = _least(distance)
                if smallest < least:
                    least = smallest
                    nearest = first + 1 + _lowest(_bits(distance == smallest))
                    _setcell(space, 2, lane, neighbours[nearest])
                first += WIDTH
        return words.row(space, 2)

    return nearest_point


_ROWS = types.Array(types.float32, 2, "C")


class _ScratchTemplate(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(_ROWS, args[0], types.intp)


infer_global(words.scratch)(_ScratchTemplate)


@lower_builtin(words.scratch, types.Array, types.Integer)  # type: ignore[untyped-decorator]
def _scratch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Allocate a row too many; begin at a multiple of 64 bytes: no row is in two cache lines."""
    count, width = args[1], context.get_constant(types.intp, WIDTH)
    one = context.get_constant(types.intp, 1)
    larger = _empty_nd_impl(context, builder, _ROWS, [builder.add(count, one), width])
    address = builder.ptrtoint(larger.data, width.type)
    aligned = builder.and_(builder.add(address, width.type(63)), width.type(-64))
    rows = context.make_array(_ROWS)(context, builder)
    populate_array(
        rows,
        data=builder.inttoptr(aligned, larger.data.type),
        shape=[count, width],
        strides=[width.type(4 * WIDTH), width.type(4)],
        itemsize=width.type(4),
        meminfo=larger.meminfo,
    )
    return rows._getvalue()


@overload(words.staircase, strict=False)  # type: ignore[untyped-decorator]
def _staircase(lanes: Any, edges: Any, steps: Any) -> Any:
    def climb(lanes: Any, edges: Any, steps: Any) -> Any:
        count = len(edges)
        step = words.like(lanes, steps[count])
        for i in range(count):
            k = count - 1 - i
            step = words.select(lanes < edges[k], words.like(lanes, steps[k]), step)
        return step

    return climb


def _interleaved(builder: Any, a: Any, b: Any, half: int) -> Any:
    start = half * WIDTH // 2
    order = [lane for i in range(start, start + WIDTH // 2) for lane in (i, WIDTH + i)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), order)
    return builder.shuffle_vector(a, b, mask)


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return 16 vectors whose lanes are those of 16 vectors, the other way round."""
    half = WIDTH // 2
    for _ in range(4):
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [_interleaved(builder, *pair, part) for pair in pairs for part in (0, 1)]
    return vectors


@intrinsic  # type: ignore[untyped-decorator]
def transpose(
    typing: Any, source: Any, at: Any, stride: Any, target: Any, to: Any, wide: Any
) -> Any:
    """Copy a square of 16 by 16 numbers, rows to columns: a word of compiled code alone.

    Args:
        typing: Numba's.
        source: an array without gaps.
        at: where the square begins in it.
        stride: how far one row is behind the other.
        target: an array without gaps, of the same type.
        to: where the square begins in it.
        wide: how far one row is behind the other there.
    """
    kind, align = (FLOATS, 4) if source.dtype == types.float32 else (BYTES, 1)
    places = (types.intp, types.intp)

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = [context.make_array(sig.args[i])(context, builder, args[i]).data for i in (0, 3)]

        def pointer(array: Any, start: Any, step: Any, i: int) -> Any:
            index = builder.add(start, builder.mul(step, step.type(i)))
            return builder.bitcast(builder.gep(array, [index]), kind.as_pointer())

        vectors = [
            builder.load(pointer(data[0], args[1], args[2], i), align=align) for i in range(WIDTH)
        ]
        for i, vector in enumerate(_transposed(builder, vectors)):
            builder.store(vector, pointer(data[1], args[4], args[5], i), align=align)
        return context.get_dummy_value()

    return types.none(source, *places, target, *places), code
