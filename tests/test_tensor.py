"""Tensors: wherever the bytes are and however they are encoded, slices are those of NumPy."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shapes import indices_of, shapes
from support.stored import in_file

from weighbridge import kernels
from weighbridge.encoding import DENSE, Dense, Encoding, scaled
from weighbridge.errors import InvalidInput
from weighbridge.file import File
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.recode import Recoded
from weighbridge.tensor import Extent, Lazy, Tensor, from_array
from weighbridge.testing.models import tensor_of

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.region import Shape

SUB_BYTE = [dense for dense in DENSE.values() if dense.grain > 1]
ENCODINGS = [*DENSE.values(), BLOCKED["q4_0"], BLOCKED["q8_0"], BLOCKED["q6_k"]]
SCALED = scaled(DENSE["f8_e4m3"], DENSE["f32"], (2, 4))

HOMES = ["memory", "<", ">"]
"""In memory, in a file, in a file of the other byte order."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensor") / "bytes"


def fitted(shape: Shape, encoding: Encoding) -> Shape:
    """Return the shape with rows of whole blocks, where the encoding has blocks."""
    return shape if isinstance(encoding, Dense) else (*shape[:-1], 2 * encoding.grain)


def placed(tensor: Tensor, home: str, path: Path) -> Tensor:
    return tensor if home == "memory" else in_file(tensor, path, home)


