"""Granite 3 and 4 without experts: Llama with four numbers that scale what it computes.

How GGUF differs from Hugging Face's checkpoints, beyond names and what `llama` says:

1. Four multipliers have key-values of their own: of the embedding, of what a block adds, of the
   attention's scores, and the number that the logits are divided by. Where a config leaves one out
   it is 1, and it is written all the same: llama.cpp would take other ones, or refuse the file.
2. ``key_length`` is written where the config has ``head_dim``, which few have.
3. Llama 3's scaling cannot be said: the converter knows no tensor of factors for the family.

Source: ``conversion/granite.py`` of llama.cpp.
"""

from __future__ import annotations

from dataclasses import replace

from weighbridge.aspects import Param
from weighbridge.converters.architectures.common import (
    GIVEN_HEAD_LENGTHS,
    KEYED_ROPE,
    RMS_EPS,
    ROPE_DIMENSIONS,
    SHAPE,
    SILU,
    TIED,
    FileType,
    Vocabulary,
)
from weighbridge.converters.architectures.llama import BIASES, LLAMA, QUIRKS
from weighbridge.tensor_names import Naming

MULTIPLIERS = tuple(
    Param(config, f"{{arch}}.{key}", "f32", default=lambda config: 1.0)
    for config, key in (
        ("attention_multiplier", "attention.scale"),
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
    )
)

GRANITE = replace(
    LLAMA,
    name="granite",
    classes=("GraniteForCausalLM",),
    model_type="granite",
    aspects=(
        *SHAPE,
        KEYED_ROPE,
        RMS_EPS,
        *GIVEN_HEAD_LENGTHS,
        FileType(),
        Vocabulary(),
        ROPE_DIMENSIONS,
        *MULTIPLIERS,
        TIED,
        *BIASES,
        SILU,
        *QUIRKS,
    ),
    naming=Naming("model."),
)
