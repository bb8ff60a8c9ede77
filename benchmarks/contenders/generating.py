"""Greedy text of exported decoders in ONNX Runtime, driven by the names that a graph has itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.benchmarks.contender import Outcome
from weighbridge.engine.budget import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from weighbridge.benchmarks.contender import Timed

    Arrays = dict[str, NDArray[Any]]

PROMPT = np.arange(100, 132)[None]
"""Token numbers of the text that is continued."""

COUNT = 32
"""Tokens that are made."""

STEPS = (("model",), ("prefill", "decode"))
"""What graphs are called: one that does every step, or one for the first and one for the others."""

PAST = "past_key_values"


class Graph:
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        """Load it, to work on every core."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._cached = [each for each in self._session.get_inputs() if PAST in each.name]
        self._others = [each.name for each in self._session.get_inputs() if PAST not in each.name]

    def step(self, ids: NDArray[Any], past: list[NDArray[Any]]) -> tuple[int, list[NDArray[Any]]]:
        """Return the likeliest token after some, and the cache; without a past it is empty."""
        held = past or [np.zeros(_empty(each.shape), np.float32) for each in self._cached]
        before = held[0].shape[2] if held else 0
        given = dict(zip((each.name for each in self._cached), held, strict=True))
        fed = given | {name: self._fed(name, ids, before) for name in self._others}
        logits, *cache = self._session.run(self._outputs, fed)
        return int(logits[0, -1].argmax()), cache

    @staticmethod
    def _fed(name: str, ids: NDArray[Any], before: int) -> NDArray[Any]:
        known: Mapping[str, NDArray[Any]] = {
            "input_ids": ids,
            "attention_mask": np.ones((1, before + ids.shape[1]), np.int64),
            "position_ids": np.arange(before, before + ids.shape[1])[None],
        }
        return known[name]


def _empty(shape: list[int | str]) -> tuple[int, ...]:
    """Return the shape of a cache of one text that has no tokens.

    Example:
        >>> _empty(["batch", 3, "past_sequence", "64"])
        (1, 3, 0, 64)
    """
    _, heads, _, width = shape
    return 1, int(heads), 0, int(width)


def generate(source: Path, scratch: Path, compared: str = "yes") -> Timed:
    """Make tokens with the cache, after a text; loading the graphs is not timed.

    Args:
        source: the directory of the graphs.
        scratch: is not used.
        compared: whether the tokens have to be those of the other contenders; else nothing.
    """
    del scratch
    names = next(each for each in STEPS if (source / f"{each[0]}.onnx").exists())
    graphs = [Graph(source / f"{name}.onnx") for name in names]
    list(_made(graphs, 2))

    def call() -> Outcome:
        tokens = list(_made(graphs, COUNT))
        return Outcome({"tokens": len(tokens), "sum": sum(tokens)} if compared else {})

    return call


def _made(graphs: list[Graph], count: int) -> Iterator[int]:
    token, cache = graphs[0].step(PROMPT, [])
    for _ in range(count - 1):
        yield token
        token, cache = graphs[-1].step(np.array([[token]]), cache)
    yield token
