"""Where a tensor stands in its model: what llama-quantize looks at when it chooses encodings.

Source: llama.cpp, ``src/llama-quant.cpp``.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.encoding import is_float
from weighbridge.metadata import INTEGERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.metadata import Metadata
    from weighbridge.tensor import Lazy

CATEGORIES: tuple[tuple[str, str], ...] = (
    ("output", r"^output\.weight$"),
    ("token_embd", r"^(per_layer_)?token_embd\.weight$"),
    ("attn_v", r"attn_(qkv|kv_b|v)\.weight"),
    ("attn_k", r"attn_k\.weight"),
    ("attn_q", r"attn_q\.weight"),
    ("attn_output", r"attn_output\.weight"),
    ("ffn_up", "ffn_up"),
    ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)
"""What kinds of tensors are told apart -> what their names hold; the first that is found counts."""

NEVER = re.compile(
    r"(?<!weight)$|_norm\.weight|ffn_gate_inp\.weight|altup|laurel|per_layer_model_proj"
    r"|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d|shortconv\.conv\.weight"
    r"|time_mix_(first|[wva][012]|g[12]|decay_w[12]|lerp_fused)\.weight|attn_rel_b\.weight"
    r"|\.position_embd|sam\.(pos_embd|neck\.|net_)|\.rel_pos|\.patch_(embd|merger)"
)
"""Names of matrices that are never quantised."""

BY_LAYER_OF_EXPERTS = ("ffn_up", "ffn_gate", "ffn_down")
"""The kinds whose layer is read off the name where there are experts, and counted elsewhere."""

SEVENTY_BILLION = {"llama": True, "qwen2": False, "deci": False}
"""Families whose models of 80 layers are those of 70 B -> whether only if heads are grouped."""


@dataclass(frozen=True)
class Facts:
    """What choices depend on beside the tensor.

    Attributes:
        family: ``general.architecture``.
        layers: blocks of the model.
        groups: query heads for each key and value head.
        experts: experts of a layer, 0 where there are none.
        seventy: whether it is a model of 70 B.
        weighted: whether there is an importance matrix.
    """

    family: str
    layers: int
    groups: int
    experts: int
    seventy: bool
    weighted: bool = False


@dataclass(frozen=True)
class Place:
    """A tensor among its like.

    Attributes:
        kind: its category.
        index: how many of the kind come before it, by layer.
        order: the same, also where `index` is the layer itself.
        count: how many of the kind there are.
        tensor: its shape.
        facts: the model.
        base: the file type's encoding for most tensors.
    """

    kind: str
    index: int
    order: int
    count: int
    tensor: Lazy
    facts: Facts
    base: str


def facts_of(metadata: Metadata, *, weighted: bool = False) -> Facts:
    """Return what choices depend on; what the key-values do not say is one, or none.

    Args:
        metadata: of the model, in GGUF's dialect.
        weighted: whether there is an importance matrix.
    """
    family = str(metadata["general.architecture"].plain()) if metadata else ""
    heads = _number(metadata, f"{family}.attention.head_count") or 1
    kv_heads = _number(metadata, f"{family}.attention.head_count_kv") or heads
    layers = _number(metadata, f"{family}.block_count")
    large = layers == 80 and (heads != kv_heads or not SEVENTY_BILLION.get(family, True))
    return Facts(
        family=family,
        layers=layers,
        groups=heads // kv_heads,
        experts=_number(metadata, f"{family}.expert_count"),
        seventy=large and family in SEVENTY_BILLION,
        weighted=weighted,
    )


def _number(metadata: Metadata, key: str) -> int:
    value = metadata.get(key)
    plain = value.plain() if value and (value.items or value.type) in INTEGERS else 0
    first = plain[0] if isinstance(plain, list) and plain else plain
    return first if isinstance(first, int) else 0


def places(tensors: Mapping[str, Lazy], facts: Facts, base: str) -> dict[str, Place]:
    """Return the matrices that may be quantised, each with its place among its like."""
    order = sorted(tensors, key=lambda name: (_layer(name), name))
    chosen = [name for name in order if _may_be_quantised(name, tensors[name])]
    tied = "output.weight" not in tensors
    kinds = {name: _kind(name, tied=tied) for name in chosen}
    counts, seen = Counter(kinds.values()), Counter[str]()
    found = {}
    for name, kind in kinds.items():
        index, count = seen[kind], counts[kind]
        if kind in BY_LAYER_OF_EXPERTS:
            index, count = _layer(name) if facts.experts > 1 else index, facts.layers
        found[name] = Place(kind, index, seen[kind], count, tensors[name], facts, base)
        seen[kind] += 1
    return found


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _may_be_quantised(name: str, tensor: Lazy) -> bool:
    return tensor.ndim > 1 and is_float(tensor.encoding) and not NEVER.search(name)


def _kind(name: str, *, tied: bool) -> str:
    kind = next((kind for kind, text in CATEGORIES if re.search(text, name)), "other")
    return "output" if tied and kind == "token_embd" else kind
