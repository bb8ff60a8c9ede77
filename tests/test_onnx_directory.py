"""Directories of ONNX files: which are meant, what goes with them, and what is refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from support.command import called
from support.exported import named

import weighbridge as wb
from weighbridge.api import sniff
from weighbridge.errors import Error
from weighbridge.formats.huggingface import FORMAT as HUGGING_FACE
from weighbridge.formats.onnx_directory import FORMAT

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

ONES = np.ones((2, 3), np.float32)


def graph(**tensors: Any) -> onnx.ModelProto:
    """Return a graph with initialisers, one of which it reads."""
    node = helper.make_node("Identity", [next(iter(tensors))], ["y"])
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    return _model(node, weights)


def _model(node: onnx.NodeProto, weights: list[TensorProto]) -> onnx.ModelProto:
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    made = helper.make_graph([node], "graph", [], outputs, weights)
    return helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def external(location: str, offset: str = "0", length: str | None = None) -> onnx.ModelProto:
    """Return a graph whose only weight lies in another file."""
    tensor = numpy_helper.from_array(ONES, "a.weight")
    external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    for key, value in (("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return _model(helper.make_node("Identity", ["a.weight"], ["y"]), [tensor])


def directory(path: Path, files: dict[str, Any]) -> Path:
    """Write files: graphs, bytes, or what becomes JSON."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = (
                content.SerializeToString()
                if hasattr(content, "SerializeToString")
                else json.dumps(content).encode()
            )
        (path / name).write_bytes(content)
    return path


BERT = {"architectures": ["BertModel"]}


@pytest.mark.parametrize("files", [["model.onnx"], ["onnx/model.onnx"], ["a.onnx", "b.onnx"]])
def test_a_directory_of_onnx_files_is_one(files: list[str], tmp_path: Path) -> None:
    made = {file: graph(**{f"{n}.weight": ONES}) for n, file in zip("ab", files, strict=False)}
    path = directory(tmp_path / "m", {"config.json": BERT, "tokenizer.json": b"{}", **made})
    assert FORMAT.sniff(path, b"")
    assert not HUGGING_FACE.sniff(path, b"")
    with wb.open(path) as model:
        assert model.format == "onnx-directory"
        assert model.config == BERT
        assert list(model.files) == ["tokenizer.json"]
        assert [f"{name}.weight" for name in "ab"[: len(files)]] == list(model.tensors)


def test_the_folder_for_them_takes_the_config_above(tmp_path: Path) -> None:
    files = {"config.json": BERT, "vocab.txt": b"a", "onnx/model.onnx": graph(**{"a.weight": ONES})}
    path = directory(tmp_path / "m", files)
    for place in (path / "onnx", path / "onnx" / "model.onnx"):
        with wb.open(place) as model:
            assert (model.config, list(model.files)) == (BERT, ["vocab.txt"])


def test_a_config_beside_a_graph_must_be_one(tmp_path: Path) -> None:
    files = {"config.json": b"[]", "model.onnx": graph(**{"a.weight": ONES})}
    path = directory(tmp_path / "m", files)
    for place in (path, path / "model.onnx"):
        done = called("inspect", place)
        assert (done.code, done.rules) == (2, ["json"])


def test_a_file_of_weights_takes_nothing_from_beside_it(tmp_path: Path) -> None:
    wb.save_file({"a": ONES}, tmp_path / "a.onnx")
    directory(tmp_path, {"config.json": BERT, "vocab.txt": b"a"})
    with wb.open(tmp_path / "a.onnx") as model:
        assert (model.config, dict(model.files)) == (None, {})


