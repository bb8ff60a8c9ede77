"""Any of our formats as a model of transformers, judged by transformers' own ways of loading."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support import tiny
from support.gguf_files import smollm2
from support.tree import run_python
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import weighbridge as wb
from weighbridge.engine.load import loading
from weighbridge.errors import (
    Error,
    InvalidFile,
    InvalidInput,
    InvalidPlan,
    MissingDependency,
    Unsupported,
)
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.tensor import from_array
from weighbridge.transformers import directory_of

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "The capital of France is"

MEBIBYTE = 1 << 20

ENCODER = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 40,
}  # fmt: skip

LLAMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("LlamaForCausalLM", {}),
    "tied": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "biased": ("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    "scaled": ("LlamaForCausalLM", {"head_dim": 64, "rope_parameters": tiny.LLAMA3}),
    "mistral": ("MistralForCausalLM", {"sliding_window": 64}),
}
"""Name -> class, and what its config has beside `tiny.COMMON`."""

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "experts": (
        "Qwen3MoeForCausalLM",
        {**tiny.COMMON, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "mixtral": ("MixtralForCausalLM", {**tiny.COMMON, "num_local_experts": 4}),
    "encoder": ("BertModel", ENCODER),
    "classifier": ("BertForSequenceClassification", {**ENCODER, "num_labels": 5}),
    "encoder and decoder": (
        "T5ForConditionalGeneration",
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "transposed": (
        "GPT2LMHeadModel",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
    ),
}
"""Name -> class and config of models that differ in what transformers makes of a checkpoint."""


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Assert that two models have the same class, numbers, ties, buffers, and settings."""
    assert type(one) is type(other)
    for kind in ("named_parameters", "named_buffers"):
        mine, theirs = (dict(getattr(m, kind)(remove_duplicate=False)) for m in (one, other))
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            assert values.dtype == theirs[name].dtype, name
            assert values.requires_grad == theirs[name].requires_grad, name
            assert torch.equal(values, theirs[name]), name
    assert ties(one) == ties(other)
    assert one.training == other.training is False
    settings = [m.config.to_dict() for m in (one, other)]
    assert settings[0] == settings[1]
    advice = [m.generation_config for m in (one, other) if m.can_generate()]
    assert advice == advice[::-1]


