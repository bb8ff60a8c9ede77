"""Qwen3's mixtures of experts: Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder.

How GGUF differs from Hugging Face's checkpoints, beyond names and what `qwen3` says:

1. The experts of a block are stacked: a tensor for all gates, one for all ways up, one for all
   ways down. They are read and written expert by expert.
2. The router is float32 whatever the other weights are.
3. ``feed_forward_length`` is ``intermediate_size``, which no block uses;
   ``expert_feed_forward_length`` is what an expert has.
4. llama.cpp always divides the chosen experts' weights by their sum, which ``norm_topk_prob`` says;
   without it the model is another one, and transformers takes it for unset.
5. Every block has experts in llama.cpp: a config that leaves some dense is refused.
6. A config may leave ``head_dim`` to be derived, and GGUF then does too.
7. ``num_experts`` is ``num_local_experts`` in the configs of transformers 5.
8. With ``use_sliding_window`` every block slides.

Source: GGUF specification, and ``conversion/qwen.py`` of llama.cpp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.aspects import Fixed, Lost, Param
from weighbridge.converters.architectures.common import (
    GIVEN_HEAD_LENGTHS,
    KEYED_ROPE,
    LAYER,
    RMS_EPS,
    SHAPE,
    SILU,
    TIED,
    FileType,
    Vocabulary,
    attention,
    ends,
    head_norms,
    norms,
    sizes,
)
from weighbridge.converters.architectures.experts import (
    EXPERTS,
    USED,
    layers_and_experts,
    router,
    stacked,
)
from weighbridge.converters.architectures.qwen3 import QWEN3
from weighbridge.tensor_names import Naming

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.rules import Rule

INNER = Param("moe_intermediate_size", "{arch}.expert_feed_forward_length", "u32")
EXPERT = ("gate_proj", "up_proj", "down_proj")


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    return [
        *ends(config),
        *norms(s),
        *attention(s),
        *head_norms(s),
        *router(f"{LAYER}.mlp.gate", config),
        *stacked(f"{LAYER}.mlp.experts", EXPERT, config, inner=INNER.count(config)),
    ]


QWEN3_MOE = replace(
    QWEN3,
    name="qwen3moe",
    classes=("Qwen3MoeForCausalLM",),
    model_type="qwen3_moe",
    aspects=(
        *SHAPE,
        KEYED_ROPE,
        RMS_EPS,
        EXPERTS,
        USED,
        *GIVEN_HEAD_LENGTHS,
        FileType(),
        Vocabulary(written=False),
        INNER,
        TIED,
        SILU,
        Fixed("attention_bias", (False,)),
        Fixed("norm_topk_prob", (True,)),
        Fixed("decoder_sparse_step", (1,)),
        Fixed("mlp_only_layers", ([],)),
        Lost(
            "sliding_window",
            "llama.cpp attends to every token of the context",
            when=lambda config: bool(config.get("use_sliding_window")),
        ),
    ),
    rules=rules,
    variables=layers_and_experts,
    naming=Naming("model."),
    defaults={"norm_topk_prob": False},
)
