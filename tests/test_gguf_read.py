from __future__ import annotations

import os
import time

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.scripts import gguf_convert_endian as swap
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import VALUE_TYPES, Raw, ggml_reads, smollm2
from support.tree import run_python

from weighbridge.checked import Reader
from weighbridge.encoding import DATA
from weighbridge.errors import Unsupported
from weighbridge.formats.gguf import FORMAT
from weighbridge.formats.gguf.strings import skip_strings
from weighbridge.metadata import LazyStrings, Value
from weighbridge.tensor import Extent

ORDERS = [pytest.param("<", id="little"), pytest.param(">", id="big")]
VERSIONS = [pytest.param(2, id="v2"), pytest.param(3, id="v3")]

SCALARS = {
    "u8": 255,
    "i8": -128,
    "u16": 65535,
    "i16": -32768,
    "u32": 2**32 - 1,
    "i32": -(2**31),
    "u64": 2**64 - 1,
    "i64": -(2**63),
    "f32": 0.15625,
    "f64": 0.1,
    "bool": True,
    "string": "Grüße 🙂",
}


def endian(order):
    return gguf.GGUFEndian.LITTLE if order == "<" else gguf.GGUFEndian.BIG


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_value_keeps_its_type(tmp_path, order, version):
    pairs = [(f"x.{type}", type, value) for type, value in SCALARS.items()]
    pairs += [(f"x.{type}s", "array", (type, [value, value])) for type, value in SCALARS.items()]
    pairs += [(f"x.no_{type}s", "array", (type, [])) for type in SCALARS]
    path = Raw(pairs, version=version, order=order).write(tmp_path / "a.gguf")
    metadata = FORMAT.open(path).metadata
    assert list(metadata) == [key for key, *_ in pairs]
    for type, value in SCALARS.items():
        assert metadata[f"x.{type}"] == Value(type, value)
        several = metadata[f"x.{type}s"]
        assert (several.type, several.items, several.plain()) == ("array", type, [value, value])
        assert metadata[f"x.no_{type}s"].plain() == []
        for item in (metadata[f"x.{type}"].data, *several.data, several.data[1]):
            assert item.__class__ is value.__class__


@pytest.mark.parametrize("order", ORDERS)
def test_the_gguf_package_writes_what_is_read(tmp_path, order):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama", endianess=endian(order))
    for name, value in SCALARS.items():
        type = gguf.GGUFValueType(VALUE_TYPES.index(name))
        writer.add_key_value(f"x.{name}", value, type)
        writer.add_key_value(f"x.{name}s", [value] * 3, gguf.GGUFValueType.ARRAY, sub_type=type)
    writer.add_key_value("x.nested", [[1, 2], [3]], gguf.GGUFValueType.ARRAY)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata = FORMAT.open(tmp_path / "a.gguf").metadata
    assert metadata["general.architecture"].plain() == "llama"
    for name, value in SCALARS.items():
        assert metadata[f"x.{name}"] == Value(name, value)
        assert metadata[f"x.{name}s"].items == name
        assert metadata[f"x.{name}s"].plain() == [value] * 3
    nested = metadata["x.nested"]
    assert nested.plain() == [[1, 2], [3]]
    assert [(inner.type, inner.items) for inner in nested.data] == [("array", "i32")] * 2


def test_arrays_nest(tmp_path):
    inner = ("string", ["a", ""])
    path = Raw([("x", "array", ("array", [("array", [inner]), ("f64", [])]))]).write(tmp_path / "a")
    value = FORMAT.open(path).metadata["x"]
    assert value.plain() == [[["a", ""]], []]
    assert [item.items for item in value.data] == ["array", "f64"]


