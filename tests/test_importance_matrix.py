"""Importance matrices: what is read of both forms, and what is refused of bent ones."""

from __future__ import annotations

import contextlib
import struct

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.importance import CHUNKS, DATASET, Sums, dat, made_up, write_gguf

from weighbridge.converters import imatrix
from weighbridge.errors import Error, InvalidFile, NotFound

MATRICES = {
    "blk.0.attn_q.weight": made_up(32),
    "blk.0.ffn_up_exps.weight": made_up(64, (3, 0, 5), seed=1),
}
"""A matrix, and a stack of three experts of whom one had no input."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.imatrix"


def refused(path, content: bytes) -> str:
    """Return the rule by which a file is refused, in one line that names the file."""
    path.write_bytes(content)
    with pytest.raises(InvalidFile) as caught:
        imatrix.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    return caught.value.rule


def test_the_present_form(path):
    found = imatrix.read(write_gguf(path, MATRICES))
    assert list(found.entries) == list(MATRICES)
    for name, held in MATRICES.items():
        np.testing.assert_array_equal(found.entries[name], held.means())
        assert found.entries[name].dtype == np.float32
    assert found.entries["blk.0.ffn_up_exps.weight"][64:128].tolist() == [1.0] * 64
    assert (found.datasets, found.chunks, found.path) == ((DATASET,), CHUNKS, path)


def test_the_former_form(path):
    sums = {name: held.sums.reshape(-1) for name, held in MATRICES.items()}
    path.write_bytes(dat(sums, calls=3))
    found = imatrix.read(path)
    assert list(found.entries) == list(sums)
    for name, held in sums.items():
        np.testing.assert_array_equal(found.entries[name], held / np.float32(3))
    assert (found.datasets, found.chunks) == ((DATASET,), CHUNKS)


@pytest.mark.parametrize("calls", [0, -1])
def test_sums_of_no_call_are_taken_as_they_are(path, calls):
    held = np.arange(32, dtype=np.float32)
    path.write_bytes(dat({"x": held}, calls=calls))
    np.testing.assert_array_equal(imatrix.read(path).entries["x"], held)


def test_a_file_from_before_march_2024(path):
    path.write_bytes(dat({"x": np.ones(32, np.float32)}, origin=False))
    found = imatrix.read(path)
    assert (found.datasets, found.chunks) == ((), 0)
    assert set(imatrix.metadata(found)) == {
        "quantize.imatrix.file",
        "quantize.imatrix.entries_count",
    }


def test_entries_have_the_shape_of_their_tensor(path):
    found = imatrix.read(write_gguf(path, MATRICES))
    assert found.of("blk.0.attn_q.weight", (5, 32)).weights.shape == (32,)
    assert found.of("blk.0.ffn_up_exps.weight", (3, 5, 64)).weights.shape == (3, 64)
    assert found.of("blk.1.attn_q.weight", (5, 32)) is None
    with pytest.raises(Error) as caught:
        found.of("blk.0.attn_q.weight", (5, 64))
    assert (caught.value.rule, caught.value.tensor) == ("importance", "blk.0.attn_q.weight")


def test_embeddings_of_another_size_are_as_good_as_missing(path):
    found = imatrix.read(write_gguf(path, {"token_embd.weight": made_up(32)}))
    assert found.of("token_embd.weight", (100, 64)) is None


def test_there_is_no_file(path):
    with pytest.raises(NotFound):
        imatrix.read(path)


def test_the_former_form_cut_anywhere(path):
    """All but the bytes from before March 2024 are refused."""
    sums = {"a": np.ones(4, np.float32), "b.weight": np.ones(3, np.float32)}
    whole, former = dat(sums), len(dat(sums, origin=False))
    for length in range(len(whole)):
        if length != former:
            assert refused(path, whole[:length]) in ("truncated", "count")


def test_the_present_form_cut_anywhere(path):
    whole = write_gguf(path, {"a.weight": made_up(4)}).read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length < len(whole.rstrip(b"\0")):
            with pytest.raises(InvalidFile):
                imatrix.read(path)


ENTRY = struct.pack("<i1sii4f", 1, b"x", 1, 4, 1, 2, 3, 4)
"""An entry of four values."""


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (struct.pack("<i", 0), "empty"),
        (struct.pack("<i", -1) + ENTRY, "count"),
        (struct.pack("<i", 1 << 30) + ENTRY, "count"),
        (struct.pack("<i", 2) + ENTRY + ENTRY, "duplicate-tensor"),
        (struct.pack("<ii", 1, -1) + ENTRY[4:], "count"),
        (struct.pack("<ii", 1, 1 << 30) + ENTRY[4:], "count"),
        (struct.pack("<ii", 1, 0) + ENTRY[5:] + b"x", "empty-name"),
        (struct.pack("<ii", 1, 1) + b"\xff" + ENTRY[5:], "utf-8"),
        (struct.pack("<ii1sii", 1, 1, b"x", 1, 0) + bytes(16), "count"),
        (struct.pack("<ii1sii", 1, 1, b"x", 1, -4) + bytes(16), "count"),
        (struct.pack("<i", 1) + ENTRY + struct.pack("<ii", 1, 9), "count"),
        (struct.pack("<i", 1) + ENTRY + struct.pack("<ii1s", 1, 1, b"d") + b"!", "trailing-bytes"),
        (b"", "truncated"),
        (b"\x7fELF" + bytes(60), "count"),
    ],
)
def test_bent_files_of_the_former_form(path, content, rule):
    assert refused(path, content) == rule


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("former", [True, False])
def test_weights_are_finite_and_not_negative(path, value, former):
    sums = np.float32([[1, value, 2, 3]])
    if former:
        content = dat({"x": sums[0]})
    else:
        content = write_gguf(path, {"x": Sums(sums, (1,))}).read_bytes()
    assert refused(path, content) == "importance"


def test_sums_that_overflow_when_they_are_divided(path):
    content = write_gguf(path, {"x": Sums(np.float32([[3e38]]), (1,))}).read_bytes()
    assert refused(path, content.replace(np.float32(1).tobytes(), np.float32(0.5).tobytes())) == (
        "importance"
    )


def present(path, **changes) -> bytes:
    """Return a GGUF file of an entry `x` of two experts, something of it changed, or gone."""
    held = {
        "datasets": [DATASET],
        "chunk_count": 1,
        "chunk_size": 512,
        "in_sum2": np.ones((2, 4), np.float32),
        "counts": np.ones((2, 1), np.float32),
    }
    writer = gguf.GGUFWriter(path, arch="")
    writer.kv_data[0].clear()
    kinds = {list: writer.add_array, int: writer.add_uint32, str: writer.add_string}
    for name, value in (held | changes).items():
        if isinstance(value, np.ndarray):
            writer.add_tensor(f"x.{name}", value)
        elif value is not None:
            kinds[type(value)](f"imatrix.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


BENT = {
    "no datasets": ({"datasets": None}, "missing-key"),
    "no chunk count": ({"chunk_count": None}, "missing-key"),
    "no chunk size": ({"chunk_size": None}, "missing-key"),
    "a text for datasets": ({"datasets": "x"}, "value-type"),
    "numbers for datasets": ({"datasets": [1]}, "value-type"),
    "a text for the chunk count": ({"chunk_count": "x"}, "value-type"),
    "no tensors": ({"counts": None, "in_sum2": None}, "empty"),
    "no counts": ({"counts": None}, "mismatched"),
    "no sums": ({"in_sum2": None}, "mismatched"),
    "more counts": ({"counts": np.ones((3, 1), np.float32)}, "mismatched"),
    "a third axis": ({"in_sum2": np.ones((2, 2, 4), np.float32)}, "mismatched"),
    "negative counts": ({"counts": np.float32([[1], [-1]])}, "mismatched"),
    "no number for a count": ({"counts": np.float32([[1], [np.nan]])}, "mismatched"),
    "counts of half precision": ({"counts": np.ones((2, 1), np.float16)}, "dtype"),
    "sums of integers": ({"in_sum2": np.ones((2, 4), np.int32)}, "dtype"),
}
"""What is changed -> how, and the rule by which the file is refused."""


@pytest.mark.parametrize("name", BENT)
def test_bent_files_of_the_present_form(path, name):
    changes, rule = BENT[name]
    assert refused(path, present(path, **changes)) == rule


def test_other_tensors_are_let_be(path):
    """As llama-quantize does: later versions of llama-imatrix may store more."""
    path.write_bytes(present(path, in_sum=np.ones((2, 4), np.float32)))
    assert list(imatrix.read(path).entries) == ["x"]


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), former=st.booleans())
def test_no_byte_makes_it_fail_in_another_way(tmp_path_factory, place, byte, former):
    path = tmp_path_factory.mktemp("bent") / "x"
    whole = bytearray(dat({"ab": np.ones(8, np.float32)}) if former else present(path))
    whole[place % len(whole)] = byte
    path.write_bytes(whole)
    with contextlib.suppress(Error):
        found = imatrix.read(path)
        assert all(np.isfinite(weights).all() for weights in found.entries.values())
