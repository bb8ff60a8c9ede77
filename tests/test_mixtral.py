"""Mixtures of experts: told from Llama, streamed expert by expert, unstacked again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import converted
from support.holes import holes, shapes_of
from support.tree import run_python

import weighbridge as wb
from weighbridge import registry
from weighbridge.converters.architectures.llama import LLAMA
from weighbridge.converters.architectures.mixtral import MIXTRAL
from weighbridge.families import find_by_name
from weighbridge.metadata import scalar
from weighbridge.report import Report
from weighbridge.sizes import parse_size
from weighbridge.steps import Route
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from weighbridge.errors import Error

FAMILIES = list(registry.architectures().values())

SIZES = {
    "vocab_size": 64,
    "num_hidden_layers": 1,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "num_local_experts": 32,
    "num_experts_per_tok": 2,
}
"""Three stacks of 134 MB in BF16."""

LARGE = {
    "MixtralForCausalLM": SIZES,
    "Qwen3MoeForCausalLM": {**SIZES, "moe_intermediate_size": 2048, "norm_topk_prob": True},
}

MEMORY = "125MB"
"""Less than a stack, Python and NumPy included."""

CONVERT = """
import sys
import weighbridge as wb
from weighbridge.benchmarks.memory import memory_of
source, target, memory, quantize = sys.argv[1:]
wb.plan(source, target, quantize=quantize or None).run(memory=memory)
print(memory_of().peak)
"""


MISSING = "model.layers.0.block_sparse_moe.experts.1.w3.weight"
SMALL = {**SIZES, "hidden_size": 8, "intermediate_size": 6, "head_dim": 2, "num_local_experts": 3}


def _told(change: dict[str, Any] | None) -> list[Error]:
    """Return what is told where one expert's matrix is not there, or has another shape."""
    shapes = shapes_of(MIXTRAL, SMALL)
    shapes[MISSING] = change["shape"] if change else ()
    report = Report()
    tensors = {name: from_array(name, np.zeros(s, np.float32)) for name, s in shapes.items()}
    if change is None:
        del tensors[MISSING]
    MIXTRAL.from_canonical(tensors, SMALL, report)
    return report.problems


@pytest.mark.parametrize(
    ("model", "quantize"), [("MixtralForCausalLM", ""), ("Qwen3MoeForCausalLM", "Q8_0")]
)
def test_stacks_that_are_larger_than_memory(tmp_path, model, quantize):
    source = holes(tmp_path / "a", model, LARGE[model])
    there, back = tmp_path / "b.gguf", tmp_path / "c"
    for paths, encoding in (((source, there), quantize), ((there, back), "")):
        peak = int(run_python(CONVERT, *map(str, paths), MEMORY, encoding))
        assert peak <= parse_size(MEMORY)
    with wb.open(there) as stacked:
        stack = stacked.tensors["blk.0.ffn_up_exps.weight"]
        assert stack.size * 2 > parse_size(MEMORY)
    assert quantize or all(difference.equal for difference in wb.diff(source, back))


@pytest.mark.parametrize("name", ["mixtral", "mixtral-sharded-q8_0", "qwen3_moe-sharded-q8_0"])
def test_experts_are_moved_and_not_decoded(name, tmp_path):
    """Where the encoding stays: nothing but slices is read and written."""
    plans = (
        wb.plan(converted.source(name), tmp_path / "a.gguf"),
        wb.plan(converted.ours(name), tmp_path / "b"),
    )
    for plan in plans:
        routes = {step.route for step in plan.steps if "exp" in step.name}
        assert routes == {Route.MOVE}


def test_the_number_of_experts_tells_it_from_llama():
    for count, expected in ((8, MIXTRAL), (0, LLAMA), (None, LLAMA)):
        metadata = {} if count is None else {"llama.expert_count": scalar("u32", count)}
        assert find_by_name(FAMILIES, "llama", metadata, {}) is expected


def test_a_file_of_others_comes_back_as_a_mixtral(tmp_path):
    wb.convert(converted.theirs("mixtral"), tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["architectures"] == ["MixtralForCausalLM"]
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (3, 2)


def test_theta_is_the_classes_own_where_a_config_does_not_say():
    config = {k: v for k, v in SIZES.items() if k != "rope_theta"}
    metadata = MIXTRAL.to_metadata(config, {}, Report())
    assert metadata["llama.rope.freq_base"].data == 1e6


@pytest.mark.parametrize("lacks", ["num_local_experts", "num_experts_per_tok"])
def test_a_config_that_does_not_count(lacks):
    report = Report()
    MIXTRAL.to_metadata({k: v for k, v in SIZES.items() if k != lacks}, {}, report)
    assert [problem.rule for problem in report.problems] == ["missing-config"]


@pytest.mark.parametrize("count", [1 << 20, (1 << 32) - 1])
def test_more_experts_than_tensors_are_refused_before_they_are_listed(count):
    report = Report()
    MIXTRAL.from_canonical({}, {**SIZES, "num_local_experts": count}, report)
    assert "variable-count" in {problem.rule for problem in report.problems}


def test_an_expert_that_is_missing_or_of_another_shape_is_named():
    for change, rule in (({"shape": [8, 8]}, "tensor-shape"), (None, "missing-tensor")):
        told = _told(change)
        assert [(problem.rule, problem.tensor) for problem in told] == [(rule, MISSING)]
