"""What a case of a family is: a tiny model, and what is expected of its conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from support import tiny

Files = Mapping[str, bytes]

DECODER: Mapping[str, Any] = MappingProxyType(
    {
        **tiny.COMMON,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "hidden_size": 48,
        "intermediate_size": 80,
        "rms_norm_eps": 1e-5,
        "vocab_size": 49152,
    }
)
"""Sizes for a decoder with SmolLM2's tokenizer, none of them equal to another or to a default."""


@dataclass(frozen=True)
class Case:
    """A tiny model and what is expected of it.

    Attributes:
        name: what tests and the golden file call it: the family, then what is special.
        model: the class in transformers.
        config: entries of its config.
        dtype: what its weights are rounded to.
        outtype: what both converters are asked for.
        tokenizer: returns the tokenizer's files.
        files: further side files.
        old_spelling: whether config.json is spelled as by transformers 4.
        edit: changes config.json after it was saved, for what transformers no longer writes.
        rename: gives a saved tensor another name, or None to leave it out, for checkpoints of old.
        shard_size: the most bytes of a weight file.
        tolerance: how far llama.cpp's log-probabilities (or embeddings) may be from transformers':
            1e-4, or 2e-2 where ggml's half-precision GELU is used; None where llama.cpp cannot run
            the model.
        lost: side of the way back: canonical tensors that GGUF has no place for, as the plan says.
        cut: canonical tensors that come back with zeros where GGUF has no place for their rows.
        refused: the rule by which the converter's own file is refused, where it lacks something.
        differs: key-values or tensors that llama.cpp's converter writes otherwise, or elsewhere
            -> why.
    """

    name: str
    model: str
    config: Mapping[str, Any]
    dtype: str = "bfloat16"
    outtype: str = "bf16"
    tokenizer: Callable[[], Files] = tiny.smollm2_tokenizer
    files: Files = field(default_factory=dict)
    old_spelling: bool = False
    edit: Callable[[dict[str, Any]], None] | None = None
    rename: Callable[[str], str | None] | None = None
    shard_size: str | None = None
    tolerance: float | None = 1e-4
    lost: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
    refused: str | None = None
    differs: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the name."""
        return self.name
