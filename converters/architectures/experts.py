"""Mixtures of experts: a checkpoint has matrices for each expert, GGUF one stack for all.

Source: ``conversion/qwen.py`` and ``conversion/llama.py`` of llama.cpp, which stack them; its
loader reads ``expert_count`` and ``expert_used_count`` for every family (``conversion/base.py``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.aspects import Param
from weighbridge.converters.architectures.common import BLOCK, HIDDEN, layers, linear
from weighbridge.ops import Stack
from weighbridge.rules import Rule, rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.model import Config

LOCAL = Param("num_local_experts", "{arch}.expert_count", "u32", aliases=("num_experts",))
"""The experts of a block, as Mixtral's configs name them."""

EXPERTS = replace(LOCAL, config="num_experts", aliases=("num_local_experts",))
"""The same as Qwen's configs of transformers 4 name them; version 5 has Mixtral's name."""

USED = Param("num_experts_per_tok", "{arch}.expert_used_count", "u32")
"""The experts that each token is sent to."""


def layers_and_experts(config: Config) -> dict[str, range]:
    """Return the values of the variables that count blocks and, in each, experts.

    Example:
        >>> layers_and_experts({"num_hidden_layers": 2, "num_experts": 8})
        {'layer': range(0, 2), 'expert': range(0, 8)}
    """
    return {**layers(config), "expert": range(EXPERTS.count(config))}


def router(left: str, config: Config) -> Iterator[Rule]:
    """Yield the rule of what sends tokens to experts, called `left` in a checkpoint."""
    shape = EXPERTS.count(config), HIDDEN.count(config)
    yield from linear(left, f"{BLOCK}.ffn_gate_inp", shape)


def stacked(left: str, names: Sequence[str], config: Config, *, inner: int) -> Iterator[Rule]:
    """Yield the rules that stack a block's experts, of which a slice at a time is read.

    Args:
        left: what the experts' names begin with in a checkpoint.
        names: what a checkpoint calls an expert's gate, its way up and its way down.
        config: config.json, which counts them.
        inner: values of a token inside an expert.
    """
    stack, hidden = Stack(EXPERTS.count(config)), HIDDEN.count(config)
    shapes = ((inner, hidden), (inner, hidden), (hidden, inner))
    for name, right, shape in zip(names, ("gate", "up", "down"), shapes, strict=True):
        each, all_of_them = f"{left}.{{expert}}.{name}.weight", f"{BLOCK}.ffn_{right}_exps.weight"
        yield rule(each, all_of_them, stack, over=["expert"], shape=shape)
