"""A component of an export as a function of keyword arguments, as the traced module is one.

What the module would have filled in for itself (a mask of ones, positions that count up, an empty
cache) is filled in here. What a graph does not take is dropped only where it says nothing: a mask
of ones, positions that count up. Anything else is refused, as the answer would be another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.runtimes.base import blaming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

PAST = "past_key_values"

MUTATED = "input."
"""What transformers' exporter puts before the name of an input that the module changed in place."""

IDS = ("input_ids", "decoder_input_ids")
"""The inputs that are a batch of token ids, by which the defaults of others are shaped."""

COUNT = "cumulative_length"
"""Where a layer of a cache that has a window counts tokens."""

IDLE = frozenset(
    {"cache_position", "encoder_outputs", "logits_to_keep", "return_dict", "use_cache"}
)
"""Arguments that change how a module computes or answers, not what."""

ELEMENTS = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}
"""ONNX Runtime's names of the types of inputs -> torch's."""


class Span(NamedTuple):
    """How long a batch of tokens is: its rows, its columns, and what the cache holds before."""

    batch: int
    length: int
    past: int


def _seen(span: Span) -> torch.Tensor:
    import torch

    return torch.ones(span.batch, span.past + span.length, dtype=torch.int64)


def _first_type(span: Span) -> torch.Tensor:
    import torch

    return torch.zeros(span.batch, span.length, dtype=torch.int64)


def _counted(span: Span) -> torch.Tensor:
    import torch

    return torch.arange(span.past, span.past + span.length)[None].expand(span.batch, -1)


DEFAULTS: Mapping[str, Callable[[Span], torch.Tensor]] = {
    "attention_mask": _seen,
    "decoder_attention_mask": _seen,
    "token_type_ids": _first_type,
    "position_ids": _counted,
    "decoder_position_ids": _counted,
}
"""What modules take where they are given nothing."""

SOURCES = ("attention_mask",)
"""What is as long as the encoder's states, where a decoder is given these."""

ONES = ("attention_mask", "decoder_attention_mask", "encoder_attention_mask", "pixel_mask")
"""Masks, which say nothing when they are all ones."""


