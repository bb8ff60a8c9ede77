"""Tensors of several parts: any region of them is that region of the whole, whatever moves them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shapes import regions_of

import weighbridge as wb
from weighbridge import kernels
from weighbridge.encoding import DENSE, Scaled, scaled
from weighbridge.ops import Concat, Cut, Pad, Split, Stack, Swap, Transpose, apply
from weighbridge.packed import Words
from weighbridge.parted import Parted, apart, parted
from weighbridge.region import slices
from weighbridge.tensor import Tensor, from_array

F32, F16, U4 = DENSE["f32"], DENSE["f16"], DENSE["u4"]
ENCODINGS = [
    scaled(DENSE["f8_e4m3"], F32, (3, 4)),
    scaled(DENSE["f8_e5m2"], F32, ()),
    scaled(DENSE["f4"], DENSE["f8_e8m0"], (2,)),
    scaled(DENSE["f4"], DENSE["f8_e4m3"], (1, 2), outer=F32),
    scaled(DENSE["f4"], DENSE["f8_e4m3"], (1, 2), outer=F32, divides=True),
    scaled(U4, F16, (1, 4), U4),
    scaled(U4, F32, (1, 100), U4),
    scaled(DENSE["f6_e2m3"], F16, (1, 3)),
    scaled(F32, F32, (2, 2)),
]


def stored(encoding: Scaled, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of small integers, with other small integers as scales."""
    rng = np.random.default_rng(0)
    numbers = {part: rng.integers(1, 7, of) for part, of in encoding.shapes(shape).items()}
    parts = {
        part: kernels.encode(encoding.parts[part], np.asarray(made, np.float32))
        for part, made in numbers.items()
    }
    return Tensor("x", shape, encoding, parts)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@given(data=st.data())
def test_any_region_is_that_of_the_whole(encoding, data):
    """Also where rows end inside a byte."""
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * data.draw(st.integers(2, 3))))
    tensor = stored(encoding, shape)
    whole = kernels.decode(encoding, dict(tensor.parts), shape)
    region = data.draw(regions_of(shape))
    np.testing.assert_array_equal(tensor.compute(region), whole[slices(region)])


@pytest.mark.parametrize("name", ["u4", "i2", "f6_e3m2"])
@given(data=st.data())
def test_small_numbers_in_rows_that_end_inside_a_byte(name, data):
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 9)))
    codes = np.random.default_rng(1).integers(0, 2, shape).astype(np.float32)
    data_bytes = kernels.encode(DENSE[name], codes)
    tensor = Tensor("x", shape, DENSE[name], {"data": data_bytes})
    region = data.draw(regions_of(shape))
    np.testing.assert_array_equal(tensor.compute(region).astype(np.float32), codes[slices(region)])


GROUPED = [encoding for encoding in ENCODINGS if encoding.block[:-1] == (1,) and not encoding.outer]


@pytest.mark.parametrize("encoding", GROUPED, ids=str)
@pytest.mark.parametrize(
    ("op", "count"),
    [
        (Swap(0, 2, 2, 3), 1), (Concat(0, (12, 12)), 2), (Split(0, (4, 8)), 1), (Stack(2), 2),
        (Cut(0, 3), 1), (Pad(0, 2), 1),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_operations_on_rows_keep_the_parts(encoding, op, count):
    inputs = [apart(stored(encoding, (12, 24))) for _ in range(count)]
    plain = [from_array("x", tensor.values()) for tensor in inputs]
    for found, expected in zip(apply(op, inputs), apply(op, plain), strict=True):
        assert isinstance(found, Parted)
        np.testing.assert_array_equal(found.values(), expected.values())
    back = apply(op.inverse, apply(op, inputs))
    if not isinstance(op, Cut):
        np.testing.assert_array_equal(back[0].values(), inputs[0].values())


@pytest.mark.parametrize("op", [Transpose(), Swap(1, 2, 2, 6), Swap(0, 1, 2, 6)], ids=str)
def test_other_operations_compute_values(op):
    """Blocks of several rows, or that an operation cuts, are decoded."""
    tensor = apart(stored(scaled(DENSE["f8_e4m3"], F32, (4, 4)), (12, 24)))
    (found,) = apply(op, [tensor])
    (expected,) = apply(op, [from_array("x", tensor.values())])
    assert not isinstance(found, Parted)
    np.testing.assert_array_equal(found.values(), expected.values())


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("transposed", [False, True])
@given(data=st.data())
def test_any_region_of_packed_integers(axis, transposed, data):
    """Against taking every number out by itself."""
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    order = tuple(data.draw(st.permutations(range(8))))
    words_shape = list(shape[::-1] if transposed else shape)
    words_shape[axis] = -(-words_shape[axis] // 8)
    words = np.random.default_rng(2).integers(0, 1 << 32, words_shape, dtype=np.uint32)
    lazy = Words(from_array("q", words), shape, U4, axis, order, 3, transposed)
    expected = np.empty(shape)
    for at in np.ndindex(shape):
        place = list(at[::-1] if transposed else at)
        place[axis], number = divmod(place[axis], 8)
        expected[at] = (int(words[tuple(place)]) >> (4 * order[number])) + 3 & 15
    region = data.draw(regions_of(shape))
    np.testing.assert_array_equal(lazy.compute(region).astype(float), expected[slices(region)])


def test_parts_of_other_shapes_are_refused():
    codes = from_array("q", np.zeros((4, 8), np.int8))
    for shape in [(4, 1), (4, 3), (8,), (4, 2, 1)]:
        with pytest.raises(wb.InvalidInput) as caught:
            parted((1, 4), data=codes, scale=from_array("s", np.ones(shape, np.float32)))
        assert caught.value.rule == "part-shape"
