"""Gemma 3, the text models: Gemma 2 without soft caps, with norms of queries and keys.

How GGUF differs from Hugging Face's checkpoints, beyond names and what `gemma2` says:

1. Every head's query and key has a norm, to which 1 is added too.
2. An output layer may be there. A tied one is no tensor; one that is there all the same is kept.
3. Blocks with a window turn by another theta, ``rope_local_base_freq`` in transformers 4; that of
   5 has ``rope_parameters`` for each kind of block. Linear scaling is of the others alone.
4. Five of six blocks have a window, unless a key-value says otherwise; transformers 4 has the
   number of a period where that of 5 lists the blocks.
5. The attention's soft cap is gone; one of the output may be said.

Source: GGUF specification, ``conversion/gemma.py`` of llama.cpp and its ``src/models/gemma3.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from weighbridge.aspects import Fixed, lookup, plain, typed
from weighbridge.converters.architectures import common, gemma2
from weighbridge.converters.architectures.common import (
    BLOCK,
    HEAD_LENGTHS,
    LAYER,
    FileType,
    attention,
    ends,
    feed_forward,
    sizes,
)
from weighbridge.converters.architectures.gemma2 import (
    FULL,
    GEMMA2,
    SLIDING,
    QueryScale,
    Windows,
    norms,
    raised,
)
from weighbridge.converters.architectures.rope import THETA, Rope, parameters, unknown_kind
from weighbridge.ops import Add

if TYPE_CHECKING:
    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.rules import Rule
    from weighbridge.tensor import Lazy

LOCAL_BASE = "{arch}.rope.freq_base_swa"
LOCAL_THETA = "rope_local_base_freq"

THETAS = {FULL: 1_000_000.0, SLIDING: 10_000.0}
"""What ``Gemma3TextConfig`` of transformers takes where a config does not say."""


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    return [
        *ends(config, Add(1.0)),
        *attention(s),
        *(
            raised(f"{LAYER}.self_attn.{name}", f"{BLOCK}.attn_{name}", s.head)
            for name in ("q_norm", "k_norm")
        ),
        *feed_forward(s),
        *norms(s.hidden),
    ]


@dataclass(frozen=True)
class LayeredRope(Rope):
    """Theta and scaling of the blocks that attend to everything, and theta of the others.

    Example:
        >>> from weighbridge.report import Report
        >>> said = LayeredRope().to_metadata({"rope_local_base_freq": 5000.0}, Report())
        >>> [value.data for value in said.values()]
        [1000000.0, 5000.0]
    """

    kinds: tuple[str, ...] = ("default", "linear")

    @property
    def keys(self) -> tuple[str, ...]:
        """What any scaling has, and the other theta."""
        return (*super().keys, LOCAL_BASE)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return both thetas and the scaling.

        Raises:
            Unsupported: (rule ``rope-type``) for a scaling that llama.cpp does not compute: in
                blocks with a window, any.
        """
        local = parameters(_of(config, SLIDING))
        if local["rope_type"] != "default":
            raise unknown_kind(local["rope_type"], ("default",))
        said = super().to_metadata(_of(config, FULL), report)
        return {**said, LOCAL_BASE: typed("f32", local["rope_theta"], LOCAL_THETA)}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return both thetas and the scaling as transformers 4 and 5 both read them."""
        said = super().to_config(metadata, tensors)
        base = metadata.get(LOCAL_BASE)
        return {**said, LOCAL_THETA: THETA if base is None else plain(base, "f32", LOCAL_BASE)}

    def revised(
        self, config: Config, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> dict[str, Any]:
        """Return `config` with the key-values' thetas and scaling, in its own spelling."""
        said = dict(self.to_config(metadata, tensors))
        if not isinstance(config.get("rope_parameters"), Mapping):
            return {**config, "rope_scaling": None, **said}
        local = {"rope_type": "default", "rope_theta": said[LOCAL_THETA]}
        scaling = {"rope_type": "default", **said.get("rope_scaling", {})}
        full = {**scaling, "rope_theta": said["rope_theta"]}
        return {**config, "rope_parameters": {SLIDING: local, FULL: full}}


def _of(config: Config, kind: str) -> Config:
    """Return the rotary parameters of a kind of block, as a config of its own."""
    if isinstance(config.get("rope_parameters"), Mapping):
        inner = lookup(config, f"rope_parameters.{kind}")
        return {"rope_parameters": inner, "rope_theta": THETAS[kind]}
    name = LOCAL_THETA if kind == SLIDING else "rope_theta"
    scaling = None if kind == SLIDING else config.get("rope_scaling")
    return {"rope_scaling": scaling, "rope_theta": config.get(name) or THETAS[kind]}


GEMMA3 = replace(
    GEMMA2,
    name="gemma3",
    classes=("Gemma3ForCausalLM",),
    model_type="gemma3_text",
    aspects=(
        *common.SHAPE,
        LayeredRope(),
        common.RMS_EPS,
        *HEAD_LENGTHS,
        FileType(),
        replace(gemma2.FINAL_CAP, required=False),
        gemma2.WINDOW,
        Windows(6),
        QueryScale(by_heads=62),
        common.TIED,
        Fixed("attn_logit_softcapping", (None,)),
        *gemma2.SAME,
    ),
    rules=rules,
    dropped={},
    defaults={
        **{key: gemma2.DEFAULTS[key] for key in gemma2.DEFAULTS if "softcapping" not in key},
        "max_position_embeddings": 131072,
    },
)
