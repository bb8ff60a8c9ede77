"""T5 and its relatives: run by llama.cpp's library, read back, copies, heads, what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import transformers
from families import CASES
from families.t5 import T5 as ENTRIES
from safetensors.torch import load_file, save_file
from support import converted, llama_library, llamacpp, seq2seq, tiny

import weighbridge as wb
from weighbridge.converters.architectures.t5 import T5, T5_ENCODER, scales
from weighbridge.metadata import scalar
from weighbridge.report import Report
from weighbridge.tensor import from_array

CLASS = "T5ForConditionalGeneration"

PROMPT = [5, 17, 33, 60, 12, 99, 1]
ANSWER = [0, 7, 44]

CONFIG = {
    **ENTRIES,
    "architectures": [CLASS],
    "model_type": "t5",
    "feed_forward_proj": "relu",
    "n_positions": 512,
}

WHOLE = [name for name, case in CASES.items() if case.model.endswith(CLASS)]


def said(files=None, **changes):
    """Return the key-values of a config, the rules it breaks and the notes."""
    report = Report()
    metadata = T5.to_metadata({**CONFIG, **changes}, files or {}, report)
    return {k: v.plain() for k, v in metadata.items()}, [p.rule for p in report.problems], report


def answer(directory):
    """Return transformers' logits after the answer, and how much it scaled them."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(directory, dtype="float32").eval()
    with torch.no_grad():
        both = {"input_ids": torch.tensor([PROMPT]), "decoder_input_ids": torch.tensor([ANSWER])}
        logits = model(**both).logits[0, -1].double().numpy()
    config = json.loads((directory / "config.json").read_text())
    return logits, math.sqrt(model.config.d_model) if scales(config) else 1.0


def states(directory):
    """Return what an encoder of transformers makes of the prompt."""
    model = transformers.T5EncoderModel.from_pretrained(directory, dtype="float32").eval()
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).last_hidden_state[0].numpy()


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def agree(path, directory):
    """Check that llama.cpp computes what transformers does, but for the output's scale."""
    logits, scale = answer(directory)
    wanted = log_softmax(logits * scale)
    found = llama_library.log_probs(path, PROMPT, ANSWER)
    assert found.argmax() == wanted.argmax()
    np.testing.assert_allclose(found, wanted, atol=2e-2)


@pytest.fixture(scope="module")
def own_head(tmp_path_factory):
    """A checkpoint like Flan-T5's: gated, its output layer its own and, as on the hub, untied."""
    source = converted.source("t5-gated-q8_0")
    directory = tiny.copied(source, tmp_path_factory.mktemp("t5") / "flan")
    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"] = tensors["shared.weight"].roll(1, 0).clone()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize("name", WHOLE)
def test_llama_cpp_runs_it(name):
    path = converted.ours(name, "f32")
    assert llama_library.start_token(path) == 0
    agree(path, converted.source(name))


@pytest.mark.parametrize("name", WHOLE)
def test_the_converters_file_computes_the_same_in_transformers(name, tmp_path):
    theirs = llamacpp.convert(converted.source(name), tmp_path / "theirs.gguf", "f32")
    wb.convert(theirs, tmp_path / "model")
    logits, scale = answer(tmp_path / "model")
    wanted, before = answer(converted.source(name))
    np.testing.assert_allclose(logits * scale, wanted * before, atol=1e-4)
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert generation["decoder_start_token_id"] == 0


def test_the_converters_encoder_computes_the_same_in_transformers(tmp_path):
    wb.convert(converted.theirs("t5-encoder"), tmp_path / "model")
    wanted = states(converted.source("t5-encoder"))
    np.testing.assert_allclose(states(tmp_path / "model"), wanted, atol=1e-5)


def test_a_head_of_its_own_is_kept(own_head, tmp_path):
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    wb.convert(own_head, ours, quantize="f32")
    llamacpp.convert(own_head, theirs)
    assert llamacpp.different_tensors(ours, theirs) == {}
    agree(ours, own_head)
    wb.convert(ours, tmp_path / "again")
    assert all(difference.equal for difference in wb.diff(own_head, tmp_path / "again"))
    wb.convert(theirs, tmp_path / "foreign")
    np.testing.assert_allclose(answer(tmp_path / "foreign")[0], answer(own_head)[0], atol=1e-5)


def test_transformers_reads_our_file_as_the_source(own_head, tmp_path):
    """Its own reader of GGUF knows the gated kind alone, without a head of its own."""
    wb.convert(own_head, tmp_path / "flan.gguf")
    config = transformers.T5Config.from_pretrained(own_head)
    model = transformers.T5ForConditionalGeneration.from_pretrained(
        tmp_path, gguf_file="flan.gguf", config=config, dtype="float32"
    )
    wanted = transformers.T5ForConditionalGeneration.from_pretrained(own_head, dtype="float32")
    read = model.encoder.state_dict()
    assert all(torch.equal(read[name], t) for name, t in wanted.encoder.state_dict().items())


