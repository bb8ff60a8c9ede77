"""Caches of keys and values as inputs of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from weighbridge.converters.graphs.samples import ENCODED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEADS_FIRST = 4
"""The axes of keys and values: batch, heads, length, width."""


def cache_after(module: PreTrainedModel, inputs: dict[str, Any]) -> Any:
    """Return the cache that a model has after some inputs; only its shapes are computed."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils import _pytree as pytree
    from transformers.exporters.exporter_dynamo import register_cache_pytrees_for_model
    from transformers.exporters.exporter_onnx import use_experts_implementation

    register_cache_pytrees_for_model(module)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.no_grad(),
        use_experts_implementation(module, "batched_mm"),
    ):
        cache = module(**inputs, use_cache=True).past_key_values
    return pytree.tree_map_only(
        torch.Tensor, lambda each: torch.zeros(each.shape, dtype=each.dtype), cache
    )


def cache_axes(cache: Any) -> list[dict[int, str]]:
    """Return the axes that vary of each tensor of a cache, in the order of its leaves.

    Those of cross attention, which have the encoder's length, are told by it.
    """
    from torch.utils import _pytree as pytree

    return [_axes(leaf) for leaf in pytree.tree_leaves(cache) if isinstance(leaf, torch.Tensor)]


def _axes(leaf: torch.Tensor) -> dict[int, str]:
    if leaf.ndim != HEADS_FIRST:
        return {0: "batch"} if leaf.ndim else {}
    crossed = leaf.shape[2] == ENCODED
    return {0: "batch", 2: "encoder_sequence" if crossed else "past_sequence"}
