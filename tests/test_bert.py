"""BERT and its kin: what is cut, dropped, kept as a head, pooled and labelled, and what is refused.

That every case's GGUF file is llama.cpp's converter's, and comes back, is in ``test_families``.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
from families import CASES
from families.bert import BERT as SIZES
from families.bert import FIRST, LABELS, MEAN, POOLING, pooled
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support import converted, encoders, llamacpp, tiny

import weighbridge as wb
from weighbridge import registry
from weighbridge.canonical import canonical
from weighbridge.converters.architectures.bert import BERT
from weighbridge.converters.architectures.distilbert import DISTILBERT
from weighbridge.converters.architectures.labels import Labels
from weighbridge.converters.architectures.pooling import Pooling
from weighbridge.converters.architectures.roberta import ROBERTA, XLM_ROBERTA
from weighbridge.converters.gguf import DIALECT
from weighbridge.dialect import DialectOptions
from weighbridge.errors import Error
from weighbridge.families import find, find_by_name
from weighbridge.metadata import array, scalar, string
from weighbridge.report import Report
from weighbridge.tensor import from_array

ARCHITECTURES = registry.architectures().values()
ENCODERS = [
    case for case in CASES.values() if find(ARCHITECTURES, converted.config(case)).name == "bert"
]
KEY = "{arch}.pooling_type"
CLASSIFIER = "BertForSequenceClassification"


def said(arch=BERT, files=None, **changes):
    """Return the key-values of a config and the rules that it breaks."""
    config = {"architectures": [arch.classes[0]], **SIZES, **changes}
    report = Report()
    metadata = arch.to_metadata(config, files or {}, report)
    return {key: value.plain() for key, value in metadata.items()}, rules(report)


def rules(report):
    return [problem.rule for problem in report.problems]


def back(path, **metadata):
    """Return the checkpoint that a GGUF file means with other key-values, and what is told."""
    with wb.open(path) as model:
        changed = {**model.metadata, **{k.replace("__", "."): v for k, v in metadata.items()}}
        model = dataclasses.replace(model, metadata={k: v for k, v in changed.items() if v})
        report = Report()
        return canonical(model, report), report


def embedded(name, outtype="f32"):
    """Return what a case's checkpoint and its GGUF file answer, compared."""
    return wb.verify(converted.source(name), converted.ours(name, outtype))


@pytest.mark.parametrize(
    "arch", [BERT, DISTILBERT, ROBERTA, XLM_ROBERTA], ids=lambda arch: arch.model_type
)
def test_classes(arch):
    for name in arch.classes:
        assert find(ARCHITECTURES, {"architectures": [name]}) is arch
    assert find(ARCHITECTURES, {"model_type": arch.model_type}) is arch


@pytest.mark.parametrize(
    ("tokenizer", "arch"),
    [("bert", BERT), ("gpt2", ROBERTA), ("t5", XLM_ROBERTA), (None, BERT), (3, BERT)],
)
def test_the_tokenizer_tells_the_families_apart(tokenizer, arch):
    tensors = {"token_types.weight": from_array("token_types.weight", np.zeros((2, 4), np.float32))}
    value = {None: None, 3: scalar("u32", 3)}.get(tokenizer, string(str(tokenizer)))
    metadata = {} if value is None else {"tokenizer.ggml.model": value}
    assert find_by_name(ARCHITECTURES, "bert", metadata, tensors) is arch


def test_no_token_types_tell_a_distilbert():
    metadata = {"tokenizer.ggml.model": string("bert")}
    assert find_by_name(ARCHITECTURES, "bert", metadata, {}) is DISTILBERT


def test_a_distilbert_has_one_epsilon():
    path = converted.ours("distilbert", "bf16")
    _, report = back(path, bert__attention__layer_norm_epsilon=scalar("f32", 1e-5))
    assert "contradiction" in rules(report)


def test_a_classifier_that_llama_cpp_computes_otherwise_is_refused():
    with pytest.raises(Error) as caught:
        find(ARCHITECTURES, {"architectures": ["DistilBertForSequenceClassification"]})
    assert caught.value.rule == "unknown-family"