def test_bytes_that_are_no_text_survive(tmp_path):
    bad = b"\xff\xfe ok \xed\xa0\x80"
    pairs = [("x", "string", bad), ("y", "array", ("string", [bad])), ("z", "string", bad * 9999)]
    metadata = FORMAT.open(Raw(pairs).write(tmp_path / "a")).metadata
    assert metadata["x"].data.encode("utf-8", "surrogateescape") == bad
    assert metadata["y"].data[0] == metadata["x"].data
    assert metadata["y"].data.raw(0) == bad
    assert metadata["z"].data == metadata["x"].data * 9999


def test_numbers_are_a_view_until_they_are_looked_at(tmp_path):
    path = Raw([("x", "array", ("i32", list(range(-5, 5))))], order=">").write(tmp_path / "a")
    numbers = FORMAT.open(path).metadata["x"].data
    assert numbers[2:4] == [-3, -2]
    assert not np.asarray(numbers).flags.owndata
    assert np.asarray(numbers, np.float32).tolist() == list(range(-5, 5))
    with pytest.raises(IndexError):
        numbers[10]


def prefixed(strings, order):
    raw = Raw(order=order)
    return b"".join(map(raw.text, strings))


def skipped(strings, order):
    content = prefixed(strings, order)
    reader = Reader(memoryview(b"???" + content + b"rest"), "x", 3, order)
    found = skip_strings(reader, len(strings))
    assert reader.offset == 3 + len(content)
    return [found.raw(i) for i in range(len(found))]


text = st.binary(max_size=12) | st.sampled_from(
    [b"", b"\0", b"a\0", b"\0" * 7, b"\0" * 8, b"x" * 255, b"x" * 256, b"x" * 257, b"y" * 5000]
)


@pytest.mark.parametrize("order", ORDERS)
@given(strings=st.lists(text, max_size=60), repeated=st.integers(1, 30))
def test_strings_are_found_whatever_they_hold(order, strings, repeated):
    strings = strings * repeated
    assert skipped(strings, order) == strings


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "strings",
    [
        pytest.param([str(i).encode() for i in range(50_000)], id="short"),
        pytest.param([b"x" * (i % 300) for i in range(2_000)], id="some long"),
        pytest.param([b""] * 5_000, id="empty"),
        pytest.param([b"a" * 100_000, b"b"] * 3, id="longer than a window"),
        pytest.param([b"a\0" if i % 100 == 0 else b"abc" for i in range(5_000)], id="some zeros"),
        pytest.param([bytes([i % 256]) for i in range(5_000)], id="single bytes"),
    ],
)
def test_strings_are_found_in_long_arrays(order, strings):
    assert skipped(strings, order) == strings


def test_arrays_of_strings_stay_in_the_file(tmp_path):
    tokens = [f"<{i}>" for i in range(1000)]
    found = FORMAT.open(Raw([("x", "array", ("string", tokens))]).write(tmp_path / "a"))
    data = found.metadata["x"].data
    assert isinstance(data, LazyStrings)
    assert list(data) == tokens == [data[i] for i in range(1000)]
    assert data[-1] == "<999>"


DENSE = {
    "f32": np.array([[1, -2.5, 3]], np.float32),
    "f16": np.array([[1, -2.5, 3]], np.float16),
    "f64": np.array([0.1, -2.5, 3]),
    "i8": np.array([1, -2, 3], np.int8),
    "i16": np.array([1, -2, 3], np.int16),
    "i32": np.arange(24, dtype=np.int32).reshape(1, 2, 3, 4),
    "i64": np.array([1, -2, 2**60]),
}