def decoded(tensor: Tensor) -> np.ndarray:
    parts = {part: tensor.part(part) for part in tensor.parts}
    return kernels.decode(tensor.encoding, parts, tensor.shape, None)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether two arrays are equal, bit for bit."""
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()


@given(
    shape=shapes(),
    encoding=st.sampled_from([*ENCODINGS, SCALED]),
    home=st.sampled_from(HOMES),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_slices_are_those_of_numpy(
    path: Path, shape: Shape, encoding: Encoding, home: str, seed: int, data: st.DataObject
) -> None:
    shape = (2, 8, 8) if encoding == SCALED else fitted(shape, encoding)
    tensor = tensor_of("x", encoding, shape, seed)
    lazy = placed(tensor, "<" if encoding == SCALED and home == ">" else home, path)
    index = data.draw(indices_of(shape))
    assert same(np.asarray(lazy[index]), np.asarray(decoded(tensor)[index]))


@given(
    shape=shapes(),
    encoding=st.sampled_from(ENCODINGS),
    home=st.sampled_from(HOMES),
    most=st.integers(1, 200),
)
def test_rows_follow_each_other_and_are_small(
    path: Path, shape: Shape, encoding: Encoding, home: str, most: int
) -> None:
    tensor = tensor_of("x", encoding, fitted(shape, encoding))
    values = decoded(tensor)
    rows = list(placed(tensor, home, path).rows(most))
    least = encoding.grain * values.itemsize
    assert all(row.nbytes <= max(most, least) for row in rows)
    joined = np.concatenate([row.ravel() for row in rows]) if rows else values.ravel()
    assert same(joined, values.ravel())


@pytest.mark.parametrize("shape", [(), (0, 5), (5, 0), (1,), (7,), (2, 3, 4), (3, 1, 5)])
@pytest.mark.parametrize("encoding", DENSE.values(), ids=str)
def test_every_shape_has_values(shape: Shape, encoding: Dense, path: Path) -> None:
    tensor = tensor_of("x", encoding, shape)
    for home in HOMES:
        values = placed(tensor, home, path).values()
        assert isinstance(values, np.ndarray)
        assert same(values, decoded(tensor))


@pytest.mark.parametrize("encoding", BLOCKED.values(), ids=str)
def test_blocks_of_the_other_byte_order(encoding: Encoding, path: Path) -> None:
    tensor = tensor_of("x", encoding, (3, 2 * encoding.grain))
    assert same(in_file(tensor, path, ">").values(), decoded(tensor))


@pytest.mark.parametrize(
    "index", [2, -3, (0, 0, 0), None, True, np.array([0, 1]), "a", 1.5, (..., ...), slice(0, 2, 0)]
)
def test_what_is_no_index_is_refused(index: object) -> None:
    tensor = from_array("x", np.zeros((2, 3), np.float32))
    with pytest.raises(InvalidInput) as caught:
        tensor[index]
    assert caught.value.rule == "index"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(6, dtype=">c8").reshape(2, 3),
        np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::3],
        np.arange(6, dtype=np.float64).reshape(2, 3).T,
        np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)[:, ::-1],
        np.array(3.5, np.float16),
        np.zeros((0, 4), np.int8),
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_keep_their_values(array: np.ndarray) -> None:
    tensor = from_array("x", array)
    assert tensor.shape == array.shape
    assert (tensor.values() == array).all()
    assert tensor.values().dtype == array.dtype.newbyteorder("<")


@pytest.mark.parametrize("dtype", ["U3", "O", "M8[s]", "V4", np.longdouble])
def test_an_array_that_no_encoding_holds_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_array("x", np.zeros(2, dtype))
    assert (caught.value.rule, caught.value.tensor) == ("dtype", "x")


def test_values_are_cast_once_and_by_any_name() -> None:
    tensor = from_array("x", np.array([1.00390625, 70000.0], np.float32))
    assert tensor.values("bfloat16").astype(float).tolist() == [1.0, 70144.0]
    assert tensor.values("f64").dtype == np.float64
    for dtype, rule in (("f17", "encoding"), ("float16", "overflow")):
        with pytest.raises(InvalidInput) as caught:
            tensor.values(dtype)
        assert caught.value.rule == rule


def test_a_part_is_read_only_and_is_no_copy() -> None:
    array = np.arange(4, dtype=np.float32)
    part = from_array("x", array).part()
    assert np.shares_memory(part, array)
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1


def test_several_parts_are_never_guessed() -> None:
    tensor = tensor_of("x", SCALED, (4, 8))
    assert set(tensor.parts) == {"data", "scale"}
    for wanted in (None, "zero"):
        with pytest.raises(InvalidInput) as caught:
            tensor.part(wanted)
        assert caught.value.rule == "which-part"
    with pytest.raises(InvalidInput) as caught:
        tensor.grains(((0, 1), (0, 1)))
    assert caught.value.rule == "which-part"


@pytest.mark.parametrize(
    "parts", [{}, {"data": np.zeros(7, np.uint8)}, {"data": np.zeros(8, np.uint8), "more": b""}]
)
def test_parts_must_have_the_size_of_the_shape(parts: dict) -> None:
    parts = {name: np.frombuffer(data, np.uint8) for name, data in parts.items()}
    with pytest.raises(InvalidInput) as caught:
        Tensor("x", (2,), DENSE["f32"], parts)
    assert caught.value.rule == "part-size"


def test_sub_byte_rows_that_end_inside_a_byte_are_one_row_of_bytes() -> None:
    tensor = tensor_of("x", DENSE["u4"], (3, 5))
    assert tensor.grid == (8,)
    assert tensor.grains(((2, 5),)).tobytes() == tensor.part()[2:5].tobytes()


def test_bytes_that_end_inside_a_grain_can_only_be_copied() -> None:
    tensor = tensor_of("x", DENSE["f6_e2m3"], (5,))
    assert tensor.values().shape == (5,)
    with pytest.raises(InvalidInput) as caught:
        tensor.grains(((0, 1),))
    assert caught.value.rule == "part-grain"


@given(shape=shapes(), narrow=st.sampled_from(SUB_BYTE), data=st.data())
def test_recoded_slices_are_those_of_numpy(
    shape: Shape, narrow: Dense, data: st.DataObject
) -> None:
    wide = tensor_of("x", narrow, shape)
    recoded = Recoded(Recoded(wide, DENSE["f32"]), narrow, exact=True)
    index = data.draw(indices_of(shape))
    assert same(np.asarray(recoded[index]), np.asarray(decoded(wide)[index]))
    if wide.size % narrow.grain == 0:
        whole = tuple((0, length) for length in recoded.grid)
        assert recoded.grains(whole).tobytes() == wide.part().tobytes()


def test_an_exact_recoding_refuses_to_round() -> None:
    tensor = from_array("x", np.array([0.1], np.float32))
    for read in (Lazy.values, lambda lazy: lazy.grains(((0, 1),))):
        with pytest.raises(InvalidInput) as caught:
            read(Recoded(tensor, DENSE["f16"], exact=True))
        assert caught.value.rule == "inexact"


@pytest.mark.parametrize("encoding", [*DENSE.values(), BLOCKED["q8_0"], SCALED], ids=str)
def test_a_tensor_pickles_as_its_address(encoding: Encoding, path: Path) -> None:
    tensor = in_file(tensor_of("x", encoding, (4, 64)), path)
    again = pickle.loads(pickle.dumps(tensor))
    assert again == tensor
    assert again.encoding.dtype == tensor.encoding.dtype if encoding != SCALED else True
    assert same(again.values(), tensor.values())
    assert all(isinstance(part, Extent) for part in again.parts.values())
    assert len(pickle.dumps(tensor)) < 2000


def test_values_are_a_view_of_the_file_where_they_need_no_work(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype="<i4").reshape(2, 3)
    path = tmp_path / "bytes"
    path.write_bytes(bytes(4) + numbers.tobytes())
    file = File(path)
    whole, values = (
        Tensor("x", (2, 3), DENSE["i32"], {"data": Extent(file, 4, 24)}),
        from_array("x", numbers).values(),
    )
    view = whole.values()
    assert not view.flags.writeable
    assert np.shares_memory(view, whole.part())
    assert np.shares_memory(whole.values("i32"), whole.part())
    file.close()
    assert same(view, values)
    for copy in (whole[...], whole.values("f64"), whole[:, :2]):
        assert copy.flags.writeable
        assert not np.shares_memory(copy, view)


@pytest.mark.parametrize(
    ("offset", "order", "encoding"),
    [(2, "<", DENSE["i32"]), (4, ">", DENSE["i32"]), (4, "<", DENSE["i4"])],
)
def test_values_that_need_work_are_new(
    tmp_path: Path, offset: int, order: str, encoding: Dense
) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(40)))
    where = Extent(File(path), offset, encoding.nbytes((4, 2)), order)
    values = Tensor("x", (4, 2), encoding, {"data": where}).values()
    assert values.flags.writeable
    assert values.flags.aligned
    assert not np.shares_memory(values, np.frombuffer(where.view(), np.uint8))


def test_a_tensor_is_a_frozen_value() -> None:
    tensor = from_array("x", np.ones(3, np.float32))
    with pytest.raises(AttributeError, match="cannot set shape"):
        tensor.shape = (1,)
    assert tensor == from_array("x", np.zeros(3, np.float32)) != from_array("y", np.ones(3))
    assert len({tensor, from_array("x", np.zeros(3, np.float32))}) == 1
    assert "'x', (3,)" in repr(tensor)
