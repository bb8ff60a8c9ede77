from __future__ import annotations

import struct

import gguf
import ml_dtypes
import numpy as np
import pytest
from support.gguf_files import VALUE_TYPES, Raw, ggml_reads, smollm2
from support.writing import write_layout

from weighbridge.encoding import DATA, DENSE, scaled
from weighbridge.errors import Error, InvalidFile, InvalidInput, Unsupported
from weighbridge.formats.gguf import FORMAT
from weighbridge.formats.gguf.serialise import key_value
from weighbridge.formats.gguf.types import ENCODINGS, TYPE_IDS
from weighbridge.layout import LayoutOptions
from weighbridge.metadata import LazyStrings, Value, array, scalar, string
from weighbridge.model import Model
from weighbridge.tensor import Tensor, from_array

RANDOM = np.random.default_rng(1)

SCALARS = {
    "u8": 200,
    "i8": -100,
    "u16": 60000,
    "i16": -30000,
    "u32": 4_000_000_000,
    "i32": -2_000_000_000,
    "u64": 2**64 - 1,
    "i64": -(2**63),
    "f32": 0.1,
    "f64": 0.1,
    "bool": True,
    "string": "Grüße 🙂",
}

ARRAYS = {
    "f32": np.arange(12, dtype=np.float32).reshape(3, 4),
    "f16": np.ones((1, 2, 3, 4), np.float16),
    "f64": np.array([0.1]),
    "i8": np.arange(5, dtype=np.int8),
    "i16": np.arange(33, dtype=np.int16),
    "i32": np.arange(2, dtype=np.int32),
    "i64": np.arange(7).reshape(1, 7),
}


def model_of(tensors=(), metadata=()):
    named = {tensor.name: tensor for tensor in tensors}
    return Model("gguf", "gguf", named, {"general.architecture": string("llama"), **dict(metadata)})


def write(model, directory, **options):
    layout = FORMAT.layout(model, "model.gguf", LayoutOptions(**options))
    return write_layout(layout, model, directory)


