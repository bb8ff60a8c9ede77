"""Every family in llama.cpp: it computes from our file what transformers does from the checkpoint.

The weights are in float32 on both sides; a case's `tolerance` says how close the logarithms of all
tokens' probabilities (or the numbers of an embedding) come, and where llama.cpp cannot run it.
"""

from __future__ import annotations

import pytest
from families import CASES
from support import converted

import weighbridge as wb

PROMPTS = ("The quick brown fox jumps over the lazy dog", "def main():\n    return 42")


@pytest.fixture(scope="module", params=[case for case in CASES.values() if case.tolerance], ids=str)
def found(request):
    """Both runtimes' answers for a case."""
    case = request.param
    return wb.verify(
        converted.source(case.name),
        converted.ours(case.name, "f32"),
        prompts=PROMPTS,
        tokens=0,
        tolerance=case.tolerance,
    )


def test_it_computes_the_same(found):
    assert found.max_error <= found.tolerance
    assert found.passed


def test_the_likeliest_tokens_are_the_same(found):
    assert found.agreed == found.parts


def test_the_tokens_of_a_text_are_the_same(found):
    assert found.same_ids