@pytest.mark.parametrize("order", ORDERS)
def test_tensors_in_either_byte_order(tmp_path, order):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama", endianess=endian(order))
    for name, array in DENSE.items():
        writer.add_tensor(name, array)
    bf16 = np.arange(-4, 4, dtype=np.float32).astype(ml_dtypes.bfloat16)
    stored = bf16.view(np.uint16)
    stored = stored.byteswap() if order == ">" else stored
    writer.add_tensor("bf16", stored.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    written(writer)
    model = FORMAT.open(tmp_path / "a.gguf")
    for name, array in {**DENSE, "bf16": bf16}.items():
        tensor = model.tensors[name]
        assert (tensor.encoding.name, tensor.shape) == (name, array.shape)
        np.testing.assert_array_equal(tensor.values(), array)
    np.testing.assert_array_equal(model.tensors["i32"][0, 1:, ::2, 1], DENSE["i32"][0, 1:, ::2, 1])


def written(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


SWAPPED = [
    pytest.param(type, function, id=type.name)
    for type, function in swap.byteswap_tensors.items()
    if type.name in ("Q4_0", "Q8_0", "Q4_K", "Q6_K", "MXFP4")
]


@pytest.mark.parametrize(("type", "function"), SWAPPED)
def test_blocks_in_big_endian_files(tmp_path, type, function):
    """What the script ``gguf-convert-endian`` makes of little-endian blocks is read as them."""
    _, size = gguf.GGML_QUANT_SIZES[type]
    blocks = np.random.default_rng(1).integers(0, 256, (4, 3 * size), np.uint8)
    foreign = Swapped(blocks.copy().reshape(-1))
    for offset in range(0, blocks.size, size):
        function(foreign, offset)
    for order, content in (("<", blocks), (">", foreign.data.reshape(blocks.shape))):
        writer = gguf.GGUFWriter(tmp_path / order, "llama", endianess=endian(order))
        writer.add_tensor("x", content, raw_dtype=type)
        written(writer)
    little, big = (FORMAT.open(tmp_path / order).tensors["x"] for order in "<>")
    assert big.shape == little.shape
    np.testing.assert_array_equal(little.values(), big.values())
    whole = ((0, 4), (0, 3))
    assert little.grains(whole).tobytes() == big.grains(whole).tobytes() == blocks.tobytes()


class Swapped:
    """What the script's functions take for a tensor."""

    def __init__(self, data):
        self.data = data


def test_blocks_of_unsettled_byte_order_are_refused(tmp_path):
    raw = Raw(tensors=[("x", [256], 16, 0)], data=bytes(66))
    assert FORMAT.open(raw.write(tmp_path / "little")).tensors["x"].encoding.name == "iq2_xxs"
    raw.order = ">"
    with pytest.raises(Unsupported) as refused:
        FORMAT.open(raw.write(tmp_path / "big"))
    assert (refused.value.rule, refused.value.tensor) == ("byte-order", "x")


@pytest.mark.parametrize("alignment", [8, 16, 64, 4096])
def test_alignment_is_honoured(tmp_path, alignment):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_custom_alignment(alignment)
    for i in range(3):
        writer.add_tensor(f"x{i}", np.full(i + 1, i, np.int8))
    written(writer)
    model = FORMAT.open(tmp_path / "a.gguf")
    assert [t.values().tolist() for t in model.tensors.values()] == [[0], [1, 1], [2, 2, 2]]
    assert all(t.parts[DATA].offset % alignment == 0 for t in model.tensors.values())


def test_a_tensor_without_axes_is_one_number(tmp_path):
    path = tmp_path / "a.gguf"
    Raw(tensors=[("x", [], 0, 0)], data=np.float32(7).tobytes()).write(path)
    assert FORMAT.open(path).tensors["x"].values() == np.float32(7)
    assert gguf.GGUFReader(path).tensors[0].data.tolist() == 7
    assert ggml_reads(path) == {"x": (0, 64, 4)}


def test_order_and_holes_of_the_data_are_free(tmp_path):
    """The specification asks for neither; ggml itself reads no such file."""
    data = bytearray(bytes(96) + np.float32(2).tobytes() + bytes(28) + np.float32(1).tobytes())
    path = Raw(tensors=[("a", [1], 0, 128), ("b", [1], 0, 96)], data=bytes(data)).write(
        tmp_path / "a"
    )
    model = FORMAT.open(path)
    assert [(name, t.values().tolist()) for name, t in model.tensors.items()] == [
        ("a", [1]),
        ("b", [2]),
    ]
    assert ggml_reads(path) is None


@pytest.mark.parametrize("padding", [0, 1, 32])
def test_a_model_without_tensors_opens(tmp_path, padding):
    content = Raw([("general.architecture", "string", "llama")]).header() + bytes(padding)
    (tmp_path / "a").write_bytes(content)
    model = FORMAT.open(tmp_path / "a")
    assert (len(model.tensors), len(model.metadata)) == (0, 1)


def test_an_empty_file_of_the_format_opens(tmp_path):
    model = FORMAT.open(Raw().write(tmp_path / "a"))
    assert (dict(model.tensors), dict(model.metadata)) == ({}, {})


def test_weights_are_not_read(tmp_path):
    """Two terabytes of weights, which are a hole in the file, take no time."""
    path = Raw(tensors=[("x", [1 << 20, 1 << 19], 0, 0)]).write(tmp_path / "a")
    os.truncate(path, 64 * 1024 + (1 << 41))
    start = time.perf_counter()
    model = FORMAT.open(path)
    assert time.perf_counter() - start < 1
    assert model.nbytes == 1 << 41
    assert model.tensors["x"][1 << 18, 5:7].tolist() == [0, 0]
    model.close()


def test_no_page_behind_the_header_is_touched(tmp_path):
    """The weights are cut off once the file is mapped: a look at them would be the end (SIGBUS)."""
    tokens = [str(i % 10) for i in range(20_000)]
    raw = Raw([("x", "array", ("string", tokens))], [("x", [1 << 20], 0, 0)], bytes(1 << 22))
    path = raw.write(tmp_path / "a.gguf")
    code = """if True:
        import os, sys
        from weighbridge.file import File
        from weighbridge.formats.gguf.parse import parse
        file = File(sys.argv[1])
        file.view()
        os.truncate(file.path, int(sys.argv[2]))
        part = parse(file)
        print(len(part.metadata["x"].data), part.tensors["x"].nbytes)
    """
    assert run_python(code, str(path), str(len(raw.header()))) == "20000 4194304\n"


def test_closing_leaves_what_was_handed_out(tmp_path):
    pairs = [("x", "array", ("string", ["a", "b"])), ("y", "string", "z" * 5000)]
    model = FORMAT.open(Raw(pairs, [("x", [2], 0, 0)], data=bytes(8)).write(tmp_path / "a"))
    part = model.tensors["x"].part()
    model.close()
    assert list(model.metadata["x"].data) == ["a", "b"]
    assert model.metadata["y"].data == "z" * 5000
    assert part.tolist() == [0] * 8


@pytest.fixture(scope="module")
def reader():
    return gguf.GGUFReader(smollm2())


def test_the_real_model_has_the_same_key_values(reader):
    model = FORMAT.open(smollm2())
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert list(model.metadata) == list(fields)
    for key, field in fields.items():
        value = model.metadata[key]
        types = [VALUE_TYPES[int(type)] for type in field.types]
        assert [value.type, *([value.items] if value.items else [])] == types
        assert value.plain() == field.contents()


def test_the_real_model_has_the_same_tensors(reader):
    model = FORMAT.open(smollm2())
    assert list(model.tensors) == [tensor.name for tensor in reader.tensors]
    for expected in reader.tensors:
        tensor = model.tensors[expected.name]
        assert tensor.shape == tuple(reversed(expected.shape.tolist()))
        assert tensor.encoding.name == expected.tensor_type.name.lower()
        assert tensor.part().tobytes() == expected.data.tobytes()
        assert tensor.parts == {
            DATA: Extent(model.resources[0], expected.data_offset, expected.n_bytes)
        }


def test_ggml_finds_the_tensors_of_the_real_model_there_too():
    model = FORMAT.open(smollm2())
    found = {
        name: (tensor.parts[DATA].offset, tensor.nbytes) for name, tensor in model.tensors.items()
    }
    assert found == {name: where[1:] for name, where in ggml_reads(smollm2()).items()}
