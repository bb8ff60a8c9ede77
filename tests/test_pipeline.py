"""Pipelines over exported directories answer as those over the checkpoint do: texts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
from support import encoders, exports, gguf_files, packages, tiny
from support.answers import assert_same

import weighbridge as wb
from weighbridge import errors

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["The weighbridge stands at the gate.", "Rain."]

NLI = {0: "contradiction", 1: "neutral", 2: "entailment"}

SMALL = {
    "vocab_size": 30522,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


def bert(kind: str, **entries: Any) -> transformers.PreTrainedModel:
    return tiny.model(tiny.config(kind, **SMALL, **entries))


def exported(place: Path, model: transformers.PreTrainedModel) -> Path:
    inputs = exports.texts(30522, token_type_ids=torch.zeros_like(exports.PADDED))
    return exports.whole(place, model, inputs, encoders.minilm())


Case = tuple["transformers.PreTrainedModel", "Path"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = bert(
        "BertForSequenceClassification", id2label=NLI, label2id={v: k for k, v in NLI.items()}
    )
    return model, exported(tmp_path_factory.mktemp("classifier"), model)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = bert("BertForTokenClassification", num_labels=5)
    return model, exported(tmp_path_factory.mktemp("tagger"), model)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = bert("BertForMaskedLM")
    return model, exported(tmp_path_factory.mktemp("masked"), model)


def theirs(task: str, model: Any, ours: Any) -> Any:
    return transformers.pipeline(task, model=model, tokenizer=ours.tokenizer)


def test_texts_are_classified(classifier: Case) -> None:
    model, place = classifier
    ours = wb.pipeline("text-classification", place)
    for options in ({}, {"top_k": None}, {"batch_size": 2, "top_k": None}):
        assert_same(ours(TEXTS, **options), theirs(ours.task, model, ours)(TEXTS, **options))


def test_the_task_is_told_by_the_class(classifier: Case) -> None:
    assert wb.pipeline(path=classifier[1]).task == "text-classification"


def test_the_task_is_told_by_the_manifest(classifier: Case, tmp_path: Path) -> None:
    place = tiny.copied(classifier[1], tmp_path / "told")
    told = {"weighbridge": {"task": "zero-shot-classification"}}
    tiny.edit_json(place / "export.json", lambda manifest: manifest.update(told))
    assert wb.pipeline(path=place).task == "zero-shot-classification"


def test_an_alias_is_a_task(classifier: Case) -> None:
    assert wb.pipeline("sentiment-analysis", classifier[1])(TEXTS[1])[0]["label"] in NLI.values()


def test_texts_are_classified_by_names(classifier: Case) -> None:
    model, place = classifier
    ours = wb.pipeline("zero-shot-classification", place)
    labels = ["weather", "traffic", "music"]
    expected = theirs(ours.task, model, ours)(TEXTS, labels, batch_size=2)
    assert_same(ours(TEXTS, labels, batch_size=2), expected)


def test_tokens_are_classified(tagger: Case) -> None:
    model, place = tagger
    ours = wb.pipeline("token-classification", place)
    for strategy in ("none", "simple"):
        options = {"aggregation_strategy": strategy, "batch_size": 2}
        assert_same(ours(TEXTS, **options), theirs(ours.task, model, ours)(TEXTS, **options))


def test_masks_are_filled(masked: Case) -> None:
    model, place = masked
    ours = wb.pipeline("fill-mask", place)
    texts = ["The [MASK] stands at the gate.", "[MASK]."]
    assert_same(ours(texts, batch_size=2), theirs(ours.task, model, ours)(texts, batch_size=2))


def test_threads_and_providers_are_chosen(masked: Case) -> None:
    ours = wb.pipeline("fill-mask", masked[1], threads=1, providers=["CPUExecutionProvider"])
    assert len(ours("[MASK].")) == 5


# MiniLM's own weights


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = next(packages.folder(encoders.MINILM).rglob("modules.json")).parent
    model = transformers.AutoModel.from_pretrained(folder).eval()
    wanted = [folder / name for name in ("modules.json", "sentence_bert_config.json")]
    files = [*wanted, *folder.glob("*/config.json"), *folder.glob("tokenizer*")]
    beside = {str(one.relative_to(folder)): one.read_bytes() for one in files}
    inputs = exports.texts(30522, token_type_ids=torch.zeros_like(exports.PADDED))
    place = tmp_path_factory.mktemp("minilm")
    return model, exports.whole(place, model, inputs, beside)


def embedded(model: Any, tokenizer: Any) -> torch.Tensor:
    """Pool and normalise as the model's card says."""
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))


def test_a_text_becomes_one_embedding(minilm: Case) -> None:
    model, place = minilm
    ours = wb.pipeline("feature-extraction", place, pooling="auto", batch_size=2)
    found = np.array(ours(TEXTS))
    assert np.abs(found - embedded(model, ours.tokenizer).numpy()).max() < 1e-5
    assert np.abs(np.array(ours(TEXTS, batch_size=1)) - found).max() < 1e-5


def test_a_checkpoint_embeds_the_same(minilm: Case) -> None:
    folder = next(packages.folder(encoders.MINILM).rglob("modules.json")).parent
    ours = wb.pipeline("feature-extraction", folder, pooling="auto", dtype="float32")
    found = torch.stack(ours(TEXTS, batch_size=2, return_tensors=True))
    assert (found - embedded(minilm[0], ours.tokenizer)).abs().max() < 1e-5


def test_a_gguf_file_is_a_pipeline() -> None:
    ours = wb.pipeline(path=gguf_files.smollm2(), dtype="float32")
    written = ours("The capital of France is", max_new_tokens=3, do_sample=False)
    assert "Paris" in written[0]["generated_text"]


