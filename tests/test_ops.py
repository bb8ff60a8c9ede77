"""Operations: whatever region of a result is read, it is NumPy's result on the whole."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shapes import regions_of, shapes
from support.stored import in_file

from weighbridge import kernels
from weighbridge import region as regions
from weighbridge.encoding import DENSE, Dense, Encoding, scaled
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.ops import (
    Add,
    Concat,
    Cut,
    Op,
    Pad,
    Split,
    Stack,
    Swap,
    Transpose,
    Unstack,
    apply,
)
from weighbridge.steps import Route, route_of
from weighbridge.tensor import Lazy, Tensor, from_array
from weighbridge.testing.models import tensor_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weighbridge.region import Shape

    Case = tuple[Op, list[Shape]]

Q8_0, Q4_0, U4 = BLOCKED["q8_0"], BLOCKED["q4_0"], DENSE["u4"]
ENCODINGS = [DENSE["f32"], DENSE["bf16"], DENSE["i64"], U4, DENSE["f6_e2m3"], Q8_0, Q4_0]
FP8 = scaled(DENSE["f8_e4m3"], DENSE["f32"], (2, 2))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ops") / "bytes"


def by_numpy(op: Op, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what an operation means, said in NumPy on whole arrays."""
    first = arrays[0]
    if isinstance(op, Swap):
        before, after = first.shape[: op.axis], first.shape[op.axis + 1 :]
        inner = first.shape[op.axis] // (op.outer * op.first * op.second)
        apart = first.reshape(*before, op.outer, op.first, op.second, inner, *after)
        return [apart.swapaxes(op.axis + 1, op.axis + 2).reshape(first.shape)]
    if isinstance(op, Cut | Pad):
        shape = with_length(first.shape, op.axis, op.count)
        if isinstance(op, Pad):
            return [np.concatenate([np.zeros(shape, first.dtype), first], op.axis)]
        return [np.delete(first, np.s_[: op.count], op.axis)]
    if isinstance(op, Split):
        return np.split(first, np.cumsum(op.sizes)[:-1], op.axis)
    simple: dict[type[Op], Any] = {
        Transpose: lambda: [first.transpose(op.axes)],
        Concat: lambda: [np.concatenate(arrays, op.axis)],
        Stack: lambda: [np.stack(arrays)],
        Unstack: lambda: list(first),
        Add: lambda: [first.astype(np.float32) + np.float32(op.amount)],
    }
    with np.errstate(invalid="ignore"):  # NaN among random bytes
        return simple[type(op)]()


@st.composite
def cases(draw: st.DrawFn, grain: int = 1) -> Case:
    """Return operations and the shapes that they take; last axes are multiples of `grain`."""
    kinds = [Swap, Transpose, Concat, Split, Stack, Unstack, Add, Cut, Pad]
    kind = draw(st.sampled_from(kinds))
    shape = draw(shapes(side=4).filter(bool) if grain > 1 else shapes(side=4))
    unit = (*(1,) * (len(shape) - 1), grain)[: len(shape)]
    shape = tuple(length * u for length, u in zip(shape, unit, strict=True))
    if kind is Transpose:
        return Transpose(tuple(draw(st.permutations(range(len(shape)))))), [shape]
    if kind is Add:
        return Add(draw(st.sampled_from([1.0, -0.5]))), [shape]
    count = draw(st.integers(1, 3))
    if kind is Stack:
        return Stack(count), [shape] * count
    if kind is Unstack:
        return Unstack(count), [(count, *shape)]
    if not shape:
        return Add(2.0), [shape]
    axis = draw(st.integers(0, len(shape) - 1))
    if kind in (Cut, Pad):
        most = shape[axis] // unit[axis] if kind is Cut else 3
        return kind(axis, draw(st.integers(0, most)) * unit[axis]), [shape]
    parts = draw(
        st.tuples(*[st.integers(0, 3)] * 3 if kind is not Swap else [st.integers(1, 3)] * 3)
    )
    if kind is Swap:
        return Swap(axis, *parts), [with_length(shape, axis, np.prod(parts) * shape[axis])]
    sizes = tuple(part * unit[axis] for part in parts)
    if kind is Split:
        return Split(axis, sizes), [with_length(shape, axis, sum(sizes))]
    return Concat(axis, sizes), [with_length(shape, axis, size) for size in sizes]


