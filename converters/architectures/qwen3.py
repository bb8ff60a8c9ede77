"""Qwen3: Qwen2 with norms of queries and keys in place of biases, and heads of any length.

How GGUF differs from Hugging Face's checkpoints, beyond names and what `qwen2` says:

1. Every head's query and key has a norm, whose weight all heads of a block share.
2. ``key_length`` is always written, and must be: transformers takes 128 where a config does not
   say, llama.cpp the heads' share of a token.
3. ``attention_bias`` adds biases to all four matrices; llama.cpp loads none of the output's.

Source: GGUF specification, and ``conversion/qwen.py`` of llama.cpp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.aspects import Fixed, Param
from weighbridge.converters.architectures.common import (
    KEYED_ROPE,
    RMS_EPS,
    SHAPE,
    SILU,
    TIED,
    VALUE_LENGTH,
    FileType,
    Headless,
    Vocabulary,
    attention,
    ends,
    feed_forward,
    head_norms,
    norms,
    sizes,
)
from weighbridge.converters.architectures.pooling import Pooling
from weighbridge.converters.architectures.qwen2 import QWEN2, WINDOW
from weighbridge.tensor_names import Naming

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.rules import Rule


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    return [*ends(config), *norms(s), *attention(s), *head_norms(s), *feed_forward(s)]


QWEN3 = replace(
    QWEN2,
    name="qwen3",
    classes=("Qwen3ForCausalLM", "Qwen3Model"),
    model_type="qwen3",
    aspects=(
        *SHAPE,
        KEYED_ROPE,
        RMS_EPS,
        Param("head_dim", "{arch}.attention.key_length", "u32"),
        VALUE_LENGTH,
        FileType(),
        Pooling(),
        Headless("Qwen3Model"),
        Vocabulary(written=False),
        TIED,
        SILU,
        WINDOW,
        Fixed("attention_bias", (False,)),
    ),
    rules=rules,
    naming=Naming("model.", bare=("Qwen3Model",)),
    defaults={**QWEN2.defaults, "head_dim": 128},
)