class Graph:
    """One graph in ONNX Runtime.

    Attributes:
        takes: the arguments that the module was traced with.
        cached: whether it takes a cache.
        architecture: the class of the module.
    """

    def __init__(self, runner: Any, path: Path, unread: frozenset[str] = frozenset()) -> None:
        """Keep a runner of transformers' exporters.

        Args:
            runner: an ``OnnxModelRunner``.
            path: for errors.
            unread: arguments that the module has and never reads.
        """
        self._runner = runner
        self._idle = IDLE | unread
        self._path = path
        self._inputs = {
            spec.name.removeprefix(MUTATED): spec for spec in runner.session.get_inputs()
        }
        self.takes = frozenset(runner.metadata.kwargs)
        self.cached = any(name.startswith(f"{PAST}.") for name in self._inputs)
        self.architecture = str(runner.metadata.architecture)

    def __call__(self, **given: Any) -> Any:
        """Return what the module would: its own output class, caches among it.

        Raises:
            Unsupported: (rule ``onnx-input``) for an argument that the graph does not take and that
                would change the answer.
            InvalidInput: (rule ``onnx-input``) when an argument is missing.
            InvalidFile: (rule ``runtime``) when ONNX Runtime fails.
        """
        span = _span(given)
        taken = {}
        for name, value in given.items():
            if value is None:
                continue
            if self._takes(name):
                taken[name] = self._typed(name, value)
            elif not self._may_drop(name, value, span):
                raise self._refused(name)
        feeds = self._filled(taken, given, span)
        with blaming("ONNX Runtime", self._path):
            outputs = _by_name(self._runner(**feeds))
        return outputs if span is None else _recounted(outputs, span.past + span.length)

    def _takes(self, name: str) -> bool:
        """Return whether the graph reads an argument, or a part of it."""
        return name in self._inputs or any(one.startswith(f"{name}.") for one in self._inputs)

    def _may_drop(self, name: str, value: Any, span: Span | None) -> bool:
        import torch

        if name == PAST:
            return length_of(value) == 0
        if not isinstance(value, torch.Tensor):
            constants = self._runner.metadata.in_constants
            return name in self._idle or not value or constants.get(name) == value
        if name in self._idle:
            return True
        if name in ONES:
            return bool(value.bool().all())
        default = DEFAULTS.get(name)
        if default is None or span is None:
            return False
        expected = default(span).to(value.device)
        return value.shape[-1] == expected.shape[-1] and bool((value == expected).all())

    def _refused(self, name: str) -> Unsupported:
        return Unsupported(
            f"the graph does not take {name}, which would change the answer",
            rule="onnx-input",
            path=self._path,
            expected=", ".join(sorted(self._inputs)),
            hint="export it with such a sample",
        )

    def _typed(self, name: str, value: Any) -> Any:
        """Return a tensor in the type that the graph takes; anything else as it is."""
        import torch

        spec = self._inputs.get(name)
        if spec is None or not isinstance(value, torch.Tensor):
            return value
        return value.to(getattr(torch, ELEMENTS[spec.type])) if spec.type in ELEMENTS else value

    def _filled(
        self, taken: dict[str, Any], given: Mapping[str, Any], span: Span | None
    ) -> dict[str, Any]:
        """Return the arguments with what the module fills in for itself.

        Raises:
            InvalidInput: (rule ``onnx-input``) when something else is missing.
        """
        filled = dict(taken)
        if self.cached and span is not None and not span.past:
            filled[PAST] = self._no_past(span.batch)
        for name in self._inputs:
            root = name.partition(".")[0]
            if root in filled:
                continue
            if span is None or root not in DEFAULTS:
                raise InvalidInput(
                    f"needs {root}, which was not given", rule="onnx-input", path=self._path
                )
            wide = _source(given, span) if root in SOURCES else span
            filled[root] = self._typed(root, DEFAULTS[root](wide))
        return filled

    def _no_past(self, batch: int) -> dict[str, torch.Tensor]:
        """Return a cache without tokens, by the names of its tensors."""
        import torch

        return {
            name.removeprefix(f"{PAST}."): torch.zeros(
                _empty(spec.shape, batch), dtype=getattr(torch, ELEMENTS[spec.type])
            )
            for name, spec in self._inputs.items()
            if name.startswith(f"{PAST}.")
        }


def _empty(shape: list[int | str], batch: int) -> list[int]:
    """Return the shape of a tensor of a cache without tokens: free lengths are 0.

    Example:
        >>> _empty(["s44", "2", "s36", 8], 3)
        [3, 2, 0, 8]
        >>> _empty([], 3)
        []
    """
    sizes = [int(size) if str(size).isdecimal() else 0 for size in shape]
    return [batch, *sizes[1:]] if sizes else []


def _span(given: Mapping[str, Any]) -> Span | None:
    ids = next((given[name] for name in reversed(IDS) if given.get(name) is not None), None)
    if ids is None:
        return None
    batch, length = ids.shape
    return Span(batch, length, length_of(given.get(PAST)))


def _source(given: Mapping[str, Any], span: Span) -> Span:
    """Return how long the text is that a decoder looks back at, where it does so."""
    states = given.get("encoder_outputs")
    return span if states is None else Span(len(states[0]), states[0].shape[1], 0)


def length_of(past: Any) -> int:
    """Return how many tokens a cache holds; None holds none."""
    return 0 if past is None else int(past.get_seq_length())


def _by_name(outputs: Any) -> Any:
    """Return outputs that a pipeline can take by number, too: those of a graph that pools."""
    from transformers.modeling_outputs import BaseModelOutput

    if type(outputs) is not dict:
        return outputs
    named = BaseModelOutput()
    for name, value in outputs.items():
        named[name] = value
    return named


def _recounted(outputs: Any, length: int) -> Any:
    """Return outputs whose cache knows how many tokens it has seen.

    A layer with a window counts them in a number of Python, which a graph does not carry: what
    comes back is the count of the sample that was traced.
    """
    past = outputs.get(PAST)
    for layer in getattr(getattr(past, "self_attention_cache", past), "layers", ()):
        if isinstance(getattr(layer, COUNT, None), int):
            setattr(layer, COUNT, length)
    return outputs
