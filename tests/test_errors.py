"""Errors: one line, safe in a terminal, and whole after a journey."""

from __future__ import annotations

import pickle

import pytest

from weighbridge import errors
from weighbridge.errors import Error, InvalidFile, InvalidPlan, escaped, printable

FIELDS = {"rule": "a-rule", "path": "/a", "tensor": "x", "got": 1, "expected": 2, "hint": "do it"}
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, Error) and kind is not InvalidPlan
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_all_in_one_line_and_survives_pickling(kind: type[Error]) -> None:
    error = kind("is wrong", **FIELDS)
    assert str(error) == "/a: tensor 'x': is wrong (got 1, expected 2) [a-rule]; do it"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.fields() == error.fields() == {"problem": "is wrong", **FIELDS}


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InvalidFile, ValueError),
        (errors.InvalidInput, ValueError),
        (errors.InvalidPlan, ValueError),
        (errors.NotFound, FileNotFoundError),
        (errors.AlreadyExists, FileExistsError),
        (errors.Unsupported, NotImplementedError),
        (errors.MissingDependency, ImportError),
        (errors.SystemRefusal, OSError),
    ],
)
def test_an_error_is_what_a_caller_would_catch(kind: type, builtin: type) -> None:
    assert issubclass(kind, builtin)


def test_a_plan_tells_every_problem() -> None:
    problems = [InvalidFile("one", rule="first", tensor="a"), Error("two", rule="second")]
    plan = InvalidPlan(problems)
    assert str(plan).splitlines() == ["tensor 'a': one [first]", "two [second]"]
    assert (plan.rule, plan.tensor) == ("first", "a")
    again = pickle.loads(pickle.dumps(plan))
    assert str(again) == str(plan)


HOSTILE = "a\x1b[31mb\nc\r\x9b2J\u202ed\x00\x7f"


@pytest.mark.parametrize("field", ["problem", "path", "tensor", "got", "expected", "hint"])
def test_no_field_drives_a_terminal(field: str) -> None:
    fields = {"problem": "is wrong", "rule": "r", field: HOSTILE}
    line = str(Error(**fields))
    assert line.isprintable()
    assert r"a\x1b[31mb\nc" in line


def test_long_values_are_cut_but_no_path() -> None:
    error = Error("is wrong", rule="r", path="p" * 3000, got="g" * 3000)
    assert "p" * 3000 in str(error)
    assert len(str(error)) < 3300


@pytest.mark.parametrize("text", ["重み", "e\u0301", "💾", "a\\b", "it's"])
def test_what_is_printable_stays(text: str) -> None:
    assert escaped(text) == printable(text) == text


@pytest.mark.parametrize("limit", [1, 4, 10])
def test_printable_keeps_its_limit(limit: int) -> None:
    assert len(printable("\x1b" * 50, limit)) <= limit
    assert printable("abc", 3) == "abc"