def reference(path, pairs=(), tensors=(), **options):
    """Return the files that gguf-py writes of the same content, as bytes by name."""
    writer = gguf.GGUFWriter(path / "model.gguf", "llama", **options)
    for key, value in pairs:
        type = gguf.GGUFValueType(VALUE_TYPES.index(value.type))
        items = value.items and gguf.GGUFValueType(VALUE_TYPES.index(value.items))
        writer.add_key_value(key, value.plain(), type, sub_type=items)
        if key == "general.alignment":
            writer.data_alignment = value.data
    for tensor in tensors:
        type = gguf.GGMLQuantizationType(TYPE_IDS[tensor.encoding.name])
        rows = tensor.part().reshape(*tensor.shape[:-1], -1)
        writer.add_tensor(tensor.name, rows, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {file.name: file.read_bytes() for file in path.glob("*.gguf")}


@pytest.fixture
def folders(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    return ours, theirs


def same_files(model, folders, **options):
    ours, theirs = folders
    pairs = list(model.metadata.items())[1:]  # the writer adds the architecture itself
    most = options.get("shard_size", 0)
    expected = reference(theirs, pairs, model.tensors.values(), split_max_size=most)
    paths = write(model, ours, **options)
    assert {path.name: path.read_bytes() for path in paths} == expected
    return paths


def test_every_value_type_is_written_as_the_gguf_package_does(folders):
    pairs = {f"x.{type}": scalar(type, value) for type, value in SCALARS.items()}
    pairs |= {f"x.{type}s": array(type, [value] * 3) for type, value in SCALARS.items()}
    same_files(model_of(metadata=pairs), folders)


def test_every_dense_type_is_written_as_the_gguf_package_does(folders):
    bf16 = from_array("bf16", np.arange(3, dtype=np.float32).astype(ml_dtypes.bfloat16))
    tensors = [*(from_array(name, values) for name, values in ARRAYS.items()), bf16]
    same_files(model_of(tensors), folders)


def blocks(name, number, rows=3):
    encoding = ENCODINGS[number]
    shape = (rows, 2 * encoding.grain)
    content = RANDOM.integers(0, 256, encoding.nbytes(shape), np.uint8)
    return Tensor(name, shape, encoding, {DATA: content})


KNOWN = [int(t) for t in gguf.GGMLQuantizationType if t.name != "Q8_1"]


def test_every_type_of_the_gguf_package_is_written_as_it_does(folders):
    same_files(model_of([blocks(f"x{number}", number) for number in KNOWN]), folders)


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_alignment(folders, alignment):
    tensors = [from_array(name, values) for name, values in ARRAYS.items()]
    same_files(model_of(tensors, {"general.alignment": scalar("u32", alignment)}), folders)


def test_no_tensors(folders):
    (path,) = same_files(model_of(metadata={"x": string("y")}), folders)
    assert ggml_reads(path) == {}


def test_the_real_model_comes_out_as_it_went_in(tmp_path):
    (path,) = write(FORMAT.open(smollm2()), tmp_path)
    assert path.read_bytes() == smollm2().read_bytes()


@pytest.mark.parametrize("size", [1, 40, 64, 100, 150, 10_000])
def test_splitting_by_size(folders, size):
    """The converter of llama.cpp splits with this writer."""
    tensors = [from_array(name, values) for name, values in ARRAYS.items()]
    paths = same_files(model_of(tensors, {"x": array("string", ["a"])}), folders, shard_size=size)
    assert (len(paths) > 1) == (size < 400)
    for path in paths:
        assert ggml_reads(path) is not None


@pytest.mark.parametrize("number", [pytest.param(n, id=e.name) for n, e in ENCODINGS.items()])
def test_ggml_reads_every_type(tmp_path, number):
    model = model_of([blocks("a", number), from_array("b", np.zeros(3, np.int8))])
    (path,) = write(model, tmp_path)
    where = FORMAT.layout(model, "model.gguf", LayoutOptions()).slots
    assert ggml_reads(path) == {
        name: (type, where[name, DATA].offset, where[name, DATA].length)
        for name, type in (("a", number), ("b", 24))
    }


def test_the_gguf_package_reads_what_is_written(tmp_path):
    pairs = {f"x.{type}": scalar(type, value) for type, value in SCALARS.items()}
    tensors = [from_array(name, values) for name, values in ARRAYS.items()]
    (path,) = write(model_of(tensors, pairs), tmp_path)
    reader = gguf.GGUFReader(path)
    for type, value in SCALARS.items():
        field = reader.fields[f"x.{type}"]
        assert field.types == [gguf.GGUFValueType(VALUE_TYPES.index(type))]
        assert field.contents() == (np.float32(value) if type == "f32" else value)
    for tensor in reader.tensors:
        np.testing.assert_array_equal(tensor.data, ARRAYS[tensor.name])


def test_each_part_is_read_by_the_gguf_package(tmp_path):
    tensors = [from_array(name, values) for name, values in ARRAYS.items()]
    pairs = {"general.alignment": scalar("u32", 64), "x": string("y")}
    paths = write(model_of(tensors, pairs), tmp_path, shard_size=64)
    found = {}
    for number, path in enumerate(paths):
        reader = gguf.GGUFReader(path)
        keys = [key for key in reader.fields if not key.startswith("GGUF.")]
        own = ["split.no", "split.count", "split.tensors.count"]
        first = ["general.architecture", "general.alignment", "x"]
        assert keys == (first if number == 0 else ["general.alignment"]) + own
        assert [reader.fields[key].contents() for key in own] == [number, len(paths), len(ARRAYS)]
        assert [reader.fields[key].types[0].name for key in own] == ["UINT16", "UINT16", "INT32"]
        assert all(tensor.data_offset % 64 == 0 for tensor in reader.tensors)
        found |= {tensor.name: tensor.data for tensor in reader.tensors}
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)


def everything():
    pairs = [(f"x.{type}", type, value) for type, value in SCALARS.items()]
    pairs += [(f"x.{type}s", "array", (type, [value] * 2)) for type, value in SCALARS.items()]
    pairs += [(f"x.no_{type}s", "array", (type, [])) for type in SCALARS]
    pairs += [
        ("x.empty", "string", ""),
        ("x.bytes", "string", b"\xff\xc0"),
        ("x.long", "string", b"\xff" * 5000),
        ("x.texts", "array", ("string", [b"\xff", b"", b"a" * 300, "é"])),
        ("x.nested", "array", ("array", [("array", [("u8", [1])]), ("string", [""])])),
        ("x.nan", "array", ("f32", [struct.pack("<I", 0x7FC00123), struct.pack("<I", 1 << 31)])),
        ("general.architecture", "string", "llama"),
    ]
    return Raw(pairs)


def test_every_value_comes_back(tmp_path):
    source = FORMAT.open(everything().write(tmp_path / "source"))
    (path,) = write(source, tmp_path)
    again = FORMAT.open(path)
    *others, last = source.metadata
    assert list(again.metadata) == [last, *others]
    assert last == "general.architecture"
    assert len(path.read_bytes()) - len(everything().header()) in range(32)
    for key, value in source.metadata.items():
        assert key_value(key, again.metadata[key]) == key_value(key, value)
    raw = everything()
    for key, type, value in raw.pairs:
        assert key_value(key, again.metadata[key]) == raw.text(key) + raw.value(type, value)


@pytest.mark.parametrize("order", [pytest.param("<", id="little"), pytest.param(">", id="big")])
def test_a_file_of_either_byte_order_is_written_little_endian(tmp_path, order):
    strings = ["a", "", "b" * 300, "é"] * 50
    pairs = [("x", "array", ("string", strings)), ("y", "array", ("u16", [1, 2]))]
    source = FORMAT.open(Raw(pairs, version=2, order=order).write(tmp_path / "source"))
    (path,) = write(source, tmp_path)
    content = Raw(pairs).content()
    assert path.read_bytes() == content + bytes(-len(content) % 32)


def test_strings_out_of_order_are_written_in_the_order_of_the_array():
    buffer = memoryview(b"........worldhello")
    strings = LazyStrings(buffer, [13, 8], [5, 5])
    written = key_value("x", array("string", strings))
    assert written == key_value("x", array("string", ["hello", "world"]))


@pytest.mark.parametrize(
    "strings",
    [
        pytest.param(["a", "", "é" * 200, "\udcff"] * 9, id="usual"),
        pytest.param(["a\0b", "\0", ""], id="zeros"),
        pytest.param(["", ""], id="empty"),
        pytest.param([], id="none"),
        pytest.param(("x" * 70_000, "y"), id="long"),
    ],
)
def test_strings_from_memory(strings):
    raw = Raw()
    members = [item.encode("utf-8", "surrogateescape") for item in strings]
    expected = raw.text("x") + raw.value("array", ("string", members))
    assert key_value("x", array("string", strings)) == expected


def test_a_tensor_without_axes(tmp_path):
    model = model_of([from_array("x", np.float32(7).reshape(()))])
    (path,) = write(model, tmp_path)
    assert ggml_reads(path).keys() == {"x"}
    assert gguf.GGUFReader(path).tensors[0].data.tolist() == 7
    again = FORMAT.open(path).tensors["x"]
    assert (again.shape, again.values().tolist()) == ((), 7)


def test_numbers_may_be_arrays():
    values = np.arange(3, dtype=">u4")
    expected = key_value("x", array("u32", [0, 1, 2]))
    for given in (values, values.astype("<u4"), values.astype(np.int64), tuple(values)):
        assert key_value("x", array("u32", given)) == expected


def test_layout_is_pure_and_repeatable():
    tensors = [from_array(name, values) for name, values in ARRAYS.items()]
    first, second = (
        FORMAT.layout(model_of(tensors), "model.gguf", LayoutOptions(shard_size=64))
        for _ in range(2)
    )
    assert first == second
    ends = [(slot.file, slot.offset, slot.offset + slot.length) for slot in first.slots.values()]
    assert ends == sorted(ends)
    assert all(offset % 32 == 0 for _, offset, _ in ends)


@pytest.mark.parametrize("name", ["out.gguf", "out", "out-00001-of-00009.gguf"])
def test_parts_take_their_names_from_the_target(name):
    tensors = [from_array(name, values) for name, values in ARRAYS.items()]
    layout = FORMAT.layout(model_of(tensors), name, LayoutOptions(shard_size=200))
    assert [file.name for file in layout.files] == [
        "out-00001-of-00002.gguf",
        "out-00002-of-00002.gguf",
    ]


def test_one_part_keeps_the_name_and_says_nothing_of_parts():
    stale = {"split.no": scalar("u16", 1), "split.count": scalar("u16", 3)}
    model = model_of([from_array("x", ARRAYS["f32"])], stale)
    (file,) = FORMAT.layout(model, "a.gguf", LayoutOptions(shard_size=1000)).files
    assert file.name == "a.gguf"
    assert b"split." not in file.pieces[0][1]


def test_what_a_merged_file_says_is_kept():
    merged = {"split.no": scalar("u16", 0), "split.count": scalar("u16", 0)}
    (file,) = FORMAT.layout(model_of(metadata=merged), "a.gguf", LayoutOptions()).files
    assert file.pieces[0][1].count(b"split.") == 2


def test_names_of_63_bytes_are_written(tmp_path):
    model = model_of([from_array("é" * 31 + "x", ARRAYS["f32"])])
    (path,) = write(model, tmp_path)
    assert ggml_reads(path).keys() == model.tensors.keys()


@pytest.mark.parametrize(
    ("rule", "tensor"),
    [
        ("name-length", from_array("x" * 64, ARRAYS["f32"])),
        ("name-length", from_array("é" * 32, ARRAYS["f32"])),
        ("name-zero", from_array("a\0b", ARRAYS["f32"])),
        ("dimensions", from_array("x", np.zeros((1, 1, 1, 1, 1), np.float32))),
        ("zero-dimension", from_array("x", np.zeros((2, 0), np.float32))),
        ("encoding", from_array("x", np.zeros(2, np.uint8))),
        ("encoding", from_array("x", np.zeros(2, bool))),
        ("encoding", Tensor("x", (4,), DENSE["u4"], {DATA: np.zeros(2, np.uint8)})),
        (
            "encoding",
            Tensor(
                "x",
                (4,),
                scaled(DENSE["i8"], DENSE["f32"], (4,)),
                {DATA: np.zeros(4, np.uint8), "scale": np.zeros(4, np.uint8)},
            ),
        ),
    ],
)
def test_what_gguf_cannot_hold_is_refused(rule, tensor):
    with pytest.raises(Unsupported) as error:
        FORMAT.layout(model_of([tensor]), "a.gguf", LayoutOptions())
    assert (error.value.rule, error.value.tensor) == (rule, tensor.name)


def test_ggml_reads_no_longer_names(tmp_path):
    path = Raw(tensors=[("x" * 64, [1], 0, 0)], data=bytes(32)).write(tmp_path / "a")
    assert ggml_reads(path) is None
    assert list(FORMAT.open(path).tensors) == ["x" * 64]


def test_too_many_parts_are_refused():
    tensors = [from_array(f"x{i}", np.zeros(1, np.int8)) for i in range(65536)]
    with pytest.raises(Unsupported) as error:
        FORMAT.layout(model_of(tensors), "a.gguf", LayoutOptions(shard_size=1))
    assert error.value.rule == "shard-count"


@pytest.mark.parametrize("number", [0, 12, 4, 1 << 40, -8])
def test_alignments_that_no_file_can_have_are_refused(number):
    with pytest.raises(Error) as error:
        FORMAT.layout(
            model_of(metadata={"general.alignment": scalar("u32", number)}), "a", LayoutOptions()
        )
    assert error.value.rule in ("alignment", "value-range")


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("value-range", scalar("u8", 256)),
        ("value-range", scalar("u8", -1)),
        ("value-range", scalar("u8", 0.5)),
        ("value-range", scalar("u8", "1")),
        ("value-range", scalar("f32", 1e300)),
        ("value-range", scalar("bool", 2)),
        ("value-range", scalar("string", 1)),
        ("value-range", array("u8", 1)),
        ("value-range", array("u8", [1, 256])),
        ("value-range", array("bool", [True, 2])),
        ("value-range", array("string", ["a", 1])),
        ("value-range", array("array", [1])),
        ("value-range", array("i32", np.array([0.5]))),
        ("value-type", Value("u128", 1)),
        ("value-type", array("u128", [1])),
        ("value-type", Value("array", [1])),
        ("utf-8", string("\ud800")),
        ("utf-8", array("string", ["\ud800"])),
    ],
)
def test_values_that_are_not_of_their_type_are_refused(rule, value):
    with pytest.raises(InvalidInput) as error:
        key_value("x", value)
    assert error.value.rule == rule


def test_keys_and_names_are_text():
    with pytest.raises(InvalidInput) as error:
        key_value("\udcff", string(""))
    assert error.value.rule == "utf-8"
    with pytest.raises(InvalidInput) as error:
        FORMAT.layout(model_of([from_array("\udcff", ARRAYS["f32"])]), "a", LayoutOptions())
    assert error.value.rule == "utf-8"


@pytest.mark.parametrize("key", ["", "x" * 65536, "é" * 32768])
def test_keys_of_no_or_too_many_bytes_are_refused(key):
    with pytest.raises(InvalidInput) as error:
        key_value(key, string(""))
    assert error.value.rule == "key-length"


def test_the_longest_key_comes_back(tmp_path):
    model = model_of(metadata={"x" * 65535: string("y")})
    (path,) = write(model, tmp_path)
    assert FORMAT.open(path).metadata["x" * 65535] == string("y")


def test_a_file_that_lies_about_its_alignment_is_an_invalid_file():
    with pytest.raises(InvalidFile):
        FORMAT.layout(model_of(metadata={"general.alignment": string("8")}), "a", LayoutOptions())
