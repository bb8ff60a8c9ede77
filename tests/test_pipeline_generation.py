"""Exported directories write the tokens that their checkpoints write, one step for each."""

from __future__ import annotations

import copy
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from support import exports, seq2seq, tiny

import weighbridge as wb
from weighbridge import errors, registry
from weighbridge.model import Model
from weighbridge.pipelines.graphs import Graph, length_of
from weighbridge.pipelines.manifest import read_manifest
from weighbridge.pipelines.network import network

if TYPE_CHECKING:
    from pathlib import Path

    Case = tuple[transformers.PreTrainedModel, Path]

PROMPTS = ["ABCDAB", "X"]

NEW = 7

WAYS = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 3, "do_sample": False},
    "several": {"num_beams": 4, "num_return_sequences": 3, "do_sample": False},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "uncached": {"do_sample": False, "use_cache": False},
}

T5 = {
    "vocab_size": 300,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 1,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}

PREFIXES = {
    "summarization": {"prefix": "summarize: ", "num_beams": 2, "max_length": 12},
    "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 9},
}


def windowed() -> transformers.PreTrainedModel:
    """Return a decoder whose first layer sees four tokens, its second all."""
    sizes = {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8, "pad_token_id": 0}
    return tiny.model(tiny.config("Gemma2ForCausalLM", **{**tiny.COMMON, **sizes}))


def letters() -> dict[str, bytes]:
    """Return a tokenizer of capital letters that pads as decoders need it, on the left."""
    files = dict(tiny.small_tokenizer(pad_token="<unk>", padding_side="left"))
    document = json.loads(files["tokenizer.json"])
    for part in ("pre_tokenizer", "decoder"):
        document[part] |= {"add_prefix_space": False, "trim_offsets": True}
    return files | {"tokenizer.json": json.dumps(document).encode()}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A decoder as prefill and decode."""
    model = windowed()
    return model, exports.decoder(tmp_path_factory.mktemp("staged"), model, letters())


@pytest.fixture(scope="module")
def single(staged: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The same as one graph with a cache that may be empty."""
    model, place = staged
    copied = tiny.copied(place, tmp_path_factory.mktemp("single") / "model")
    tiny.edit_json(copied / "export.json", only_decode)
    return model, copied