@pytest.mark.parametrize(
    ("entry", "value"),
    [("hidden_act", "relu"), ("hidden_act", "gelu_new"), ("is_decoder", True),
     ("position_embedding_type", "relative_key"), ("add_cross_attention", True)],
)  # fmt: skip
def test_what_llama_cpp_computes_otherwise_is_refused(entry, value):
    assert said(**{entry: value})[1] == ["config-value"]


def test_what_a_config_leaves_to_its_class():
    config = {key: SIZES[key] for key in SIZES if key not in ("layer_norm_eps", "type_vocab_size")}
    metadata = BERT.to_metadata(config, {}, Report())
    assert metadata["bert.attention.layer_norm_epsilon"].data == 1e-12
    assert metadata["tokenizer.ggml.token_type_count"].data == 2
    assert metadata["bert.attention.causal"].data is False


@pytest.mark.parametrize(("pad", "context"), [(1, 64), (0, 65), (64, 1)])
def test_positions_are_counted_after_the_padding_token(pad, context):
    metadata, problems = said(ROBERTA, pad_token_id=pad)
    assert problems == []
    assert metadata["bert.context_length"] == context


@pytest.mark.parametrize("pad", [65, -1, None, "1"])
def test_a_padding_token_that_leaves_no_position(pad):
    assert said(ROBERTA, pad_token_id=pad)[1] == ["config-type"]


def test_the_padding_token_is_the_classs_own_if_nothing_says():
    config = {key: value for key, value in SIZES.items() if key != "pad_token_id"}
    metadata = ROBERTA.to_metadata(config, {}, Report())
    assert metadata["bert.context_length"].data == 64
    read = ROBERTA.to_config(metadata, {}, Report())
    assert (read["max_position_embeddings"], read["pad_token_id"]) == (66, 1)


def test_a_foreign_file_says_which_token_pads():
    metadata = ROBERTA.to_metadata({**SIZES, "pad_token_id": 4}, {}, Report())
    metadata["tokenizer.ggml.padding_token_id"] = scalar("u32", 4)
    read = ROBERTA.to_config(metadata, {}, Report())
    assert (read["max_position_embeddings"], read["pad_token_id"]) == (66, 4)


def test_a_foreign_file_without_a_padding_token_comes_back():
    model, report = back(converted.theirs("roberta"), tokenizer__ggml__padding_token_id=None)
    assert rules(report) == []
    assert model.config["pad_token_id"] == 1
    assert model.tensors["embeddings.position_embeddings.weight"].shape == (66, 24)


def test_a_camembert_is_counted_and_run_as_what_it_is(tmp_path):
    entries = CASES["xlm-roberta"].config
    files = {**encoders.xlm_roberta(), **MEAN}
    source = tiny.checkpoint(tmp_path / "c", "CamembertModel", entries=entries, tokenizer=files)
    wb.convert(source, tmp_path / "c.gguf")
    assert wb.verify(source, tmp_path / "c.gguf").max_error < 1e-3


def test_cut_rows_come_back_as_zeros():
    name = "roberta.embeddings.position_embeddings.weight"
    before = wb.open(converted.source("roberta-classifier-f16")).tensors[name].values()
    after = wb.open(converted.again("roberta-classifier-f16")).tensors[name].values()
    assert not after[:2].any()
    assert np.array_equal(after[2:], before[2:])


def test_a_classifiers_pooler_is_what_llama_cpp_scores_with():
    """Without it, as llama.cpp's converter writes the file, the scores are others."""
    ours = embedded("bert-classifier-q8_0")
    theirs = wb.verify(
        converted.source("bert-classifier-q8_0"), converted.theirs("bert-classifier-q8_0")
    )
    assert ours.max_error < 1e-3
    assert theirs.max_error > 1e-2


