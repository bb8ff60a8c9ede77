"""Tables of names and shapes: they run both ways, and tell everything that does not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge import registry
from weighbridge.errors import InvalidInput
from weighbridge.families import find
from weighbridge.ops import Add, Split, Stack, Swap, Transpose
from weighbridge.report import Report
from weighbridge.rules import Template, rule, translate
from weighbridge.tensor import from_array

ARCHITECTURES = registry.architectures()


def tensor(*shape: int, name: str = "x"):
    return from_array(name, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


def told(tensors, rules, variables=None):
    report = Report()
    made = translate(tensors, rules, variables or {}, report)
    return list(made), [(problem.rule, problem.tensor) for problem in report.problems]


def test_template_fills_every_variable():
    template = Template("blk.{layer}.exp.{expert}")
    assert template.variables == {"layer", "expert"}
    assert template.fill({"layer": 1, "expert": 22}) == "blk.1.exp.22"


def test_sides_must_bind_the_same_variables():
    with pytest.raises(InvalidInput) as caught:
        rule("layers.{layer}.w", "w")
    assert caught.value.rule == "rule-variables"


def test_translate_keeps_the_source_order():
    tensors = {name: tensor(2) for name in ("c.1", "c.0", "a")}
    rules = [rule("a", "A"), rule("c.{n}", "C.{n}")]
    assert told(tensors, rules, {"n": range(2)}) == (["C.1", "C.0", "A"], [])


def test_one_to_many_and_back():
    rules = [rule("qkv", ["q", "k"], Split(0, (2, 1)), shape=(3, 4))]
    report = Report()
    apart = translate({"qkv": tensor(3, 4)}, rules, {}, report)
    together = translate(apart, [entry.inverse for entry in rules], {}, report)
    assert not report.problems
    assert together["qkv"].values().tolist() == tensor(3, 4).values().tolist()


def test_experts_are_stacked_over_a_variable_of_one_side():
    rules = [rule("l.{n}.e.{x}", "b.{n}", Stack(3), over=["x"], shape=(2, 2))]
    variables = {"n": range(2), "x": range(3)}
    tensors = {f"l.{n}.e.{x}": tensor(2, 2) for n in range(2) for x in range(3)}
    report = Report()
    stacked = translate(tensors, rules, variables, report)
    assert {name: t.shape for name, t in stacked.items()} == {"b.0": (3, 2, 2), "b.1": (3, 2, 2)}
    again = translate(stacked, [entry.inverse for entry in rules], variables, report)
    assert set(again) == set(tensors)
    assert all(again[name] is tensors[name] for name in again)  # nothing is left to compute
    assert not report.problems


def test_everything_wrong_is_told_at_once():
    rules = [
        rule("a", "A", shape=(2,)),
        rule("b", "B"),
        rule("c", "C"),
        rule("d", "C"),
        rule("e", "E", Swap(0, 2, 2, 2)),
        rule("f", "F", optional=True),
    ]
    tensors = {name: tensor(3) for name in "acdez"}
    assert told(tensors, rules) == (
        ["C"],
        [
            ("tensor-shape", "a"),
            ("duplicate-name", "C"),
            ("op-shape", "e"),
            ("missing-tensor", "b"),
            ("unmapped-tensor", "z"),
        ],
    )


def test_the_inverse_checks_the_shape_it_makes():
    rules = [rule("a", "A", Transpose(), shape=(2, 3)).inverse]
    assert told({"A": tensor(3, 2)}, rules) == (["a"], [])
    assert told({"A": tensor(2, 3)}, rules) == ([], [("tensor-shape", "A")])


def test_a_shape_for_each_left_name():
    joined = rule(["a", "b"], "ab", Split(0, (1, 2)).inverse, shape=[(1, 2), (2, 2)])
    assert told({"a": tensor(1, 2), "b": tensor(2, 2)}, [joined]) == (["ab"], [])
    assert told({"a": tensor(2, 2), "b": tensor(2, 2)}, [joined])[1] == [("tensor-shape", "a")]


@pytest.mark.parametrize("layers", [3, 4_000_000_000])
def test_a_config_that_counts_too_much_is_refused_before_it_is_listed(layers):
    made, problems = told({"l.0": tensor(1), "l.1": tensor(1)}, [rule("l.{n}", "b.{n}")],
                          {"n": range(layers)})  # fmt: skip
    assert (made, problems) == ([], [("variable-count", None)])


def test_a_problem_is_told_once():
    report = Report()
    for _ in range(2):
        with report.collect():
            raise InvalidInput("the same", rule="same", tensor="x")
    assert len(report.problems) == 1


NAMES = st.text("abc.", min_size=1, max_size=6)
OPS = st.sampled_from([Add(2.0), Transpose(), Swap(0, 2, 2, 3), Swap(1, 1, 2, 2)])


@given(NAMES, NAMES, st.lists(OPS, max_size=3), st.booleans())
def test_inverse_of_the_inverse(left, right, ops, optional):
    entry = rule(left, right, *ops, shape=(12, 4), optional=optional)
    assert entry.inverse.inverse == entry
    assert entry.inverse.left == entry.right


@given(st.permutations(range(24)), st.integers(1, 4), st.sampled_from([(2, 3), (3, 2), (1, 6)]))
def test_there_and_back_gives_the_same_values(values, outer, inner):
    rows = outer * inner[0] * inner[1]
    x = from_array("x", np.resize(np.float32(values), (rows, 2)))
    entry = rule("x", "y", Swap(0, outer, *inner), Add(1.0), shape=(rows, 2))
    report = Report()
    there = translate({"x": x}, [entry], {}, report)
    back = translate({"y": from_array("y", there["y"].values())}, [entry.inverse], {}, report)
    assert not report.problems
    assert np.array_equal(back["x"].values(), x.values())


def test_a_relative_is_a_replacement():
    llama = ARCHITECTURES["llama"]
    relative = dataclasses.replace(llama, name="relative", classes=("Relative",))
    assert find([llama, relative], {"architectures": ["Relative"]}) is relative