def ties(model: torch.nn.Module) -> set[frozenset[str]]:
    """Return the groups of names that are one parameter."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values()}


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.fixture(scope="module")
def ours() -> Any:
    return wb.transformers.from_pretrained(smollm2())


@pytest.fixture(scope="module")
def theirs() -> Any:
    folder, file = smollm2().parent, smollm2().name
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()


def test_the_real_model_is_that_of_transformers_own_way(ours: Any, theirs: Any) -> None:
    model, tokenizer = ours
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    assert torch.equal(logits(model, ids), logits(theirs, ids))
    assert ties(model) == ties(theirs)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    found, expected = model.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(values, expected[name]) for name, values in found.items())


def test_its_numbers_in_bfloat16_are_rounded_once(theirs: Any) -> None:
    model, _ = wb.transformers.from_pretrained(smollm2(), dtype=torch.bfloat16)
    assert model.dtype == model.config.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    expected = theirs.state_dict()
    for name, values in model.state_dict().items():
        assert torch.equal(values, expected[name].bfloat16()), name
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, theirs.get_buffer(name)), name


def test_its_tokenizer_talks(ours: Any) -> None:
    _, tokenizer = ours
    expected = AutoTokenizer.from_pretrained(smollm2().parent, gguf_file=smollm2().name)
    assert tokenizer(PROMPT)["input_ids"] == expected(PROMPT)["input_ids"]
    messages = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_pipeline_takes_both(ours: Any) -> None:
    model, tokenizer = ours
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    (made,) = write(PROMPT, max_new_tokens=8, do_sample=False)
    assert made["generated_text"].startswith(f"{PROMPT} Paris")


@pytest.mark.parametrize("dtype", [None, "float32", "float16", torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LLAMAS)
def test_a_directory_is_what_transformers_loads(tmp_path: Path, name: str, dtype: Any) -> None:
    kind, changes = LLAMAS[name]
    tiny.checkpoint(tmp_path, kind, dtype="bfloat16", shard_size="20kB", **changes)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model, tokenizer = wb.transformers.from_pretrained(tmp_path, dtype=dtype)
    assert tokenizer is None
    same(model, AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype or "auto"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_copy_of_the_checkpoint_is_right_too(
    tmp_path: Path, name: str, dtype: str
) -> None:
    kind, entries = OTHERS[name]
    tiny.checkpoint(tmp_path, kind, entries=entries)
    model, _ = wb.transformers.from_pretrained(tmp_path, dtype=dtype)
    same(model, getattr(transformers, kind).from_pretrained(tmp_path, dtype=getattr(torch, dtype)))


@pytest.mark.parametrize("target", ["x.gguf", "x.onnx"])
def test_other_formats_are_the_directory_that_they_were(tmp_path: Path, target: str) -> None:
    source = tiny.checkpoint(
        tmp_path / "source",
        dtype="bfloat16",
        tokenizer=tiny.smollm2_tokenizer(),
        vocab_size=49152,
        old_spelling=True,
        tie_word_embeddings=True,
    )
    wb.convert(source, tmp_path / target)
    model, tokenizer = wb.transformers.from_pretrained(tmp_path / target)
    assert model.dtype == torch.bfloat16
    assert model.name_or_path == str(tmp_path / target)
    expected = AutoModelForCausalLM.from_pretrained(source)
    model.config.name_or_path = expected.config.name_or_path
    same(model, expected)
    again = AutoTokenizer.from_pretrained(source)
    assert tokenizer(PROMPT)["input_ids"] == again(PROMPT)["input_ids"]
    assert tokenizer.chat_template == again.chat_template
    assert tokenizer.special_tokens_map == again.special_tokens_map


def test_experts_that_a_gguf_stacks_are_stacked_anew(tmp_path: Path) -> None:
    kind, entries = OTHERS["mixtral"]
    files = tiny.smollm2_tokenizer()
    tiny.checkpoint(tmp_path / "x", kind, entries={**entries, "vocab_size": 49152}, tokenizer=files)
    wb.convert(tmp_path / "x", tmp_path / "x.gguf")
    model, _ = wb.transformers.from_pretrained(tmp_path / "x.gguf")
    model.config.name_or_path = str(tmp_path / "x")
    same(model, AutoModelForCausalLM.from_pretrained(tmp_path / "x"))


def test_another_class_may_be_asked_for(tmp_path: Path) -> None:
    kind, entries = OTHERS["classifier"]
    tiny.checkpoint(tmp_path, kind, entries=entries)
    auto = transformers.AutoModelForSequenceClassification
    for wanted in ("AutoModelForSequenceClassification", auto):
        model, _ = wb.transformers.from_pretrained(tmp_path, model_class=wanted)
        assert type(model) is transformers.BertForSequenceClassification
    model, _ = wb.transformers.from_pretrained(tmp_path, model_class="BertModel")
    expected = auto.from_pretrained(tmp_path).bert.state_dict()
    assert all(torch.equal(values, expected[n]) for n, values in model.state_dict().items())
    assert failed(tmp_path, model_class="AutoModelForCTC").rule == "model-class"


def test_options_reach_transformers(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path)
    model, _ = wb.transformers.from_pretrained(
        tmp_path, attn_implementation="eager", device="cpu", memory="2MB", threads=1
    )
    assert model.config._attn_implementation == "eager"
    same(model, AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager"))


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_without_a_dtype_it_is_that_of_most_weights(tmp_path: Path, stored: str) -> None:
    tiny.checkpoint(tmp_path, dtype=stored)
    tiny.edit_json(tmp_path / "config.json", lambda config: config.pop("dtype"))
    assert wb.transformers.from_pretrained(tmp_path).model.dtype == getattr(torch, stored)


def test_advice_on_generation_comes_along(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path)
    advice = {"temperature": 0.3, "do_sample": True, "max_new_tokens": 7}
    (tmp_path / "generation_config.json").write_text(json.dumps(advice))
    model, _ = wb.transformers.from_pretrained(tmp_path)
    same(model, AutoModelForCausalLM.from_pretrained(tmp_path))
    assert model.generation_config.max_new_tokens == 7
    (tmp_path / "generation_config.json").unlink()
    model, _ = wb.transformers.from_pretrained(tmp_path)
    same(model, AutoModelForCausalLM.from_pretrained(tmp_path))


def rewritten(directory: Path, change: Any) -> None:
    """Change the tensors of a checkpoint."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def failed(path: Path, **options: Any) -> Error:
    """Return the error that loading raises; its text has one line for each problem."""
    with pytest.raises(Error) as caught:
        wb.transformers.from_pretrained(path, **options)
    assert str(path) in str(caught.value)
    problems = getattr(caught.value, "problems", (caught.value,))
    assert len(str(caught.value).splitlines()) == len(problems)
    return caught.value


