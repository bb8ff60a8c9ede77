"""Mixtral: Mistral with a mixture of experts for each feed-forward network.

How GGUF differs from Hugging Face's checkpoints, beyond names and what `llama` says:

1. Its ``general.architecture`` is ``llama``, too: ``expert_count`` tells the two apart.
2. The experts of a block are stacked: a tensor for all gates (``w1``), one for all ways up
   (``w3``), one for all ways down (``w2``). They are read and written expert by expert.
3. The router is float32 whatever the other weights are.
4. Theta is 1,000,000 where the config does not say; llama.cpp would take 10,000.

Source: GGUF specification, section "LLaMA", and ``conversion/llama.py`` of llama.cpp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.converters.architectures.common import (
    HEAD_LENGTHS,
    LAYER,
    RMS_EPS,
    ROPE,
    ROPE_DIMENSIONS,
    SHAPE,
    SILU,
    TIED,
    FileType,
    Vocabulary,
    attention,
    ends,
    norms,
    sizes,
)
from weighbridge.converters.architectures.experts import (
    LOCAL,
    USED,
    layers_and_experts,
    router,
    stacked,
)
from weighbridge.converters.architectures.llama import LLAMA, QUIRKS, WINDOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.metadata import Metadata
    from weighbridge.model import Config
    from weighbridge.rules import Rule
    from weighbridge.tensor import Lazy

EXPERT = ("w1", "w3", "w2")
MOE = f"{LAYER}.block_sparse_moe"


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    return [
        *ends(config),
        *norms(s),
        *attention(s, paired=True),
        *router(f"{MOE}.gate", config),
        *stacked(f"{MOE}.experts", EXPERT, config, inner=s.inner),
    ]


def has_experts(metadata: Metadata, tensors: Mapping[str, Lazy]) -> bool:
    """Tell Mixtral from Llama."""
    del tensors
    found = metadata.get(LOCAL.key.replace("{arch}", LLAMA.name))
    return found is not None and found.data != 0


MIXTRAL = replace(
    LLAMA,
    classes=("MixtralForCausalLM",),
    model_type="mixtral",
    aspects=(
        *SHAPE,
        ROPE,
        RMS_EPS,
        LOCAL,
        USED,
        *HEAD_LENGTHS,
        FileType(),
        Vocabulary(),
        ROPE_DIMENSIONS,
        TIED,
        SILU,
        WINDOW,
        *QUIRKS,
    ),
    rules=rules,
    variables=layers_and_experts,
    marks=has_experts,
    defaults={"rope_theta": 1e6},
)
