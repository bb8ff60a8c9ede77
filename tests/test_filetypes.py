"""File types: the encoding of every tensor is the one that llama.cpp's quantiser chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import llama_quantize, tiny
from support.llama_quantize import HEADERS, file_types

import weighbridge as wb
from weighbridge import registry
from weighbridge.choose import Wanted, encoded
from weighbridge.converters.filetypes import file_type
from weighbridge.converters.filetypes.table import ALIASES, FILE_TYPES, NEED_IMPORTANCE
from weighbridge.errors import Error, InvalidPlan
from weighbridge.importance import ImportanceMatrix
from weighbridge.report import Report

STORED = llama_quantize.stored()
WEIGHTED = llama_quantize.stored(weighted=True)


def chosen(model, tmp_path, **options):
    plan = wb.plan(model, tmp_path / "x.gguf", **options)
    assert not plan.problems
    return {name: str(tensor.encoding) for name, tensor in plan.model.tensors.items()}


def chosen_with_importance(model, name):
    """Return the encodings where every matrix has importance weights, which are all one."""
    sizes = {x: t.size // t.shape[-2] for x, t in model.tensors.items() if t.ndim > 1}
    entries = {x: np.broadcast_to(np.float32(1), size) for x, size in sizes.items()}
    matrix = ImportanceMatrix(Path("x.gguf"), entries)
    report = Report()
    wanted = Wanted(recipe=file_type(name, weighted=True), importance=matrix)
    made = encoded(model, registry.formats()["gguf"], wanted, report)
    assert not report.problems
    return {name: str(tensor.encoding) for name, tensor in made.tensors.items()}


@pytest.mark.parametrize("name", file_types())
@pytest.mark.parametrize("header", HEADERS)
def test_every_tensor_gets_what_llama_cpp_chooses(header, name, tmp_path):
    ours = chosen(HEADERS[header].model(), tmp_path, quantize=name)
    assert llama_quantize.summary(ours) == STORED[header][name]


@pytest.mark.parametrize("name", FILE_TYPES)
@pytest.mark.parametrize("header", HEADERS)
def test_every_tensor_gets_what_llama_cpp_chooses_with_an_importance_matrix(header, name):
    ours = chosen_with_importance(HEADERS[header].model(), name)
    assert llama_quantize.summary(ours) == WEIGHTED[header][name]


def test_the_stored_choices_are_of_these_models_and_file_types():
    for weighted, stored in ((False, STORED), (True, WEIGHTED)):
        assert list(stored) == list(HEADERS)
        names = file_types(weighted=weighted)
        assert all(list(choices) == names for choices in stored.values())


def test_an_importance_matrix_changes_choices():
    assert {
        name
        for name in file_types()
        if any(STORED[header][name] != WEIGHTED[header][name] for header in HEADERS)
    } == {"Q4_0", "Q5_0", "IQ4_NL", "IQ4_XS"}


@pytest.mark.parametrize("short", ALIASES)
def test_short_names(short):
    assert file_type(short.lower()) == FILE_TYPES[ALIASES[short]]


def test_the_file_says_what_it_is(tmp_path):
    plan = wb.plan(HEADERS["llama-3-8b"].model(), tmp_path / "x.gguf", quantize="Q4_K_M")
    assert plan.model.metadata["general.file_type"].data == 15


def test_pure_is_one_encoding(tmp_path):
    model = HEADERS["llama-3-8b"].model()
    assert set(chosen(model, tmp_path, quantize="Q4_K_M", pure=True).values()) == {"Q4_K"}


@pytest.mark.parametrize("name", NEED_IMPORTANCE)
def test_what_needs_an_importance_matrix_is_refused(name, tmp_path):
    with pytest.raises(Error) as caught:
        wb.plan(HEADERS["llama-3-8b"].model(), tmp_path / "x.gguf", quantize=name)
    assert caught.value.rule == "importance"


@pytest.mark.parametrize("name", NEED_IMPORTANCE)
def test_pure_types_need_it_where_their_encoder_does(name, tmp_path):
    model = HEADERS["llama-3-8b"].model()
    if FILE_TYPES[name].base in ("iq1_s", "iq2_xxs", "iq2_xs"):
        with pytest.raises(Error) as caught:
            wb.plan(model, tmp_path / "x.gguf", quantize=name, pure=True)
        assert caught.value.rule == "importance"
    else:
        found = chosen(model, tmp_path, quantize=name, pure=True)
        assert set(found.values()) == {FILE_TYPES[name].base.upper()}


def test_a_pattern_overrides_the_choice(tmp_path):
    types = {r"blk\.0\.attn_v": "F16", "attn_v": "Q8_0", "token_embd": "Q5_0"}
    model = HEADERS["llama-3-8b"].model()
    found = chosen(model, tmp_path, quantize="Q4_K_M", tensor_types=types)
    assert found["blk.0.attn_v.weight"] == "F16"
    assert found["blk.1.attn_v.weight"] == "Q8_0"
    assert found["token_embd.weight"] == "Q5_0"
    assert found["output.weight"] == "Q6_K"


def test_a_pattern_whose_type_does_not_fit_falls_back(tmp_path):
    model = HEADERS["rows-of-320"].model()
    found = chosen(model, tmp_path, quantize="Q8_0", tensor_types={"attn_q": "Q4_K"})
    assert found["blk.0.attn_q.weight"] == "Q5_0"


@pytest.mark.parametrize(
    ("types", "rule"),
    [({"(": "Q8_0"}, "tensor-type"), ({"attn": "Q9_0"}, "unknown-encoding"),
     ({"attn": "F8_E4M3"}, "encoding-unsupported")],
)  # fmt: skip
def test_patterns_that_make_no_sense(types, rule, tmp_path):
    with pytest.raises(Error) as caught:
        wb.plan(HEADERS["llama-3-8b"].model(), tmp_path / "x.gguf", tensor_types=types)
    assert caught.value.rule == rule


def test_a_pattern_that_names_no_matrix_is_told(tmp_path):
    plan = wb.plan(HEADERS["llama-3-8b"].model(), tmp_path / "x.gguf", tensor_types={"x": "Q8_0"})
    assert [problem.rule for problem in plan.problems] == ["tensor-type"]
    with pytest.raises(InvalidPlan):
        plan.run()


def test_a_checkpoint_in_one_step(tmp_path):
    """From safetensors straight to Q4_K_M, rows of 320 values included."""
    sizes = {"hidden_size": 256, "intermediate_size": 320, "num_hidden_layers": 3}
    source = tiny.checkpoint(tmp_path / "model", tokenizer=tiny.small_tokenizer(), **sizes)
    wb.convert(source, tmp_path / "x.gguf", quantize="Q4_K_M")
    with wb.open(tmp_path / "x.gguf") as model:
        found = {name: str(tensor.encoding) for name, tensor in model.tensors.items()}
    assert found["blk.0.attn_q.weight"] == "Q4_K"
    assert found["blk.0.ffn_down.weight"] in ("Q8_0", "Q5_0")
    assert found["output.weight"] == "Q6_K"