def test_every_missing_tensor_is_named(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, tie_word_embeddings=False)
    gone = {"lm_head.weight", "model.layers.1.mlp.up_proj.weight"}
    rewritten(tmp_path, lambda tensors: [tensors.pop(name) for name in gone])
    error = failed(tmp_path)
    assert isinstance(error, InvalidPlan)
    assert {problem.rule for problem in error.problems} == {"missing-tensor"}
    assert {problem.tensor for problem in error.problems} == gone


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path)
    rewritten(tmp_path, lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}))
    error = failed(tmp_path)
    assert (error.rule, error.tensor) == ("tensor-shape", "model.norm.weight")
    assert (error.got, error.expected) == ([31], [32])


def test_a_number_out_of_range_is_refused(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path)
    rewritten(tmp_path, lambda tensors: tensors["model.norm.weight"].fill_(1e30))
    error = failed(tmp_path, dtype="float16")
    assert (error.rule, error.tensor) == ("overflow", "model.norm.weight")


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path)
    assert failed(tmp_path / "model.safetensors").rule == "no-config"


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "/x.json"])
def test_no_file_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    model = Model("x", HUGGING_FACE, {}, config={}, files={name: b"{}"})
    with pytest.raises(InvalidFile) as caught, directory_of(model):
        pass
    assert caught.value.rule == "file-name"


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path / "source")
    wb.convert(tmp_path / "source", tmp_path / "x.gguf", weights_only=True)
    assert isinstance(failed(tmp_path / "x.gguf"), InvalidPlan)


@pytest.mark.parametrize("architectures", [["Nothing"], [], None, 5, [5], ["PreTrainedConfig5"]])
def test_a_class_that_is_not_there_is_refused(tmp_path: Path, architectures: Any) -> None:
    tiny.checkpoint(tmp_path)
    tiny.edit_json(tmp_path / "config.json", lambda c: c.update(architectures=architectures))
    assert failed(tmp_path).rule == "model-class"
    model, _ = wb.transformers.from_pretrained(tmp_path, model_class="AutoModelForCausalLM")
    assert type(model) is transformers.LlamaForCausalLM


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "nothing"},
        {"hidden_size": "wide"},
        {"hidden_act": "nothing"},
        {"auto_map": {"AutoConfig": "own.Config"}, "model_type": "own"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_config_that_transformers_refuses_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    tiny.checkpoint(tmp_path)
    tiny.edit_json(tmp_path / "config.json", lambda config: config.update(change))
    error = failed(tmp_path)
    assert isinstance(error, Unsupported)
    assert error.rule == "transformers"


def test_a_tokenizer_that_transformers_refuses_is_refused(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, tokenizer={"tokenizer.json": b"{}", "tokenizer_config.json": b"{}"})
    assert failed(tmp_path).rule == "transformers"


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "nothing"])
def test_a_dtype_of_no_model_is_refused(tmp_path: Path, dtype: str) -> None:
    tiny.checkpoint(tmp_path)
    assert failed(tmp_path, dtype=dtype).rule == "encoding"


def test_without_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency) as caught:
        wb.transformers.from_pretrained(smollm2())
    assert caught.value.rule == "transformers"
    assert "weighbridge[transformers]" in str(caught.value)


def test_it_is_reached_without_bringing_transformers() -> None:
    code = """
import sys, weighbridge as wb
assert "transformers" in dir(wb)
print(wb.transformers.from_pretrained.__module__, {"torch", "transformers"} & {*sys.modules})
"""
    assert run_python(code) == "weighbridge.transformers set()\n"


PEAK = """
import sys, torch, transformers.models.llama.modeling_llama
import weighbridge.transformers
from weighbridge.benchmarks.memory import memory_of, reset_peak
before = memory_of()
reset_peak()
model, tokenizer = weighbridge.transformers.from_pretrained(sys.argv[1], dtype=sys.argv[2])
weights = sum(p.nbytes for p in model.parameters())
print(memory_of().peak - before.resident - weights)
"""


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_takes_the_weights_memory_and_little_more(dtype: str) -> None:
    assert int(run_python(PEAK, str(smollm2()), dtype)) < 300 * MEBIBYTE


def test_memory_that_is_there_is_filled_in_place() -> None:
    values = torch.arange(12.0).reshape(3, 4)
    lazy = from_array("x", values.numpy())
    parameter = torch.nn.Parameter(torch.empty(3, 4, dtype=torch.float16))
    address = parameter.data_ptr()
    with loading(threads=2) as loader:
        loader.fill({"x": (lazy, parameter)})
        assert torch.equal(parameter, values.half())
        assert parameter.data_ptr() == address
        for wrong in (torch.empty(4, 3), torch.empty(4, 3).T, torch.empty(3, 4, device="meta")):
            with pytest.raises(InvalidInput) as caught:
                loader.fill({"x": (lazy, wrong)})
            assert (caught.value.rule, caught.value.tensor) == ("fill", "x")
