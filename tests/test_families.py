"""Every family: against llama.cpp's converter, and back again, bit for bit.

The cases are in ``families``. What differs from the converter's files is listed, with the reason,
in `llamacpp.EXPECTED_DIFFERENCES` and in the cases.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from families import CASES
from hypothesis import given
from hypothesis import strategies as st
from support import converted, golden, llamacpp

import weighbridge as wb
from weighbridge import registry
from weighbridge.families import find
from weighbridge.ops import Add, Applied
from weighbridge.report import Report
from weighbridge.tensor import from_array

ARCHITECTURES = registry.architectures()


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def files(case):
    """Our GGUF file and the converter's."""
    return converted.ours(case.name, case.outtype), converted.theirs(case.name)


def test_every_family_has_a_case():
    made = {_arch(case).name for case in CASES.values()}
    assert made == {arch.name for arch in ARCHITECTURES.values()}


def test_every_tensor_has_the_bytes_of_the_converters(case, files):
    assert set(llamacpp.different_tensors(*files)) <= set(case.differs)


def test_every_key_value_is_the_converters(case, files):
    explained = {**llamacpp.EXPECTED_DIFFERENCES, **case.differs}
    different = llamacpp.different_keys(*files)
    assert {key: both for key, both in different.items() if key not in explained} == {}


def test_keys_and_tensors_have_the_converters_order(case, files):
    with wb.open(files[0]) as ours, wb.open(files[1]) as theirs:
        placed = ours.metadata.keys() - set(case.differs) - set(llamacpp.PLACED_OTHERWISE)
        both = [key for key in theirs.metadata if key in placed]
        assert [key for key in ours.metadata if key in both] == both
        both = [name for name in theirs.tensors if name in ours.tensors]
        assert [name for name in ours.tensors if name in theirs.tensors] == both


def test_a_file_is_the_golden_one(case, files):
    """Its key-values, and each tensor's shape, encoding and bytes."""
    assert golden.of(files[0]) == golden.stored(case.name)


def test_the_converters_file_comes_back_as_ours_does(case, files, tmp_path):
    """It carries no config: both must still mean the same model."""
    for number, path in enumerate(files):
        plan = wb.plan(path, tmp_path / str(number), dtype="float32")
        if number and case.refused:
            assert {problem.rule for problem in plan.problems} == {case.refused}
            return
        plan.run()
    differences = wb.diff(tmp_path / "0", tmp_path / "1")
    different = {difference.name for difference in differences if not difference.equal}
    assert different <= set(case.differs)


def test_there_and_back_is_the_identity(case):
    """But for the tensors that the plan says are dropped; JSON is compared as JSON.

    transformers cuts shards in an order of its own: which shard a tensor is in says nothing.
    """
    before, after = converted.source(case.name), converted.again(case.name)
    with wb.open(before) as a, wb.open(after) as b:
        assert set(a.tensors) - set(b.tensors) == case.lost
        kept = [name for name in a.tensors if name not in case.lost]
        order = list if case.shard_size is None else sorted
        assert order(b.tensors) == order(kept)
        changed = [name for name in b.tensors if _bits(a.tensors[name]) != _bits(b.tensors[name])]
        assert set(changed) == case.cut
    assert _side_files(after) == _side_files(before)


def test_losses_are_named_in_the_plan(case, tmp_path):
    plan = wb.plan(converted.source(case.name), tmp_path / "x.gguf")
    dropped = {note.subject for note in plan.notes if note.kind == "dropped"}
    assert case.lost | case.cut <= dropped


def _bits(tensor):
    return tensor.shape, tensor.encoding, tensor.part().tobytes()


def _side_files(directory):
    return {
        str(path.relative_to(directory)): json.loads(path.read_bytes())
        if path.suffix == ".json"
        else path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and ".safetensors" not in path.name
    }


def _arch(case, config=None):
    return find(ARCHITECTURES.values(), config or converted.config(case))


SIZES = st.fixed_dictionaries(
    {"head_dim": st.sampled_from([2, 4, 6])},
    optional={
        "num_hidden_layers": st.integers(1, 4),
        "num_attention_heads": st.integers(1, 5),
        "num_key_value_heads": st.integers(1, 3),
        "intermediate_size": st.integers(1, 9),
        "vocab_size": st.integers(1, 9),
        "tie_word_embeddings": st.booleans(),
    },
)


@given(sizes=SIZES)
def test_no_two_rules_claim_one_name(case, sizes):
    config = {**converted.config(case), **sizes}
    arch = _arch(case, config)
    variables, rules = arch.variables(config), arch.rules(config)
    for side in (0, 1):
        names = [name for entry in rules for made in entry.expand(variables) for name in made[side]]
        assert len(names) == len(set(names))


@given(sizes=SIZES)
def test_the_rules_run_both_ways(case, sizes):
    """From the checkpoint's names to the file's and back: the same tensors, nothing to compute.

    But for what is added to and subtracted from them again.
    """
    config = {**converted.config(case), **sizes}
    arch = _arch(case, config)
    tensors = _tensors(arch.rules(config), arch.variables(config))
    report = Report()
    there = arch.from_canonical(tensors, config, report)
    back = {
        name if name in tensors else arch.naming.base + name: tensor
        for name, tensor in arch.to_canonical(there, config, report).items()
    }
    assert not report.problems
    assert list(back) == list(tensors)
    assert all(_without_sums(back[name]) is tensors[name] for name in tensors)


def _without_sums(tensor):
    while isinstance(tensor, Applied) and isinstance(tensor.op, Add):
        (tensor,) = tensor.inputs
    return tensor


def _tensors(rules, variables):
    return {
        name: from_array(name, np.zeros(shape, np.float32))
        for entry in rules
        for left, _ in entry.expand(variables)
        for name, shape in left.items()
    }