def test_a_classifier_with_default_labels_runs(tmp_path):
    """llama.cpp's converter leaves the labels out, and llama.cpp takes the head for that of one."""
    source = tiny.checkpoint(
        tmp_path / "two", CLASSIFIER, entries=SIZES, tokenizer=encoders.minilm()
    )
    assert "id2label" not in json.loads((source / "config.json").read_text())
    wb.convert(source, tmp_path / "two.gguf")
    assert wb.verify(source, tmp_path / "two.gguf").max_error < 1e-3
    model, report = back(tmp_path / "two.gguf", weighbridge__file__config__json=None)
    assert rules(report) == []
    assert model.config["architectures"] == [CLASSIFIER]
    assert model.config["label2id"] == {"LABEL_0": 0, "LABEL_1": 1}


@pytest.fixture(scope="module")
def predicts(tmp_path_factory):
    """A masked language model with names as they were in 2019, and a buffer."""
    directory = tmp_path_factory.mktemp("old") / "old"
    tokenizer = {**encoders.minilm(), **FIRST}
    tiny.checkpoint(directory, "BertForMaskedLM", entries=SIZES, tokenizer=tokenizer)
    saved = load_file(directory / "model.safetensors")
    pooler = {
        "bert.pooler.dense.weight": torch.ones(24, 24),
        "bert.pooler.dense.bias": torch.ones(24),
    }
    buffer = {"bert.embeddings.position_ids": torch.arange(66)[None]}
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): x
        for name, x in {**saved, **pooler, **buffer}.items()
    }
    save_file(old, directory / "model.safetensors", metadata={"format": "pt"})
    return directory, saved, set(old)


def test_old_names_are_read_as_the_converter_does(predicts, tmp_path):
    directory, *_ = predicts
    wb.convert(directory, tmp_path / "ours.gguf", quantize="f16")
    theirs = llamacpp.convert(directory, tmp_path / "theirs.gguf", "f16")
    assert llamacpp.different_tensors(tmp_path / "ours.gguf", theirs) == {}
    different = set(llamacpp.different_keys(tmp_path / "ours.gguf", theirs))
    assert different <= set(llamacpp.EXPECTED_DIFFERENCES)


def test_a_head_that_predicts_is_dropped_and_told_both_ways(predicts, tmp_path):
    directory, saved, old = predicts
    plan = wb.plan(directory, tmp_path / "x.gguf")
    plan.run()
    dropped = {note.subject for note in plan.notes if note.kind == "dropped"}
    assert dropped <= old
    plan = wb.plan(tmp_path / "x.gguf", tmp_path / "again")
    plan.run()
    assert [n.subject for n in plan.notes if n.kind == "warning"] == ["BertForMaskedLM"]
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert set(again) == {name for name in saved if not name.startswith("cls.predictions")}
    assert all(torch.equal(again[name], saved[name]) for name in again)


def test_one_tensor_by_two_names_is_refused():
    tensor = from_array("x", np.zeros(24, np.float32))
    names = ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight")
    report = Report()
    BERT.from_canonical(dict.fromkeys(names, tensor), {**SIZES}, report)
    assert "duplicate-name" in rules(report)


def test_labels_both_ways():
    metadata = {**said(**LABELS)[0]}
    assert metadata["bert.classifier.output_labels"] == ["bad", "so so", "gut ☺"]
    value = {"{arch}.classifier.output_labels": array("string", ["bad", "so so", "gut ☺"])}
    read = Labels(CLASSIFIER).to_config(value, {})
    assert read == {
        "id2label": {"0": "bad", "1": "so so", "2": "gut ☺"},
        "label2id": LABELS["label2id"],
    }
    config = transformers.BertConfig(**read)
    assert config.id2label == LABELS["id2label"]


def test_default_labels_of_a_model_without_a_head_are_not_written():
    key = "bert.classifier.output_labels"
    assert key not in said()[0]
    assert key not in said(id2label={"1": "LABEL_1", "0": "LABEL_0"})[0]
    assert said(num_labels=1)[0][key] == ["LABEL_0"]
    assert said(architectures=[CLASSIFIER])[0][key] == ["LABEL_0", "LABEL_1"]


@pytest.mark.parametrize(
    "labels",
    [{"id2label": {"1": "a", "2": "b"}}, {"id2label": ["a"]}, {"id2label": {}},
     {"id2label": {"0": 7}}, {"num_labels": 1 << 20}, {"num_labels": 0}],
)  # fmt: skip
def test_labels_that_number_nothing(labels):
    assert said(**labels)[1] == ["config-type"]