def with_length(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], int(length), *shape[axis + 1 :])


def inputs_of(shapes: Sequence[Shape], encoding: Encoding) -> list[Tensor]:
    return [tensor_of(f"t{n}", encoding, shape, n) for n, shape in enumerate(shapes)]


def values_of(lazy: Lazy) -> np.ndarray:
    return lazy.compute(regions.whole(lazy.shape))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether two arrays hold the same numbers in the same shape; NaN is NaN."""
    with np.errstate(invalid="ignore"):
        x, y = a.astype(np.float64), b.astype(np.float64)
    return np.array_equal(x, y, equal_nan=True)


@given(cases(), st.sampled_from([e for e in ENCODINGS if e.grain == 1]), st.booleans(), st.data())
def test_any_region_of_any_result_is_that_of_numpy(
    path: Path, case: Case, encoding: Dense, stored: bool, data: st.DataObject
) -> None:
    op, shapes = case
    tensors = inputs_of(shapes, encoding)
    expected = by_numpy(op, [values_of(tensor) for tensor in tensors])
    files = [path.with_suffix(f".{n}") for n in range(len(tensors))]
    lazies = [in_file(t, file) if stored else t for t, file in zip(tensors, files, strict=True)]
    for lazy, whole in zip(apply(op, lazies), expected, strict=True):
        assert lazy.shape == whole.shape
        region = data.draw(regions_of(lazy.shape))
        computed = lazy.compute(region)
        assert computed.dtype == lazy.encoding.dtype
        assert same(computed, whole[regions.slices(region)])
        assert lazy.grains(region).tobytes() == computed.tobytes()


@given(cases(), st.integers(1, 30))
def test_any_tiling_of_a_result_is_that_of_numpy(case: Case, most: int) -> None:
    op, shapes = case
    tensors = inputs_of(shapes, DENSE["f32"])
    expected = by_numpy(op, [values_of(tensor) for tensor in tensors])
    for lazy, whole in zip(apply(op, tensors), expected, strict=True):
        joined = np.full(whole.shape, np.nan, np.float32)
        for tile in regions.tiles(lazy.shape, most, lazy.units()):
            joined[regions.slices(tile)] = lazy.compute(tile)
        assert same(joined, whole)


@given(st.sampled_from([U4, DENSE["f6_e2m3"], Q8_0, Q4_0]), st.data())
def test_packed_results_are_those_of_decoding_first(
    encoding: Encoding, data: st.DataObject
) -> None:
    op, shapes = data.draw(cases(encoding.grain))
    tensors = inputs_of(shapes, encoding)
    expected = by_numpy(op, [values_of(tensor) for tensor in tensors])
    for lazy, whole in zip(apply(op, tensors), expected, strict=True):
        assert same(values_of(lazy), whole)
        region = data.draw(regions_of(lazy.grid))
        grains = lazy.grains(region)
        if lazy.encoding != encoding:
            assert lazy.encoding == DENSE["f32"]
            assert same(grains, whole[regions.slices(region)])
            continue
        everything = lazy.grains(regions.whole(lazy.grid))
        assert grains.tobytes() == everything[regions.slices(region)].tobytes()
        stored = {"data": np.frombuffer(everything.tobytes(), np.uint8)}
        assert same(kernels.decode(encoding, stored, lazy.shape, None), whole)


@given(cases())
def test_the_inverse_gives_back_the_very_tensors(case: Case) -> None:
    op, shapes = case
    tensors = inputs_of(shapes, DENSE["f32"])
    back = apply(op.inverse, apply(op, tensors))
    if isinstance(op, Add):
        assert back[0] is not tensors[0]
    else:
        assert all(a is b for a, b in zip(back, tensors, strict=True))
    assert op.inverse.inverse == op


@given(cases())
def test_the_inverse_undoes_what_is_stored(case: Case) -> None:
    op, shapes = case
    tensors = inputs_of(shapes, DENSE["i64"])
    if isinstance(op, Add):
        return
    stored = [from_array("x", values_of(lazy)) for lazy in apply(op, tensors)]
    for before, after in zip(tensors, apply(op.inverse, stored), strict=True):
        expected = values_of(before)
        if isinstance(op, Cut):
            expected = by_numpy(op.inverse, by_numpy(op, [expected]))[0]
        assert same(values_of(after), expected)


STAYS, CHANGES = Route.MOVE, Route.DECODE

PACKED = [
    (Swap(0, 2, 2, 2), [(8, 32)], Q8_0, STAYS),
    (Swap(1, 1, 2, 2), [(3, 128)], Q8_0, STAYS),
    (Swap(1, 1, 2, 2), [(3, 64)], Q8_0, CHANGES),
    (Transpose((1, 0, 2)), [(2, 3, 32)], Q8_0, STAYS),
    (Transpose(), [(32, 32)], Q8_0, CHANGES),
    (Transpose(), [(32, 32)], DENSE["bf16"], STAYS),
    (Concat(1, (32, 64)), [(2, 32), (2, 64)], Q4_0, STAYS),
    (Concat(0, (2, 1)), [(2, 32), (1, 32)], Q4_0, STAYS),
    (Split(1, (32, 64)), [(2, 96)], Q4_0, STAYS),
    (Split(1, (48, 48)), [(2, 96)], Q4_0, CHANGES),
    (Stack(2), [(32,)] * 2, Q8_0, STAYS),
    (Unstack(2), [(2, 32)], Q8_0, STAYS),
    (Stack(2), [(5,)] * 2, U4, CHANGES),
    (Stack(2), [(6,)] * 2, U4, STAYS),
    (Unstack(4), [(4,)], U4, CHANGES),
    (Unstack(4), [(4,)], DENSE["f16"], STAYS),
    (Cut(0, 2), [(5, 32)], Q8_0, STAYS),
    (Cut(1, 32), [(2, 96)], Q8_0, STAYS),
    (Cut(1, 16), [(2, 96)], Q8_0, CHANGES),
    (Pad(0, 2), [(3, 32)], Q4_0, STAYS),
    (Pad(1, 32), [(2, 64)], Q8_0, STAYS),
    (Pad(1, 1), [(2, 6)], U4, CHANGES),
    (Add(1.0), [(32,)], Q8_0, CHANGES),
    (Add(1.0), [(2,)], DENSE["f32"], CHANGES),
    (Swap(0, 1, 2, 2), [(4, 4)], FP8, CHANGES),
]


@pytest.mark.parametrize(("op", "shapes", "encoding", "route"), PACKED, ids=str)
def test_packed_bytes_are_moved_only_in_whole_grains(
    op: Op, shapes: list[Shape], encoding: Encoding, route: Route
) -> None:
    tensors = inputs_of(shapes, encoding)
    expected = by_numpy(op, [values_of(tensor) for tensor in tensors])
    for lazy, whole in zip(apply(op, tensors), expected, strict=True):
        assert route_of(lazy) is route
        assert lazy.encoding == (encoding if route is STAYS else DENSE["f32"])
        assert same(values_of(lazy), whole)


REFUSED = [
    (Swap(0, 2, 2, 1), [(6,)]),
    (Swap(2, 1, 1, 1), [(6, 6)]),
    (Swap(-1, 1, 1, 1), [(6, 6)]),
    (Swap(0, 0, 1, 1), [(6,)]),
    (Swap(0, 1, 1, 1), [(6,), (6,)]),
    (Transpose(), [(2, 3, 4)]),
    (Transpose((0, 0)), [(2, 3)]),
    (Concat(0, (2, 1)), [(2, 3), (2, 3)]),
    (Concat(0, (2, 1)), [(2, 3), (1, 4)]),
    (Concat(0, (2, 1)), [(2, 3)]),
    (Concat(0, (1, 1)), [(), ()]),
    (Concat(0, ()), []),
    (Split(0, (2, 1)), [(4, 3)]),
    (Split(-1, (2, 1)), [(4, 3)]),
    (Cut(0, 3), [(2, 4)]),
    (Cut(0, -1), [(2, 4)]),
    (Cut(2, 1), [(2, 4)]),
    (Pad(0, -1), [(2, 4)]),
    (Pad(-1, 1), [(2, 4)]),
    (Stack(2), [(2,), (3,)]),
    (Stack(2), [(2,)]),
    (Unstack(2), [(3, 2)]),
    (Unstack(2), [()]),
    (Add(1.0), []),
]


@pytest.mark.parametrize(("op", "shapes"), REFUSED, ids=str)
def test_shapes_that_do_not_fit_are_refused(op: Op, shapes: list[Shape]) -> None:
    with pytest.raises(InvalidInput) as caught:
        apply(op, inputs_of(shapes, DENSE["f32"]))
    assert caught.value.rule == "op-shape"


MIXED = [
    (("bf16", "f32"), "f32"),
    (("bf16", "f16"), "f32"),
    (("f32", "f64"), "f64"),
    (("i8", "i64"), "i64"),
    (("u8", "i8"), "f32"),
    (("bf16", "q8_0"), "f32"),
    (("f64", "q8_0"), "f64"),
    (("i4", "u4"), "f32"),
    (("i64", "f32"), None),
    (("c64", "f64"), None),
]


@pytest.mark.parametrize(("names", "common"), MIXED, ids=str)
def test_mixed_encodings_are_joined_without_loss_or_not_at_all(
    names: tuple[str, str], common: str | None
) -> None:
    tensors = [tensor_of("x", kernels.codec_for(name).encoding, (2, 32)) for name in names]
    if common is None:
        with pytest.raises(Unsupported) as caught:
            apply(Concat(0, (2, 2)), tensors)
        assert caught.value.rule == "mixed-encodings"
        return
    (joined,) = apply(Concat(0, (2, 2)), tensors)
    assert joined.encoding.name == common
    assert same(values_of(joined), np.concatenate([t.values("f64") for t in tensors]))
    assert joined[0].dtype == joined.encoding.dtype
    assert joined.grains(((0, 4), (0, 32))).tobytes() == values_of(joined).tobytes()


@pytest.mark.parametrize(
    ("op", "remark"),
    [(Cut(0, 2), ("dropped", "2 of 5")), (Pad(0, 2), ("generated", "2 of 7")), (Cut(0, 0), None),
     (Pad(0, 0), None), (Transpose(), None)],
    ids=str,
)  # fmt: skip
def test_what_is_lost_or_made_up_is_told(op: Op, remark: tuple[str, str] | None) -> None:
    told = op.remark([(5, 4)])
    assert (told is None) == (remark is None)
    if told and remark:
        assert told[0] == remark[0]
        assert remark[1] in told[1]


def test_operations_nest() -> None:
    q, k = (from_array(n, np.random.default_rng(1).random((8, 3), np.float32)) for n in "qk")
    swapped = [apply(Swap(0, 2, 2, 2), [tensor])[0] for tensor in (q, k)]
    (joined,) = apply(Concat(0, (8, 8)), swapped)
    (turned,) = apply(Transpose(), [joined])
    expected = np.concatenate([by_numpy(Swap(0, 2, 2, 2), [t.values()])[0] for t in (q, k)]).T
    assert same(values_of(turned), expected)
    assert same(turned[1:, 3:11], expected[1:, 3:11])
    assert route_of(turned) is Route.MOVE
    assert [leaf.name for leaf in turned.leaves()] == ["q", "k"]


def test_adding_is_in_float32() -> None:
    stored = from_array("x", np.array([0.1], ml_dtypes.bfloat16))
    (added,) = apply(Add(1.0), [stored])
    assert added.values().dtype == np.float32
    assert added.values()[0] == np.float32(stored.values()[0]) + np.float32(1)


@pytest.mark.parametrize(("op", "shapes", "encoding"), [case[:3] for case in PACKED[:4]], ids=str)
def test_results_pickle(op: Op, shapes: list[Shape], encoding: Encoding) -> None:
    (lazy,) = apply(op, inputs_of(shapes, encoding))
    again = pickle.loads(pickle.dumps(lazy))
    assert same(values_of(again), values_of(lazy))
