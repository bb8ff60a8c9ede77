"""Gemma 2: norms on both sides of each half of a block, soft caps, windows in every second block.

How GGUF differs from Hugging Face's checkpoints, beyond names:

1. A norm multiplies by its weight plus 1 there, by its weight alone here: 1 is added to all norms,
   in float32. What the sum cannot hold of a weight is kept beside it: see `originals`. (llama.cpp's
   converter adds in half precision where the checkpoint is in half precision.)
2. There is no output layer: it is the embedding. One that a checkpoint has all the same is dropped.
3. The post norms are ``post_attention_norm`` and ``post_ffw_norm``; what stands before the
   feed-forward network is ``ffn_norm``, which is not the checkpoint's ``post_attention_layernorm``.
4. Both soft caps are key-values; llama.cpp caps in any case.
5. Every second block attends to everything, the first to a window; another period is a key-value,
   which the converter does not write. Any other order of ``layer_types`` cannot be said.
6. What queries are divided by follows from the sizes: ``query_pre_attn_scalar`` must agree.
7. ``rope_theta`` goes unsaid where it is 10,000. Nothing is permuted.
8. Configs leave much to transformers' class: its values hold, see `DEFAULTS`.

Source: GGUF specification, ``conversion/gemma.py`` of llama.cpp and its ``src/models/gemma2.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.arch import Arch
from weighbridge.aspects import Aspect, Fixed, Param, integer, plain, required, typed, wrong
from weighbridge.converters.architectures.common import (
    BLOCK,
    CONTEXT,
    HEAD_LENGTHS,
    HEADS,
    HIDDEN,
    INNER,
    KEY_LENGTH,
    KV_HEADS,
    LAYER,
    LAYERS,
    RMS_EPS,
    FileType,
    Vocabulary,
    attention,
    feed_forward,
    layers,
    linear,
    norm,
    sizes,
)
from weighbridge.converters.architectures.rope import Rope
from weighbridge.errors import Unsupported
from weighbridge.metadata import scalar
from weighbridge.ops import Add

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.rules import Rule
    from weighbridge.tensor import Lazy

SLIDING, FULL = "sliding_attention", "full_attention"

MOST_LAYERS = 1 << 16
"""The most blocks whose kinds are listed: hostile configs count to billions."""

DEFAULTS: Mapping[str, Any] = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
"""What ``Gemma2Config`` of transformers takes where a config does not say."""


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    return [
        *linear("model.embed_tokens", "token_embd", (s.vocab, s.hidden)),
        raised("model.norm", "output_norm", s.hidden),
        *attention(s),
        *feed_forward(s),
        *norms(s.hidden),
    ]


def raised(left: str, right: str, size: int) -> Rule:
    """Return the rule of a norm whose weight is stored less 1 in checkpoints."""
    return norm(left, right, size, Add(1.0))


def norms(hidden: int) -> Iterator[Rule]:
    """Yield the rules of the four norms of a block."""
    for left, right in (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "post_attention_norm"),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    ):
        yield raised(f"{LAYER}.{left}", f"{BLOCK}.{right}", hidden)


@dataclass(frozen=True)
class QueryScale(Aspect):
    """``query_pre_attn_scalar``, which llama.cpp takes from the sizes.

    Attributes:
        by_heads: the number of blocks of the model that divides by the heads' share of a token (the
            27B of each generation); all others divide by the length of a head.
    """

    by_heads: int

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return nothing, having checked the number.

        Raises:
            Unsupported: (rule ``config-value``) when llama.cpp takes another.
        """
        del report
        s = sizes(config)
        expected = self._scale(s.layers, s.hidden, s.heads, s.head)
        found = config.get("query_pre_attn_scalar")
        if found != expected:
            raise Unsupported(
                "config.json's query_pre_attn_scalar is not what the target's runtime computes",
                rule="config-value",
                got=found,
                expected=expected,
            )
        return {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the number."""
        del tensors
        numbers = (
            required(metadata, param.key, "u32") for param in (LAYERS, HIDDEN, HEADS, KEY_LENGTH)
        )
        return {"query_pre_attn_scalar": self._scale(*numbers)}

    def _scale(self, layers: int, hidden: int, heads: int, head: int) -> int:
        return hidden // max(heads, 1) if layers == self.by_heads else head


@dataclass(frozen=True)
class Windows(Aspect):
    """Which blocks attend to a window: all but every n-th.

    Attributes:
        period: the n that goes without saying, in config.json and here.

    Example:
        >>> from weighbridge.report import Report
        >>> config = {"num_hidden_layers": 3, "layer_types": [SLIDING, SLIDING, FULL]}
        >>> {key: value.data for key, value in Windows(2).to_metadata(config, Report()).items()}
        {'{arch}.attention.sliding_window_pattern': 3}
    """

    period: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return ("{arch}.attention.sliding_window_pattern",)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the period, nothing where it is the usual one.

        Raises:
            Unsupported: (rule ``layer-types``) when the blocks follow no period.
        """
        del report
        count = integer(config, "num_hidden_layers")
        if count > MOST_LAYERS:
            raise wrong("num_hidden_layers", count, f"at most {MOST_LAYERS}")
        found = self._kinds(config, count)
        first = found.index(FULL) + 1 if FULL in found else count + 1
        if found == kinds(self.period, count):
            return {}
        if found != kinds(first, count):
            raise Unsupported(
                "the blocks that attend to everything follow no period",
                rule="layer-types",
                got=found,
                expected=f"every n-th is {FULL}, all others are {SLIDING}",
            )
        return {self.keys[0]: scalar("u32", first)}

    def _kinds(self, config: Config, count: int) -> list[Any]:
        found = config.get("layer_types")
        if found is None:
            period = config.get("sliding_window_pattern") or self.period
            typed("u32", period, "sliding_window_pattern")
            return kinds(period, count)
        if not isinstance(found, list) or len(found) != count:
            raise wrong("layer_types", found, f"a list of {count}")
        return found

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the kind of every block, nothing where they follow the usual period."""
        del tensors
        (key,) = self.keys
        if key not in metadata:
            return {}
        count = required(metadata, LAYERS.key, "u32")
        period = plain(metadata[key], "u32", key)
        return {"layer_types": kinds(period or count + 1, min(count, MOST_LAYERS))}


def kinds(period: int, count: int) -> list[str]:
    """Return the kinds of `count` blocks of which every `period`-th attends to everything.

    Example:
        >>> kinds(2, 3)
        ['sliding_attention', 'full_attention', 'sliding_attention']
    """
    return [SLIDING if (number + 1) % period else FULL for number in range(count)]


WINDOW = Param("sliding_window", "{arch}.attention.sliding_window", "u32")
FINAL_CAP = Param("final_logit_softcapping", "{arch}.final_logit_softcapping", "f32")

SHAPE: tuple[Aspect, ...] = (CONTEXT, HIDDEN, LAYERS, INNER, HEADS, KV_HEADS, RMS_EPS)
"""What llama.cpp's converter writes of all but the third generation, in its order."""

SAME: tuple[Aspect, ...] = (
    Vocabulary(written=False),
    Fixed("hidden_activation", ("gelu_pytorch_tanh",)),
    Fixed("attention_bias", (False,)),
    Fixed("use_bidirectional_attention", (False, None)),
)
"""What all generations compute alike, and no key-value says."""

TIED = Fixed("tie_word_embeddings", (True,))

HEAD_DROPPED = {"lm_head.weight": "llama.cpp computes the output with the embedding"}

GEMMA2 = Arch(
    name="gemma2",
    classes=("Gemma2ForCausalLM",),
    model_type="gemma2",
    aspects=(
        *SHAPE,
        *HEAD_LENGTHS,
        FileType(),
        Param("attn_logit_softcapping", "{arch}.attn_logit_softcapping", "f32"),
        FINAL_CAP,
        WINDOW,
        Windows(2),
        Rope(kinds=("default", "linear"), silent=True),
        QueryScale(by_heads=46),
        TIED,
        *SAME,
    ),
    rules=rules,
    variables=layers,
    dropped=HEAD_DROPPED,
    defaults=DEFAULTS,
)