def test_labels_of_another_type_in_a_file():
    with pytest.raises(Error) as caught:
        Labels(CLASSIFIER).to_config({"{arch}.classifier.output_labels": string("a")}, {})
    assert caught.value.rule == "config-type"


def test_a_head_makes_a_classifier():
    head = from_array("cls.output.weight", np.zeros((3, 4), np.float32))
    read = Labels(CLASSIFIER).to_config({}, {head.name: head})
    assert read["architectures"] == [CLASSIFIER]
    assert read["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, 1),
        ({"pooling_mode_cls_token": True}, 2),
        ({"pooling_mode_lasttoken": True}, 3),
        ({"pooling_mode": "mean"}, 1),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, 2),
        ({"pooling_mode": ["lasttoken"]}, 3),
        ({}, 1),
    ],
)
def test_both_spellings_of_pooling_are_read(settings, number):
    assert Pooling().read_files(pooled(settings, "Normalize"))[KEY].data == number


@pytest.mark.parametrize(
    "settings",
    [{"pooling_mode_max_tokens": True}, {"pooling_mode": "weightedmean"}, {"pooling_mode": 3},
     {"pooling_mode": ["cls", "mean"]}, {"pooling_mode": []},
     {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}],
)  # fmt: skip
def test_pooling_that_llama_cpp_cannot_do_is_refused(settings):
    assert said(files=pooled(settings))[1] == ["pooling"]


def _modules(*modules):
    return {"modules.json": json.dumps(modules).encode()}


TYPE = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        (pooled({}, "Dense"), "module"),
        ({"modules.json": b"{"}, "json"),
        ({"modules.json": b"\xff"}, "json"),
        ({"modules.json": b"{}"}, "json"),
        ({"modules.json": b"[1]"}, "json"),
        (_modules({"type": TYPE + "Pooling", "path": "../x"}), "missing-file"),
        (_modules({"type": TYPE + "Pooling"}), "missing-file"),
        (_modules({"path": "1_Pooling"}), "module"),
        ({**MEAN, POOLING: b"[]"}, "json"),
    ],
)
def test_files_that_are_not_sentence_transformers(files, rule):
    assert said(files=files)[1] == [rule]


def test_a_directory_without_pooling():
    assert Pooling().read_files(_modules({"type": TYPE + "Transformer", "path": ""})) == {}
    assert Pooling().read_files({POOLING: MEAN[POOLING]}) == {}


def test_a_pooling_module_may_be_elsewhere():
    module = {"type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"}
    files = {**_modules({**module, "path": "p"}), "p/config.json": b'{"pooling_mode": "cls"}'}
    assert Pooling().read_files(files)[KEY].data == 2


@pytest.mark.parametrize("number", [0, 4])
def test_pooling_that_no_module_does_makes_no_files(number):
    assert Pooling().write_files({KEY: scalar("u32", number)}) == {}


@pytest.mark.parametrize("value", [scalar("u32", 9), scalar("i32", -1), string("mean")])
def test_pooling_of_another_kind(value):
    report = Report()
    BERT.to_files({"bert.pooling_type": value}, report)
    assert rules(report) == ["config-type"]


def test_a_changed_pooling_wins_and_other_modules_stay():
    model, report = back(converted.ours("bert", "bf16"), bert__pooling_type=scalar("u32", 2))
    assert [n.subject for n in report.notes if "wins" in n.text] == ["bert.pooling_type"]
    assert Pooling().read_files(model.files)[KEY].data == 2
    assert json.loads(model.files["modules.json"]) == json.loads(MEAN["modules.json"])
    assert json.loads(model.files[POOLING])["word_embedding_dimension"] == 24


def test_a_changed_pooling_is_spelled_as_it_was():
    path = converted.ours("bert-one-type-sharded-f32", "f32")
    model, _ = back(path, bert__pooling_type=scalar("u32", 1))
    settings = json.loads(model.files[POOLING])
    assert settings == {"word_embedding_dimension": 24, "pooling_mode": "mean"}


