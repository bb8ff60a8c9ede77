"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: fused matrices, and LongRoPE.

How GGUF differs from Hugging Face's checkpoints, beyond names:

1. Queries, keys and values stay one matrix, ``attn_qkv``; so do gate and up, which are called
   ``ffn_up``. Nothing is permuted: llama.cpp turns the halves of a head, as transformers does.
2. LongRoPE's factors are lists in the config and tensors here, ``rope_factors_long.weight`` and
   ``rope_factors_short.weight``; what they do to attention is a key-value. See `longrope`.
3. ``original_context_length`` is always written, whether or not there is a scaling.
4. Phi-4-mini turns a part of each head: a share in the config, a number of values here.
5. ``attention.sliding_window`` is 0 for Phi-4, which has none. llama.cpp has switched windows off
   for the family: it attends to every token of the context.
6. A tied output layer is no tensor. One that is there all the same is kept: llama.cpp uses it.

Source: GGUF specification, and ``conversion/phi.py`` of llama.cpp and its ``src/models/phi3.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.arch import Arch
from weighbridge.aspects import Aspect, Fixed, integer, plain, typed, wrong
from weighbridge.converters.architectures.common import (
    BLOCK,
    COMPUTED,
    CONTEXT,
    HEADS,
    HIDDEN,
    INNER,
    KV_HEADS,
    LAYER,
    LAYERS,
    RMS_EPS,
    SILU,
    TIED,
    FileType,
    Vocabulary,
    ends,
    layers,
    linear,
    norms,
    sizes,
)
from weighbridge.converters.architectures.longrope import (
    ORIGINAL_CONTEXT,
    LongRope,
    PartialRotary,
)
from weighbridge.metadata import scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.rules import Rule
    from weighbridge.tensor import Lazy

WINDOW = "{arch}.attention.sliding_window"


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    queries, keys = s.heads * s.head, s.kv_heads * s.head
    return [
        *ends(config),
        *norms(s),
        *linear(f"{LAYER}.self_attn.qkv_proj", f"{BLOCK}.attn_qkv", (queries + 2 * keys, s.hidden)),
        *linear(f"{LAYER}.self_attn.o_proj", f"{BLOCK}.attn_output", (s.hidden, queries)),
        *linear(f"{LAYER}.mlp.gate_up_proj", f"{BLOCK}.ffn_up", (2 * s.inner, s.hidden)),
        *linear(f"{LAYER}.mlp.down_proj", f"{BLOCK}.ffn_down", (s.hidden, s.inner)),
    ]


@dataclass(frozen=True)
class Window(Aspect):
    """The sliding window: no number in config.json is 0 here, and llama.cpp uses neither."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return (WINDOW,)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the key-value, and tell that llama.cpp does without."""
        window = config.get("sliding_window")
        if window is None:
            return {WINDOW: scalar("u32", 0)}
        said = typed("u32", window, "sliding_window")
        if window < integer(config, "max_position_embeddings"):
            why = "llama.cpp attends to every token of the context"
            report.note("warning", "config.json's sliding_window", f"{window}: {why}")
        return {WINDOW: said}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the number, None for 0 and where there is none."""
        del tensors
        window = plain(metadata[WINDOW], "u32", WINDOW) if WINDOW in metadata else 0
        return {"sliding_window": window or None}


@dataclass(frozen=True)
class Heads(Aspect):
    """Heads that share a token's values evenly: llama.cpp computes no others for the family."""

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return nothing, having checked the sizes."""
        del report
        s = sizes(config)
        if s.heads * s.head != s.hidden:
            raise wrong("head_dim", s.head, f"{s.hidden} / {s.heads}")
        return {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return nothing."""
        del metadata, tensors
        return {}


PHI3 = Arch(
    name="phi3",
    classes=("Phi3ForCausalLM",),
    model_type="phi3",
    aspects=(
        CONTEXT,
        ORIGINAL_CONTEXT,
        HIDDEN,
        INNER,
        LAYERS,
        HEADS,
        KV_HEADS,
        RMS_EPS,
        PartialRotary(),
        LongRope(),
        FileType(),
        Window(),
        Vocabulary(written=False),
        TIED,
        Heads(),
        SILU,
        Fixed("attention_bias", (False,)),
    ),
    rules=rules,
    variables=layers,
    dropped=COMPUTED,
    defaults={"original_max_position_embeddings": 4096},
)