def test_without_pooling_there_is_a_state_for_each_token(minilm: Case) -> None:
    model, place = minilm
    ours = wb.pipeline("feature-extraction", place)
    assert_same(ours(TEXTS), theirs("feature-extraction", model, ours)(TEXTS))
    assert np.shape(ours(TEXTS[1], pooling="cls", return_tensors=True)) == (384,)


def test_pooling_needs_to_be_known(masked: Case, minilm: Case) -> None:
    del masked
    ours = wb.pipeline("feature-extraction", minilm[1])
    with pytest.raises(errors.InvalidInput) as caught:
        ours(TEXTS, pooling="median")
    assert caught.value.rule == "pooling"


# Errors


def test_options_that_would_be_unheeded_are_refused(masked: Case) -> None:
    folder = next(packages.folder(encoders.MINILM).rglob("modules.json")).parent
    for place, options in ((masked[1], {"dtype": "float16"}), (folder, {"threads": 2})):
        with pytest.raises(errors.InvalidInput) as caught:
            wb.pipeline(path=place, **options)
        assert caught.value.rule == "pipeline-option"


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound) as caught:
        wb.pipeline("fill-mask", tmp_path / "nothing")
    assert caught.value.rule == "not-found"


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(errors.NotFound) as caught:
        wb.pipeline("fill-mask", tmp_path)
    assert caught.value.rule == "no-export"


def test_a_task_needs_its_head(masked: Case) -> None:
    with pytest.raises(errors.Unsupported) as caught:
        wb.pipeline("text-classification", masked[1])
    assert caught.value.rule == "task-head"
    assert "\n" not in str(caught.value)


def test_a_task_has_to_be_one(masked: Case) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        wb.pipeline("text-clasification", masked[1])
    assert caught.value.rule == "task"


def test_a_tokenizer_has_to_be_there(masked: Case, tmp_path: Path) -> None:
    place = tiny.copied(masked[1], tmp_path / "bare")
    for file in place.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(errors.InvalidInput) as caught:
        wb.pipeline("fill-mask", place)
    assert caught.value.rule == "pipeline-part"


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript", "transformers"])
def test_a_missing_package_is_named(
    masked: Case, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == package else find(name))
    monkeypatch.setattr("weighbridge.pipelines.network.find_spec", util.find_spec)
    with pytest.raises(errors.MissingDependency) as caught:
        wb.pipeline("fill-mask", masked[1])
    assert caught.value.rule == package
    assert "weighbridge[onnx]" in str(caught.value)


MANIFESTS = {
    "no-components": {"components": {}},
    "elsewhere": {"components": {"model": {"file": "../model.onnx", "metadata": {}}}},
    "missing": {"components": {"model": {"file": "other.onnx", "metadata": {}}}},
    "no-metadata": {"components": {"model": {"file": "model.onnx"}}},
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_broken_manifest_is_refused(masked: Case, tmp_path: Path, name: str) -> None:
    place = tiny.copied(masked[1], tmp_path / "broken")
    tiny.edit_json(place / "export.json", lambda manifest: manifest.update(MANIFESTS[name]))
    with pytest.raises(errors.InvalidFile) as caught:
        wb.pipeline("fill-mask", place)
    assert caught.value.rule == "export-manifest"


def context(value: Any) -> Any:
    """Return a node whose context is a value."""
    return {"type": "builtins.tuple", "context": json.dumps(value), "children_spec": []}


STRUCTURES = {
    "called": context({"_t": "seq", "p": "subprocess:call", "v": ["true"]}),
    "called-with-names": context({"_t": "map", "p": "subprocess:Popen", "v": {}}),
    "made": context({"_t": "obj", "p": "os:DirEntry", "s": {}}),
    "imported": context([{"deep": {"_t": "type", "p": "antigravity:fly"}}]),
    "enumerated": context({"__enum__": True, "fqn": "this:x", "name": "y"}),
    "defaulted": context({"default_factory_module": "this", "default_factory_name": "x"}),
    "unknown-tag": context({"_t": "code"}),
    "other-class": {"type": "transformers.trainer:Trainer", "context": "[]", "children_spec": []},
    "within": {"type": None, "context": None, "children_spec": [{"type": "os:x"}]},
    "no-json": {"type": "builtins.tuple", "context": "{", "children_spec": []},
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_that_would_run_code_is_refused(
    masked: Case, tmp_path: Path, name: str
) -> None:
    place = tiny.copied(masked[1], tmp_path / "hostile")
    told = {"out_spec": json.dumps([1, STRUCTURES[name]])}

    def change(manifest: Any) -> None:
        manifest["components"]["model"]["metadata"].update(told)

    tiny.edit_json(place / "export.json", change)
    with pytest.raises(errors.InvalidFile) as caught:
        wb.pipeline("fill-mask", place)
    assert caught.value.rule == "export-structure"


def test_an_export_for_another_runtime_is_refused(masked: Case, tmp_path: Path) -> None:
    place = tiny.copied(masked[1], tmp_path / "other")
    tiny.edit_json(
        place / "export.json", lambda manifest: manifest.update(export_format="openvino")
    )
    with pytest.raises(errors.Unsupported) as caught:
        wb.pipeline("fill-mask", place)
    assert caught.value.rule == "export-format"


def test_a_broken_graph_is_refused(masked: Case, tmp_path: Path) -> None:
    place = tiny.copied(masked[1], tmp_path / "torn")
    (place / "model.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(errors.InvalidFile) as caught:
        wb.pipeline("fill-mask", place)
    assert caught.value.rule == "runtime"
    assert json.loads((place / "export.json").read_text())
