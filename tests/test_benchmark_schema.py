"""The published schema is that of the results, and says no to anything else."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from support.benchmark_results import made_up

from weighbridge.benchmarks.schema import schema

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLISHED = json.loads(
    resources.files("weighbridge.benchmarks").joinpath("schema.json").read_text()
)


def test_what_is_published_is_what_is_written() -> None:
    assert schema() == PUBLISHED
    Draft202012Validator.check_schema(PUBLISHED)


def test_results_keep_to_it() -> None:
    Draft202012Validator(PUBLISHED).validate(document())


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results.pop("cases"),
        lambda results: results.update(schema="other"),
        lambda results: results.update(more=1),
        lambda results: results["machine"].update(cores="two"),
        lambda results: results["cases"][0]["rows"][0]["figures"]["seconds"].pop("median"),
    ],
    ids=["missing", "schema", "more", "type", "nested"],
)
def test_anything_else_does_not(change: Callable[[Any], object]) -> None:
    results = document()
    change(results)
    assert not Draft202012Validator(PUBLISHED).is_valid(results)


def document() -> Any:
    """Return results as JSON has them."""
    return json.loads(json.dumps(asdict(made_up())))