def test_a_component_of_weights_alone_keeps_its_names(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", {"config.json": {}, "model.onnx": graph(**{"a.weight": ONES})})
    wb.save_file({"b": ONES}, path / "rest.onnx")
    with wb.open(path) as model:
        found, report = named(model)
        assert not report.problems
        assert set(found.tensors) == {"a.weight", "b"}


def test_a_checkpoint_needs_a_config(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", {"model.onnx": graph(**{"a.weight": ONES})})
    done = called("convert", path, tmp_path / "out")
    assert (done.code, done.rules) == (2, ["no-config"])


@pytest.mark.parametrize("weights", ["model.safetensors", "model.safetensors.index.json"])
def test_safetensors_beside_them_are_the_model(weights: str, tmp_path: Path) -> None:
    files = {"config.json": BERT, "onnx/model.onnx": graph(w=ONES), weights: b""}
    path = directory(tmp_path / "m", files)
    assert HUGGING_FACE.sniff(path, b"")
    assert not FORMAT.sniff(path, b"")


def test_pickles_beside_them_are_not(tmp_path: Path) -> None:
    files = {"pytorch_model.bin": b"", "config.json": BERT, "onnx/model.onnx": graph(w=ONES)}
    assert sniff(directory(tmp_path / "m", files)) is FORMAT


def test_the_manifest_names_the_components(tmp_path: Path) -> None:
    files = {
        "export.json": {"components": {"encoder": {"file": "encoder.onnx"}}},
        "encoder.onnx": graph(**{"a.weight": ONES}),
        "other.onnx": graph(**{"b.weight": ONES}),
    }
    with wb.open(directory(tmp_path / "m", files)) as model:
        assert list(model.tensors) == ["a.weight"]
        assert model.graph is not None
        assert [program.name for program in model.graph.programs] == ["encoder"]
        assert (model.config, dict(model.files)) == (None, {})


@pytest.mark.parametrize(
    ("manifest", "rule"),
    [
        (b"{", "json"),
        (b"[]", "json"),
        ({}, "manifest"),
        ({"components": []}, "manifest"),
        ({"components": {}}, "manifest"),
        ({"components": {"a": {}}}, "manifest"),
        ({"components": {"a": {"file": 3}}}, "manifest"),
        ({"components": {"a": "model.onnx"}}, "manifest"),
        ({"components": {"a": {"file": "other.onnx"}}}, "not-found"),
        ({"components": {"a": {"file": "../model.onnx"}}}, "not-found"),
        ({"components": {"a": {"file": "/etc/passwd"}}}, "not-found"),
    ],
)
def test_a_manifest_that_is_none(manifest: Any, rule: str, tmp_path: Path) -> None:
    files = {"export.json": manifest, "model.onnx": graph(w=ONES)}
    with pytest.raises(Error) as error:
        wb.open(directory(tmp_path / "m", files))
    assert error.value.rule == rule


@pytest.mark.parametrize(
    ("location", "offset", "rule"),
    [
        ("../secret", "0", "external-location"),
        ("/etc/passwd", "0", "external-location"),
        ("link", "0", "external-escape"),
        ("data", "-8", "external-number"),
        ("data", "8", "truncated"),
        ("data", "9" * 30, "external-number"),
        ("gone", "0", "not-found"),
        ("", "0", "external-location"),
    ],
)
def test_external_data_that_lead_elsewhere(
    location: str, offset: str, rule: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    files = {"config.json": BERT, "data": ONES.tobytes(), "model.onnx": external(location, offset)}
    path = directory(tmp_path / "m", files)
    os.symlink(tmp_path / "secret", path / "link")
    done = called("inspect", path)
    assert (done.code, done.rules) == (2, [rule])


def test_what_components_say_differently_is_under_their_names(tmp_path: Path) -> None:
    first, second = graph(**{"a.weight": ONES}), graph(**{"a.weight": ONES * 2})
    for made, name in ((first, "x"), (second, "y")):
        helper.set_model_props(made, {"who": name, "what": "z"})
    with wb.open(directory(tmp_path / "m", {"a.onnx": first, "b.onnx": second})) as model:
        said = {key: value.plain() for key, value in model.metadata.items() if "onnx." not in key}
        assert said == {"what": "z", "a.who": "x", "b.who": "y"}
        assert list(model.tensors) == ["a.weight", "b::a.weight"]
        found, report = named(model)
        assert not report.problems
        assert np.array_equal(found.tensors["a.weight"].values(), ONES)
        assert [note.subject for note in report.notes if "other components" in note.text] == ["b"]


@pytest.mark.parametrize(
    ("other", "rule"),
    [(ONES.T.copy(), "tensor-shape"), (ONES.astype(np.float16), "which-component")],
)
def test_components_that_contradict_each_other(other: Any, rule: str, tmp_path: Path) -> None:
    files = {"a.onnx": graph(**{"a.weight": ONES}), "b.onnx": graph(**{"a.weight": other})}
    with wb.open(directory(tmp_path / "m", files)) as model:
        _, report = named(model)
    assert [problem.rule for problem in report.problems] == [rule]


def test_a_directory_without_a_suffix_is_still_a_checkpoint(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", {"config.json": {}, "model.onnx": graph(**{"a.weight": ONES})})
    assert wb.plan(path, tmp_path / "out").format == "huggingface"


def test_an_operator_that_nobody_knows(tmp_path: Path) -> None:
    node = helper.make_node("Mystery", ["w"], ["y"], domain="nobody")
    made = _model(node, [numpy_helper.from_array(ONES, "w")])
    path = directory(tmp_path / "m", {"config.json": {}, "model.onnx": made})
    assert called("inspect", path).code == 0
    done = called("convert", path, tmp_path / "out")
    assert (done.code, done.rules) == (2, ["unresolved-initializer"])
    assert called("convert", path, tmp_path / "w.safetensors", "--weights-only").code == 0