def only_decode(manifest: dict[str, Any]) -> None:
    """Leave of a manifest the component that takes a cache."""
    manifest["components"] = {"model": manifest["components"]["decode"]}


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = tiny.model(tiny.config("T5ForConditionalGeneration", **T5))
    model.config.task_specific_params = PREFIXES
    place = tmp_path_factory.mktemp("t5")
    return model, exports.encoder_decoder(place, model, exports.texts(300), seq2seq.t5())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many tokens each step of a decoder was given, and how many its cache held."""
    seen: list[tuple[int, int]] = []
    run = Graph.__call__

    def counted(graph: Graph, **given: Any) -> Any:
        ids = given.get("decoder_input_ids", given.get("input_ids"))
        if "past_key_values" in given:
            seen.append((ids.shape[1], length_of(given["past_key_values"])))
        return run(graph, **given)

    monkeypatch.setattr(Graph, "__call__", counted)
    return seen


def written(model: Any, inputs: Any, **options: Any) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        made: torch.Tensor = model.generate(
            **inputs, max_new_tokens=NEW, min_new_tokens=NEW, **options
        )
    return made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ["staged", "single"])
def test_a_decoder_writes_the_same_tokens(
    case: str, way: str, request: pytest.FixtureRequest
) -> None:
    model, place = request.getfixturevalue(case)
    ours = wb.pipeline("text-generation", place)
    inputs = ours.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    assert 0 in inputs["attention_mask"][1, :2]
    expected = written(model, inputs, **WAYS[way])
    assert torch.equal(written(ours.model, inputs, **WAYS[way]), expected)


@pytest.mark.parametrize("way", WAYS)
def test_an_encoder_decoder_writes_the_same_tokens(t5: Case, way: str) -> None:
    model, place = t5
    ours = wb.pipeline("text2text-generation", place)
    inputs = ours.tokenizer(["ab cd ef gh", "a"], padding=True, return_tensors="pt")
    expected = written(model, inputs, **WAYS[way])
    assert torch.equal(written(ours.model, inputs, **WAYS[way]), expected)


@pytest.mark.parametrize("case", ["staged", "single", "t5"])
@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_a_token_costs_one_step(
    case: str, way: str, request: pytest.FixtureRequest, calls: list[tuple[int, int]]
) -> None:
    model = network(read_manifest(request.getfixturevalue(case)[1]))
    ids = torch.tensor([[5, 6, 7, 8]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    written(model, inputs, **WAYS[way])
    first = 1 if case == "t5" else 4
    assert calls == [(first, 0), *((1, first + step) for step in range(NEW - 1))]


def test_prompts_are_continued(staged: Case) -> None:
    model, place = staged
    ours = wb.pipeline("text-generation", place)
    theirs = transformers.pipeline("text-generation", model=model, tokenizer=ours.tokenizer)
    options = {"max_new_tokens": NEW, "do_sample": False, "batch_size": 2}
    assert ours(PROMPTS, **options) == theirs(PROMPTS, **options)


def test_a_mask_that_a_graph_lost_is_refused(tmp_path: Path) -> None:
    model = tiny.model(tiny.config("LlamaForCausalLM", **tiny.COMMON))
    ids = torch.tensor([[5, 6, 7], [5, 6, 7]])
    place = exports.whole(tmp_path, model, {"input_ids": ids, "use_cache": False}, letters())
    ours = wb.pipeline("text-generation", place)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    assert ours(PROMPTS[0], **options) == wb_torch(model, ours, **options)
    with pytest.raises(errors.Unsupported) as caught:
        ours(PROMPTS, batch_size=2, **options)
    assert caught.value.rule == "onnx-input"


def wb_torch(model: Any, ours: Any, **options: Any) -> Any:
    theirs = transformers.pipeline("text-generation", model=model, tokenizer=ours.tokenizer)
    return theirs(PROMPTS[0], **options)


# Summaries and translations


def expected_texts(model: Any, tokenizer: Any, texts: list[str], **options: Any) -> list[str]:
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    made = model.generate(**inputs, **options)
    found: list[str] = tokenizer.batch_decode(made, skip_special_tokens=True)
    return found


def test_texts_are_summarised(t5: Case) -> None:
    model, place = t5
    ours = wb.pipeline("summarization", place)
    texts = ["ab cd ef gh", "a"]
    prefixed = [f"summarize: {text}" for text in texts]
    expected = expected_texts(model, ours.tokenizer, prefixed, num_beams=2, max_length=12)
    assert ours(texts, batch_size=2) == [{"summary_text": text} for text in expected]
    assert ours(texts[1]) == [{"summary_text": expected[1]}]


def test_several_answers_come_as_a_list(t5: Case) -> None:
    ours = wb.pipeline("text2text-generation", t5[1])
    found = ours(["ab", "cd"], num_beams=3, num_return_sequences=2, max_new_tokens=4, batch_size=2)
    assert [[set(one) for one in several] for several in found] == [[{"generated_text"}] * 2] * 2
    tokens = ours("ab", return_tensors=True, max_new_tokens=4)
    assert tokens[0]["generated_token_ids"].ndim == 1


@pytest.mark.parametrize("task", ["translation", "translation_en_to_de"])
def test_texts_are_translated(t5: Case, task: str) -> None:
    model, place = t5
    ours = wb.pipeline(task, place)
    languages = {"src_lang": "en", "tgt_lang": "de"} if task == "translation" else {}
    text = "translate English to German: ab cd"
    expected = expected_texts(model, ours.tokenizer, [text], max_length=9)
    assert ours("ab cd", **languages) == [{"translation_text": expected[0]}]


def test_only_texts_are_translated(t5: Case) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        wb.pipeline("translation", t5[1])(7)
    assert caught.value.rule == "text"


# Compared with the checkpoint


def saved(case: Case, place: Path) -> Path:
    """Save a checkpoint with the tokenizer that is beside its export."""
    model, exported = case
    model.save_pretrained(place)
    for file in exported.glob("tokenizer*"):
        shutil.copy(file, place)
    return place


@pytest.mark.parametrize(("case", "part"), [("staged", "decode"), ("t5", "encoder")])
def test_an_export_agrees_with_its_checkpoint(
    case: str, part: str, request: pytest.FixtureRequest, tmp_path: Path, calls: list[Any]
) -> None:
    found = request.getfixturevalue(case)
    checkpoint = saved(found, tmp_path / "checkpoint")
    graph = found[1] / f"{part}.onnx"
    verified = wb.verify(checkpoint, graph, prompts=["ABCD AB", "CD"], tokens=5)
    assert verified.passed
    assert verified.max_error < 1e-4
    assert [side.runtime for side in verified.sides] == ["transformers", "onnxruntime"]
    assert all(answer.same_text and answer.same_ids for answer in verified.answers)
    steps = [length for length, past in calls if past]
    assert steps
    assert set(steps) == {1}


def test_a_damaged_encoder_decoder_does_not_agree(t5: Case, tmp_path: Path) -> None:
    model = copy.deepcopy(t5[0])
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    damaged = saved((model, t5[1]), tmp_path / "damaged")
    assert not wb.verify(damaged, t5[1] / "decode.onnx", prompts=["ab cd"], tokens=2).passed


def test_the_runtime_takes_a_directory(staged: Case) -> None:
    runtime = registry.runtimes()["onnxruntime"]
    model = Model("onnx-directory", "huggingface", {}, path=staged[1])
    facts = runtime.facts(model)
    assert facts.tokenizes
    assert (facts.kind.value, facts.vocabulary) == ("decoder", 64)
    with runtime.start(model, facts, 16) as runner:
        assert 1 <= len(runner.greedy([5, 6, 7], 3)) <= 3
    assert {"onnx", "onnx-directory"} <= runtime.formats


# Models that run in torch


def test_a_checkpoint_is_a_pipeline(staged: Case, tmp_path: Path) -> None:
    model, place = staged
    model.save_pretrained(tmp_path)
    for name, content in letters().items():
        (tmp_path / name).write_bytes(content)
    options = {"max_new_tokens": NEW, "do_sample": False}
    ours = wb.pipeline(path=tmp_path, dtype="float32")
    assert ours(PROMPTS[0], **options) == wb.pipeline("text-generation", place)(
        PROMPTS[0], **options
    )
    with pytest.raises(errors.Unsupported) as caught:
        wb.pipeline("question-answering", tmp_path)
    assert caught.value.rule == "task-head"


def without_prefill(manifest: dict[str, Any]) -> None:
    del manifest["components"]["prefill"]


def with_another(manifest: dict[str, Any]) -> None:
    manifest["components"]["vision"] = manifest["components"]["decode"]


@pytest.mark.parametrize("change", [without_prefill, with_another])
def test_components_have_to_be_known(t5: Case, tmp_path: Path, change: Any) -> None:
    place = tiny.copied(t5[1], tmp_path / "other")
    tiny.edit_json(place / "export.json", change)
    with pytest.raises(errors.Error) as caught:
        wb.pipeline("summarization", place)
    assert caught.value.rule == "export-component"


def test_a_network_stays_where_it_is(single: Case) -> None:
    model = network(read_manifest(single[1]))
    assert model.to("cpu") is model
    with pytest.raises(errors.Unsupported) as caught:
        model.to("cuda")
    assert caught.value.rule == "device"


def test_a_graph_refuses_what_it_cannot_heed(single: Case) -> None:
    model = network(read_manifest(single[1]))
    ids = torch.tensor([[5, 6, 7]])
    for given in (
        {"inputs_embeds": torch.zeros(1, 3, 32)},
        {"input_ids": ids, "output_attentions": True},
    ):
        with pytest.raises(errors.Error) as caught:
            model(**given)
        assert caught.value.rule == "onnx-input"