@pytest.mark.parametrize("model", ["MT5EncoderModel", "UMT5EncoderModel"])
def test_encoders_of_relatives(model, tmp_path):
    entries = {**ENTRIES, "feed_forward_proj": "gated-gelu"}
    source = tiny.checkpoint(tmp_path / "a", model, entries=entries, tokenizer=seq2seq.t5())
    wb.convert(source, tmp_path / "b.gguf")
    with wb.open(tmp_path / "b.gguf") as opened:
        assert opened.metadata["general.architecture"].plain() == "t5encoder"
        foreign = {k: v for k, v in opened.metadata.items() if not k.startswith("weighbridge.")}
        report = Report()
        biased = model.startswith("U")
        assert ("enc.blk.2.attn_rel_b.weight" in opened.tensors) == biased
        config = T5_ENCODER.to_config(foreign, opened.tensors, report)
        assert report.problems == []
        assert config["feed_forward_proj"] == "gated-gelu"
    wb.convert(tmp_path / "b.gguf", tmp_path / "c")
    assert all(difference.equal for difference in wb.diff(source, tmp_path / "c"))


EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


@pytest.mark.parametrize("held", [EMBEDDINGS, EMBEDDINGS[1:], EMBEDDINGS[2:]])
def test_one_embedding_is_kept_whatever_it_is_called(held, tmp_path):
    source = tiny.copied(converted.source("t5"), tmp_path / "old")
    tensors = load_file(source / "model.safetensors")
    shared = tensors.pop("shared.weight")
    tensors |= {name: shared.clone() for name in held}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    plan = wb.plan(source, tmp_path / "old.gguf", quantize="bf16")
    told = {note.subject: note.kind for note in plan.notes if note.subject in EMBEDDINGS}
    first = "shared.weight" if "shared.weight" in held else sorted(held)[0]
    assert {name for name, kind in told.items() if kind == "dropped"} == {*held} - {first}
    assert (told.get(first) == "renamed") == (first != "shared.weight")
    plan.run()
    differences = wb.diff(tmp_path / "old.gguf", converted.ours("t5", "bf16"))
    assert all(difference.equal for difference in differences)


def test_a_bias_that_nothing_uses_comes_back(tmp_path):
    source = tiny.copied(converted.source("t5"), tmp_path / "old")
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors = load_file(source / "model.safetensors")
    tensors[name] = torch.ones(16, 3, dtype=torch.bfloat16)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    wb.convert(source, tmp_path / "old.gguf")
    wb.convert(tmp_path / "old.gguf", tmp_path / "again")
    with wb.open(tmp_path / "old.gguf") as there, wb.open(tmp_path / "again") as again:
        assert "dec.blk.0.cross_attn_rel_b.weight" in there.tensors
        assert name in again.tensors
    agree(tmp_path / "old.gguf", source)


def test_what_a_config_leaves_out_is_the_classes():
    left_out = ("n_positions", "num_decoder_layers", "d_kv", "layer_norm_epsilon")
    report = Report()
    config = {key: value for key, value in CONFIG.items() if key not in left_out}
    metadata = {k: v.plain() for k, v in T5.to_metadata(config, {}, report).items()}
    assert report.problems == []
    assert metadata["t5.context_length"] == 512
    assert metadata["t5.decoder_block_count"] == 3
    assert metadata["t5.attention.key_length"] == metadata["t5.attention.value_length"] == 64
    assert metadata["t5.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    "changes",
    [{"feed_forward_proj": "gated-silu"}, {"feed_forward_proj": "gelu"},
     {"feed_forward_proj": None}, {"dense_act_fn": "gelu"},
     {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"},
     {"relative_attention_max_distance": 64}, {"num_layers": 1, "num_decoder_layers": 2}],
)  # fmt: skip
def test_what_llama_cpp_does_not_compute_is_refused(changes):
    assert said(**changes)[1] == ["config-value"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [({}, True), ({"tie_word_embeddings": False}, False), ({"model_type": "mt5"}, False),
     ({"model_type": "umt5", "tie_word_embeddings": False}, True),
     ({"scale_decoder_outputs": False}, False)],
)  # fmt: skip
def test_the_outputs_scale_is_told_to_be_lost(changes, told):
    subjects = [note.subject for note in said(**changes)[2].notes]
    assert any("scale" in subject for subject in subjects) == told


def test_the_decoder_starts_as_generation_config_says():
    config = {"decoder_start_token_id": None}
    key = "t5.decoder_start_token_id"
    files = {"generation_config.json": b'{"decoder_start_token_id": 3}'}
    assert said(files, **config)[0][key] == 3
    assert said(**config, pad_token_id=4)[0][key] == 4
    assert key not in said(**config, pad_token_id=None)[0]
    assert said({"generation_config.json": b'{"decoder_start_token_id": "3"}'})[1] == [
        "config-type"
    ]


def test_a_changed_start_is_put_where_it_was():
    metadata = {"t5.decoder_start_token_id": scalar("u32", 5)}
    files = {"generation_config.json": b'{"decoder_start_token_id": 3, "top_k": 1}'}
    revised = T5.revise_files(files, CONFIG, metadata, Report())
    assert json.loads(revised["generation_config.json"]) == {
        "decoder_start_token_id": 5,
        "top_k": 1,
    }
    assert T5.revise_files({}, CONFIG, metadata, Report()) == {}


def test_the_first_blocks_bias_is_needed_and_no_other_known():
    name = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    tensors = {
        left: from_array(left, np.zeros(shape, np.float32))
        for entry in T5.rules(CONFIG)
        for expected, _ in entry.expand(T5.variables(CONFIG))
        for left, shape in expected.items()
    }
    tensors[name.format(1)] = tensors.pop(name.format(0))
    report = Report()
    T5.from_canonical(tensors, CONFIG, report)
    rules = {(problem.rule, problem.tensor) for problem in report.problems}
    assert rules == {("missing-tensor", name.format(0)), ("unmapped-tensor", name.format(1))}
