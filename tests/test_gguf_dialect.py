"""GGUF's dialect: the way there, the exact way back, edits in between, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from support import tiny
from support.gguf_files import smollm2
from transformers import AutoConfig

import weighbridge as wb
from weighbridge.canonical import canonical
from weighbridge.converters import dtypes, recipes
from weighbridge.converters.gguf import DIALECT
from weighbridge.dialect import DialectOptions
from weighbridge.encoding import DENSE
from weighbridge.errors import InvalidFile, InvalidPlan
from weighbridge.kernels import codec_for
from weighbridge.metadata import array, scalar, string
from weighbridge.report import Report
from weighbridge.sidefiles import PREFIX
from weighbridge.tensor import from_array


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.small_tokenizer()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tokenizer):
    """A sharded bfloat16 checkpoint with everything that a directory may hold."""
    directory = tmp_path_factory.mktemp("source") / "tiny"
    extra = {"README.md": b"---\nlicense: mit\n---\n# Tiny\n", "notes/data.bin2": b"\xff\0"}
    return tiny.checkpoint(
        directory,
        dtype="bfloat16",
        shard_size="40KB",
        tokenizer={**tokenizer, **extra},
        head_dim=64,
        rope_parameters=tiny.LLAMA3,
    )


@pytest.fixture(scope="module")
def stored(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "tiny.gguf"
    wb.convert(checkpoint, path)
    return path


def opened(path):
    """Return a GGUF model that a test may change."""
    model = wb.open(path)
    return dataclasses.replace(model, metadata=dict(model.metadata), tensors=dict(model.tensors))


def back(model):
    report = Report()
    return canonical(model, report), report


def there(model, **options):
    report = Report()
    return DIALECT.from_canonical(model, report, DialectOptions(**options)), report


def rules(report):
    return [problem.rule for problem in report.problems]


def weights(directory):
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            found |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    return {name: (part.get_dtype(), part.get_shape()) for name, part in found.items()}


def test_shards_come_back_bit_for_bit(checkpoint, stored, tmp_path):
    plan = wb.plan(stored, tmp_path / "again", shard_size="40KB")
    assert {route for route, *_ in plan.routes()} == {"copy", "move", "repack"}
    plan.run()
    assert weights(tmp_path / "again") == weights(checkpoint)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again").state_dict()
    assert all((theirs[name] == ours[name]).all() for name in theirs)
    before, after = _content(checkpoint), _content(tmp_path / "again")
    assert all(after[name] == before[name] for name in before if "safetensors" not in name)


def _content(directory):
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(directory)): json.loads(path.read_bytes())
        if path.suffix == ".json"
        else path.read_bytes()
        for path in files
    }


def test_widened_weights_come_back_in_their_own_dtype(checkpoint, tmp_path):
    """All in float32 for a moment: nothing is lost, so nothing is left of it."""
    wb.convert(checkpoint, tmp_path / "wide.gguf", dtype="float32")
    wb.convert(tmp_path / "wide.gguf", tmp_path / "again")
    assert weights(tmp_path / "again") == weights(checkpoint)


def test_rounded_weights_stay_as_they_are(checkpoint, tmp_path):
    wb.convert(checkpoint, tmp_path / "x.gguf", quantize="Q8_0")
    with wb.open(tmp_path / "x.gguf") as model:
        tensors = back(model)[0].tensors
    assert str(tensors["model.embed_tokens.weight"].encoding) == "Q8_0"
    assert str(tensors["model.norm.weight"].encoding) == "BF16"


def test_old_chat_template_in_the_settings(tmp_path):
    """It comes back where it was, and only there."""
    files = dict(tiny.small_tokenizer(chat_template="{{ messages }}"))
    del files["chat_template.jinja"]
    source = tiny.checkpoint(tmp_path / "source", tokenizer=files)
    wb.convert(source, tmp_path / "x.gguf")
    with wb.open(tmp_path / "x.gguf") as model:
        assert model.metadata["tokenizer.chat_template"].data == "{{ messages }}"
    wb.convert(tmp_path / "x.gguf", tmp_path / "again")
    assert _content(tmp_path / "again") == _content(source)


def test_a_template_is_not_stored_twice(stored):
    with wb.open(stored) as model:
        carried = [key for key in model.metadata if key.startswith(PREFIX)]
    assert f"{PREFIX}config.json" in carried
    assert not {f"{PREFIX}chat_template.jinja", f"{PREFIX}tokenizer.json"} & set(carried)


def edited(stored, **changes):
    model = opened(stored)
    for key, value in changes.items():
        model.metadata[key.replace("__", ".")] = value
    translated, report = back(model)
    assert not report.problems
    return translated, [note.subject for note in report.notes]


def test_a_file_that_nobody_changed_has_no_notes(stored):
    assert edited(stored)[1] == []


def test_a_changed_context_length_wins(stored):
    model, notes = edited(stored, llama__context_length=scalar("u32", 512))
    assert model.config["max_position_embeddings"] == 512
    assert notes == ["llama.context_length"]


def test_a_changed_chat_template_wins(stored):
    model, notes = edited(stored, tokenizer__chat_template=string("{{ new }}"))
    assert model.files["chat_template.jinja"] == b"{{ new }}"
    assert notes == []  # it is stored there alone


def test_a_changed_chat_template_wins_over_the_settings(tmp_path):
    files = dict(tiny.small_tokenizer(chat_template="{{ messages }}"))
    del files["chat_template.jinja"]
    wb.convert(tiny.checkpoint(tmp_path / "s", tokenizer=files), tmp_path / "x.gguf")
    model, notes = edited(tmp_path / "x.gguf", tokenizer__chat_template=string("{{ new }}"))
    assert model.files["chat_template.jinja"] == b"{{ new }}"
    assert notes == ["tokenizer.chat_template"]


def test_a_changed_end_of_text_wins(stored):
    model, notes = edited(stored, tokenizer__ggml__eos_token_id=scalar("u32", 0))
    assert json.loads(model.files["tokenizer_config.json"])["eos_token"] == "<unk>"
    assert model.config["eos_token_id"] == 0
    assert json.loads(model.files["generation_config.json"])["eos_token_id"] == 0
    assert notes == ["tokenizer.ggml.eos_token_id"]


def test_changed_rotary_factors_win(stored):
    model = opened(stored)
    factors = np.ones(32, np.float32)
    model.tensors["rope_freqs.weight"] = from_array("rope_freqs.weight", factors)
    translated, report = back(model)
    assert translated.config["rope_parameters"] == {"rope_type": "default", "rope_theta": 500000.0}
    assert [note.subject for note in report.notes] == ["rope_freqs.weight"]


@pytest.fixture(scope="module")
def foreign():
    with wb.open(smollm2()) as model:
        yield model, *back(model)


def test_a_foreign_file_has_no_problems(foreign):
    assert rules(foreign[2]) == []


def test_its_values_are_its_own(foreign):
    gguf, model, _ = foreign
    heads, size = 9, 64
    theirs = gguf.tensors["blk.3.attn_q.weight"].values()
    ours = model.tensors["model.layers.3.self_attn.q_proj.weight"].values()
    pairs = ours.reshape(heads, 2, size // 2, -1).swapaxes(1, 2).reshape(ours.shape)
    assert np.array_equal(pairs, theirs)
    v = "model.layers.3.self_attn.v_proj.weight"
    assert np.array_equal(model.tensors[v].values(), gguf.tensors["blk.3.attn_v.weight"].values())


def test_its_config_is_one_that_transformers_reads(foreign, tmp_path):
    _, model, _ = foreign
    (tmp_path / "config.json").write_text(json.dumps(model.config))
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config).__name__ == "LlamaConfig"
    assert (config.vocab_size, config.head_dim, config.tie_word_embeddings) == (49152, 64, True)
    assert config.rope_parameters == {"rope_theta": 100000.0, "rope_type": "default"}
    assert json.loads(model.files["generation_config.json"])["eos_token_id"] == 2
    assert b'license: "apache-2.0"' in model.files["README.md"]


def test_a_foreign_file_without_a_tokenizer():
    model = opened(smollm2())
    model.metadata = {k: v for k, v in model.metadata.items() if not k.startswith("tokenizer.")}
    translated, report = back(model)
    assert not report.problems
    assert translated.config["vocab_size"] == 49152
    assert [note.subject for note in report.notes] == ["tokenizer.ggml.model"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"general.architecture": None}, "missing-key"),
        ({"general.architecture": string("mamba9")}, "unknown-family"),
        ({"general.architecture": scalar("u32", 1)}, "unknown-family"),
        ({"llama.block_count": None}, "missing-key"),
        ({"llama.block_count": string("30")}, "config-type"),
        ({"llama.block_count": scalar("u32", 29)}, "unmapped-tensor"),
        ({"llama.block_count": scalar("u32", 31)}, "missing-tensor"),
        ({"llama.block_count": scalar("u32", 4_000_000_000)}, "variable-count"),
        ({"llama.embedding_length": scalar("u32", 580)}, "tensor-shape"),
        ({"llama.attention.head_count": scalar("u32", 0)}, "config-type"),
        ({"llama.attention.head_count": array("u32", [9] * 30)}, "config-type"),
        ({"llama.attention.head_count_kv": scalar("u32", 9)}, "tensor-shape"),
        ({"llama.attention.value_length": scalar("u32", 32)}, "contradiction"),
        ({"llama.vocab_size": scalar("u32", 49153)}, "vocabulary-size"),
        ({"llama.vocab_size": scalar("u32", 49153)}, "tensor-shape"),
        ({"llama.vocab_size": scalar("u32", 4_000_000_000)}, "vocabulary-size"),
        ({"llama.rope.scaling.type": string("longrope")}, "rope-type"),
        ({"tokenizer.ggml.model": string("rwkv")}, "tokenizer-model"),
        ({"tokenizer.ggml.eos_token_id": string("x")}, "value-type"),
        ({f"{PREFIX}../escape": string("x")}, "file-name"),
        ({f"{PREFIX}config.json": string("[]")}, "json"),
        ({f"{PREFIX}x": scalar("u32", 1 << 31)}, "value-type"),
        ({dtypes.KEY: string("{")}, "json"),
    ],
)
def test_what_is_wrong_is_told_by_rule(change, rule):
    model = opened(smollm2())
    for key, value in change.items():
        if value is None:
            del model.metadata[key]
        else:
            model.metadata[key] = value
    assert rule in rules(back(model)[1])


def test_many_things_are_told_at_once():
    model = opened(smollm2())
    model.metadata["llama.rope.scaling.type"] = string("longrope")
    model.metadata["tokenizer.ggml.model"] = string("rwkv")
    del model.metadata["llama.context_length"]
    del model.tensors["output_norm.weight"]
    model.tensors["blk.0.surplus"] = model.tensors["blk.0.attn_norm.weight"]
    assert set(rules(back(model)[1])) == {
        "rope-type", "tokenizer-model", "missing-key", "missing-tensor", "unmapped-tensor",
    }  # fmt: skip


def test_weights_load_whatever_the_tokenizer(tmp_path):
    """Names need neither a tokenizer nor a rotary scaling that is understood."""
    model = opened(smollm2())
    model.metadata["tokenizer.ggml.model"] = string("rwkv")
    model.metadata["llama.rope.scaling.type"] = string("longrope")
    report = Report()
    named = canonical(model, report, weights_only=True)
    assert not report.problems
    assert len(named.tensors) == 272
    assert (named.config, named.files) == (None, {})


def changed(checkpoint, tmp_path, **config):
    path = tiny.copied(checkpoint, tmp_path / "copy", lambda document: document.update(config))
    return wb.open(path)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "unknown-family"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized-checkpoint"),
        ({"hidden_size": 34}, "tensor-shape"),
        ({"hidden_size": None}, "missing-config"),
        ({"num_attention_heads": 3}, "tensor-shape"),
        ({"num_hidden_layers": 3}, "missing-tensor"),
        ({"num_hidden_layers": 1}, "unmapped-tensor"),
        ({"num_hidden_layers": 4_000_000_000}, "variable-count"),
        ({"vocab_size": 63}, "tensor-shape"),
        ({"vocab_size": 60}, "vocabulary-size"),
        ({"vocab_size": 4_000_000_000}, "vocabulary-size"),
        ({"attention_bias": True}, "missing-tensor"),
        ({"tie_word_embeddings": "yes"}, "config-type"),
        ({"hidden_act": "gelu"}, "config-value"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope-type"),
        ({"head_dim": 1 << 20}, "config-type"),
    ],
)
def test_a_config_that_does_not_fit(checkpoint, tmp_path, config, rule):
    assert rule in rules(there(changed(checkpoint, tmp_path, **config))[1])


def test_a_model_without_a_config(checkpoint):
    model = dataclasses.replace(wb.open(checkpoint), config=None)
    assert rules(there(model)[1]) == ["missing-config"]


def test_a_directory_without_a_tokenizer(tmp_path):
    _, report = there(wb.open(tiny.checkpoint(tmp_path / "bare")))
    assert rules(report) == ["tokenizer-missing"]


def test_nothing_is_written_when_something_is_wrong(checkpoint, tmp_path):
    path = tiny.copied(checkpoint, tmp_path / "c", lambda d: d.update(hidden_act="gelu"))
    with pytest.raises(InvalidPlan):
        wb.convert(path, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_what_has_no_place_is_told(checkpoint):
    model = wb.open(checkpoint)
    frequencies = from_array("x", np.zeros(4, np.float32))
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    model = dataclasses.replace(model, tensors={**model.tensors, name: frequencies})
    translated, report = there(model)
    assert not report.problems
    assert ("dropped", name) in [(note.kind, note.subject) for note in report.notes]
    assert len(translated.tensors) == len(model.tensors)  # rope_freqs in its place


def test_a_tied_output_layer_that_is_there_is_kept_and_told(checkpoint):
    model = wb.open(checkpoint)
    model = dataclasses.replace(model, config={**model.config, "tie_word_embeddings": True})
    translated, report = there(model)
    assert "output.weight" in translated.tensors
    assert ("tied", "lm_head.weight") in [(note.kind, note.subject) for note in report.notes]


def test_an_untied_output_layer_must_be_there(checkpoint):
    model = wb.open(checkpoint)
    tensors = {name: t for name, t in model.tensors.items() if name != "lm_head.weight"}
    _, report = there(dataclasses.replace(model, tensors=tensors))
    assert [(p.rule, p.tensor) for p in report.problems] == [("missing-tensor", "lm_head.weight")]


SCALARS = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda n: scalar("u32", n)),
    st.integers(-(2**31), 2**31 - 1).map(lambda n: scalar("i32", n)),
    st.floats(width=32).map(lambda x: scalar("f32", x)),
    st.booleans().map(lambda b: scalar("bool", b)),
    st.sampled_from(["", "llama", "linear", "yarn", "none", "gpt2", "{}", "[]", "null", "\0"]).map(
        string
    ),
)
VALUES = (
    SCALARS
    | st.lists(st.integers(0, 300)).map(lambda x: array("u32", x))
    | st.lists(st.text(max_size=3)).map(lambda x: array("string", x))
)


@pytest.fixture(scope="module")
def opened_once(stored):
    model = opened(stored)
    keys = [*model.metadata, "llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.x",
            "llama.rope.scale_linear", f"{PREFIX}a", "general.tags", "tokenizer.ggml.scores",
            "tokenizer.ggml.add_bos_token"]  # fmt: skip
    return model, keys


@given(data=st.data())
def test_no_key_value_breaks_it(opened_once, data):
    """Whatever a file says: it is translated, or told by rule."""
    model, keys = opened_once
    changes = data.draw(st.dictionaries(st.sampled_from(keys), st.none() | VALUES, max_size=6))
    metadata = {**model.metadata, **changes}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    for carries in (True, False):
        kept = {k: v for k, v in metadata.items() if carries or k != f"{PREFIX}config.json"}
        translated, report = back(dataclasses.replace(model, metadata=kept))
        assert all(problem.rule for problem in report.problems)
        assert report.problems or translated.config


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**12) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rope_type", "type", "factor", "rope_theta"]), inner)
    ),
    max_leaves=4,
)


@given(data=st.data())
def test_no_config_breaks_it(checkpoint, data):
    model = wb.open(checkpoint)
    keys = [*model.config, "rope_scaling", "rope_theta", "quantization_config", "sliding_window"]
    changes = data.draw(st.dictionaries(st.sampled_from(keys), JSON, max_size=4))
    translated, report = there(dataclasses.replace(model, config={**model.config, **changes}))
    assert all(problem.rule for problem in report.problems)
    assert report.problems or translated.tensors


@pytest.mark.parametrize(
    ("name", "shape", "wanted", "expected"),
    [
        ("blk.0.attn_q.weight", (4, 64), "q8_0", "q8_0"),
        ("blk.0.attn_q.weight", (4, 40), "q8_0", "f16"),
        ("blk.0.attn_q.weight", (4, 40), None, "bf16"),
        ("blk.0.attn_q.bias", (64,), "q8_0", "f32"),
        ("blk.0.attn_norm.weight", (64,), None, "f32"),
        ("blk.0.attn_k_norm.weight", (4, 64), "f16", "f32"),
        ("blk.0.ffn_gate_inp.weight", (4, 64), "f16", "f32"),
        ("blk.0.ffn_gate_exps.weight", (4, 4, 64), "f16", "f16"),
        ("rope_freqs.weight", (64,), "bf16", "f32"),
        ("token_embd.weight", (4, 64), "bf16", "bf16"),
    ],
)
def test_encodings_are_those_of_the_converter(name, shape, wanted, expected):
    encoding = None if wanted is None else codec_for(wanted).encoding
    tensor = from_array("x", np.zeros(shape, DENSE["bf16"].dtype))
    assert DIALECT.encoding(name, tensor, encoding).name == expected


@pytest.mark.parametrize(
    ("wish", "number"), [({}, 32), ({"dtype": "float32"}, 0), ({"quantize": "Q8_0"}, 7)]
)
def test_the_file_type_follows_from_the_encodings(checkpoint, tmp_path, wish, number):
    plan = wb.plan(checkpoint, tmp_path / "x.gguf", **wish)
    assert plan.model.metadata["general.file_type"] == scalar("u32", number)


def test_a_file_type_that_is_as_good_stays():
    blocks = codec_for("q4_k").encoding
    tensor = from_array("x", np.zeros((1, 256), np.float32))
    object.__setattr__(tensor, "encoding", blocks)
    assert recipes.file_type([tensor], 14) == 14
    assert recipes.file_type([tensor], 7) == 15


def test_a_record_of_foreign_dtypes_is_left_alone():
    narrow = from_array("x", np.zeros((2, 2), np.float16))
    record = {dtypes.KEY: string('{"default":"bool","exceptions":{"x":["bf16"]}}')}
    report = Report()
    dtype = dtypes.recorded(record, report)
    assert dtypes.restored({"x": narrow, "y": narrow}, dtype)["x"] is narrow
    with pytest.raises(InvalidFile):
        raise report.problems[0] if report.problems else InvalidFile("", rule="")