def test_pooling_that_was_taken_away_or_added():
    model, _ = back(converted.ours("bert", "bf16"), bert__pooling_type=scalar("u32", 0))
    assert not {"modules.json", POOLING} & set(model.files)
    path = converted.ours("bert", "bf16")
    carried = {f"weighbridge__file__{name.replace('.', '__')}": None for name in MEAN}
    model, report = back(path, **carried)
    assert rules(report) == []
    assert Pooling().read_files(model.files)[KEY].data == 1


@pytest.mark.parametrize(
    "case", [case for case in ENCODERS if case.refused is None], ids=lambda case: case.name
)
def test_transformers_computes_the_same_with_a_foreign_file(case, tmp_path):
    """The converter's own file, which has none of our key-values, as a checkpoint."""
    theirs = llamacpp.convert(converted.source(case.name), tmp_path / "theirs.gguf", "f32")
    wb.convert(theirs, tmp_path / "back")
    before, after = (
        _states(path, case) for path in (converted.source(case.name), tmp_path / "back")
    )
    assert np.array_equal(before, after)


def _states(directory, case):
    network = getattr(transformers, case.model).from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        outputs = network.eval()(torch.tensor([[5, 7, 9, 11, 13, 6]]))
    return (outputs.logits if "logits" in outputs else outputs.last_hidden_state).numpy()


def test_a_foreign_file_becomes_a_directory_of_sentence_transformers():
    model, report = back(converted.theirs("bert"))
    assert rules(report) == []
    assert [module["type"] for module in json.loads(model.files["modules.json"])] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
    ]
    assert json.loads(model.files["sentence_bert_config.json"])["max_seq_length"] == 66
    settings = json.loads(model.files[POOLING])
    assert settings.pop("word_embedding_dimension") == 24
    assert [mode for mode, is_it in settings.items() if is_it] == ["pooling_mode_mean_tokens"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**12) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "1", "type", "path", "pooling_mode"]), inner)
    ),
    max_leaves=6,
)
ENTRIES = (
    "architectures", "id2label", "num_labels", "pad_token_id", "max_position_embeddings",
    "type_vocab_size", "hidden_size", "num_hidden_layers", "vocab_size", "hidden_act",
)  # fmt: skip


@given(
    entries=st.dictionaries(st.sampled_from(ENTRIES), JSON, max_size=3),
    files=st.dictionaries(st.sampled_from(["modules.json", POOLING]), JSON),
)
def test_no_config_and_no_file_breaks_it(entries, files):
    with wb.open(converted.source("roberta")) as model:
        changed = dataclasses.replace(
            model,
            config={**model.config, **entries},
            files={**model.files, **{name: json.dumps(x).encode() for name, x in files.items()}},
        )
        report = Report()
        translated = DIALECT.from_canonical(changed, report, DialectOptions())
    assert all(problem.rule for problem in report.problems)
    assert report.problems or translated.tensors


VALUES = (
    st.integers(0, 2**32 - 1).map(lambda n: scalar("u32", n))
    | st.sampled_from(["", "bert", "gpt2", "t5", "{}", "[]"]).map(string)
    | st.lists(st.text(max_size=3)).map(lambda x: array("string", x))
    | st.lists(st.integers(0, 300)).map(lambda x: array("u32", x))
)
KEYS = (
    "bert.pooling_type", "bert.classifier.output_labels", "bert.context_length",
    "bert.embedding_length", "bert.block_count", "tokenizer.ggml.model",
    "tokenizer.ggml.padding_token_id", "tokenizer.ggml.token_type_count",
    "weighbridge.file.modules.json", f"weighbridge.file.{POOLING}", "weighbridge.file.config.json",
)  # fmt: skip


@pytest.mark.parametrize(
    "whose", [converted.theirs, lambda name: converted.ours(name, "bf16")], ids=["theirs", "ours"]
)
@given(changes=st.dictionaries(st.sampled_from(KEYS), st.none() | VALUES, max_size=3))
def test_no_key_value_breaks_it(whose, changes):
    model, report = back(whose("roberta"), **changes)
    assert all(problem.rule for problem in report.problems)
    assert report.problems or model.config
