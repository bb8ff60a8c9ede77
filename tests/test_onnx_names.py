"""What real exporters wrote comes back under the names of the state dict, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.exported import MODELS, check, exported, named, state
from support.onnx_files import package_file

import weighbridge as wb

if TYPE_CHECKING:
    from pathlib import Path

QUICK = [
    *(("script", name) for name in MODELS),
    ("dynamo", "vit"),
    ("static", "llama"),
    ("exporter", "bert"),
    ("fused", "bert"),
    ("halves", "t5"),
]
"""What takes seconds."""

LONG = [
    *(("dynamo", name) for name in MODELS if name not in {"vit", "t5"}),
    *(("exporter", name) for name in MODELS if name != "bert"),
    *(("fused", name) for name in MODELS if name != "bert"),
    *(("generation", name) for name in ("llama", "gpt2")),
]
"""The rest; torch's dynamo alone does not export T5 with free lengths."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [*QUICK, *(pytest.param(*each, marks=pytest.mark.long) for each in LONG)],
)
def test_every_weight_comes_back(kind: str, name: str, tmp_path: Path) -> None:
    with wb.open(exported(tmp_path / "m", kind, name)) as model:
        assert (model.format, model.dialect) == ("onnx-directory", "onnx")
        found, report = named(model)
        assert not report.problems
        assert check(found, state(name)) == set()
        assert found.config is not None


@pytest.mark.parametrize(
    ("name", "lost", "folded"),
    [
        ("bert", "bert.embeddings.position_embeddings.weight", "embedding_2"),
        ("gpt2", "transformer.wpe.weight", "embedding_1"),
        ("vit", "vit.embeddings.cls_token", "expand"),
    ],
)
def test_what_the_exporter_computed_with_is_named(
    name: str, lost: str, folded: str, tmp_path: Path
) -> None:
    with wb.open(exported(tmp_path / "m", "static", name)) as model:
        found, report = named(model)
        assert check(found, state(name)) == {lost}
        told = {problem.tensor: problem.rule for problem in report.problems}
        assert told[lost] == "missing-tensor"
        assert told[folded] == "unresolved-initializer"


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_class_without_a_family_comes_back(name: str, tmp_path: Path) -> None:
    directory = exported(tmp_path / "m", "script", name)
    (directory / "config.json").write_text('{"architectures": ["SomeModel"]}')
    with wb.open(directory) as model:
        found, report = named(model)
        assert not report.problems
        assert check(found, state(name)) == set()


def test_ties_are_told(tmp_path: Path) -> None:
    with wb.open(exported(tmp_path / "m", "script", "gpt2")) as model:
        found, report = named(model)
        assert "lm_head.weight" not in found.tensors
        tied = {note.subject: note.text for note in report.notes if note.kind == "tied"}
        assert tied == {"lm_head.weight": "is transformer.wte.weight"}


def test_without_a_config_an_output_layer_is_kept(tmp_path: Path) -> None:
    directory = exported(tmp_path / "m", "script", "gpt2")
    (directory / "config.json").unlink()
    with wb.open(directory) as model:
        found, report = named(model)
        assert not report.problems
        assert {"lm_head.weight", "transformer.wte.weight"} <= found.tensors.keys()


def test_exports_of_one_model_are_equal(tmp_path: Path) -> None:
    made = [exported(tmp_path / kind, kind, "llama") for kind in ("script", "static")]
    found = wb.diff(*made)
    assert len(found) == len(state("llama"))
    assert all(difference.equal for difference in found)


def test_what_cannot_be_named_is_compared_by_its_own_names() -> None:
    vad = package_file("silero_vad", "silero_vad_16k_sequence.onnx")
    assert {difference.name for difference in wb.diff(vad, vad)} >= {"onnx::LSTM_209"}
