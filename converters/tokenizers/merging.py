"""Merges and scores: two ways to say which pair of tokens becomes one first.

A tokenizer.json lists the pairs in order. SentencePiece and llama.cpp give each token a score and
merge any two tokens that stand together and make a third, the highest score first. Source:
llama.cpp (``src/llama-vocab.cpp``); among pairs with equal scores, which llama.cpp merges from left
to right, the order is that of the files on the Hugging Face hub, which transformers 4 made.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Pair = tuple[str, str]

LONGEST = 1 << 10
"""The longest token, in characters, that may be cut at every place; a longer one is no merge's."""


def from_scores(scores: Mapping[str, float], ids: Mapping[str, int]) -> list[Pair]:
    """Return the pairs of tokens that make a third, those that are merged first before.

    Args:
        scores: the tokens that merges may make.
        ids: every token that merges may be made of.

    Example:
        >>> from_scores({"ab": -1.0, "abc": 0.0}, {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4})
        [('ab', 'c'), ('a', 'b')]
    """
    found = [
        (-score, ids[text], ids[first], ids[second], first, second)
        for text, score in scores.items()
        for first, second in _cuts(text, ids)
    ]
    found.sort()
    return [(first, second) for *_, first, second in found]


def _cuts(text: str, ids: Mapping[str, int]) -> Iterator[Pair]:
    for at in range(1, len(text) if len(text) <= LONGEST else 0):
        first = text[:at]
        if first in ids and text[at:] in ids:
            yield first, text[at:]


def to_scores(merges: Iterable[Pair], texts: Sequence[str]) -> dict[str, float]:
    """Return scores that merge in the order of the merges: from 0 down, in steps of 1.

    Tokens that no merge makes come last. This is how SentencePiece counts, so that the scores of a
    tokenizer.json that was made from its file are those of the file.

    Args:
        merges: the pairs, in order.
        texts: the tokens, by id.

    Example:
        >>> to_scores([("b", "c"), ("a", "b")], ["ab", "bc", "a", "b", "c"])
        {'bc': 0.0, 'ab': -1.0, 'a': -2.0, 'b': -3.0, 'c': -4.0}
    """
    ranks: dict[str, int] = {}
    for rank, (first, second) in enumerate(merges):
        ranks.setdefault(first + second, rank)
    ordered = sorted(texts, key=lambda text: ranks.get(text, inf))
    return {text: float(-place) for place, text in enumerate(ordered)}


def agree(merges: Sequence[Pair], scores: Mapping[str, float], ids: Mapping[str, int]) -> bool:
    """Say whether merges and scores merge alike; merges of other tokens than `ids` do not count.

    Args:
        merges: the pairs, in order.
        scores: the tokens that merges may make.
        ids: every token that merges may be made of.

    Example:
        >>> ids = {"a": 0, "ab": 1, "b": 2, "abb": 3, "bb": 4}
        >>> agree([("a", "b"), ("ab", "b")], {"ab": 0.0, "abb": -1.0}, ids)
        False
    """
    told = [(a, b) for a, b in merges if a in ids and b in ids and a + b in scores]
    falling = all(scores[a + b] >= scores[c + d] for (a, b), (c, d) in pairwise(told))
    return falling and set(told) == set(from_scores(scores, ids))
