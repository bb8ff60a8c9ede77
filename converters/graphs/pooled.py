"""An encoder that gives one embedding for a text, as sentence-transformers' files say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from weighbridge import pooling
from weighbridge.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedModel

EMBEDDING = "sentence_embedding"
"""What sentence-transformers calls the output."""

KNOWN = ("Transformer", "Pooling", "Normalize")
"""The modules that can be part of a graph."""


def pooled(module: PreTrainedModel, files: Mapping[str, bytes]) -> torch.nn.Module:
    """Return a model that also gives an embedding, where the files have a pooling module.

    Raises:
        InvalidFile: for files that are not what they should be.
        Unsupported: (rule ``pooling``) for modules, modes or several of them that no graph is
            known for.
    """
    config = pooling.config_name(files)
    if config is None:
        return module
    kinds = [str(each.get("type")).rpartition(".")[2] for each in pooling.modules(files)]
    modes = pooling.modes_of(files, config)
    unknown = [kind for kind in kinds if kind not in KNOWN] + [
        mode for mode in modes if mode not in POOLS
    ]
    if unknown or len(modes) != 1:
        raise Unsupported(
            "its states are made an embedding in a way that no graph is known for",
            rule="pooling",
            got=", ".join(unknown or modes),
            expected=f"one of {', '.join(POOLS)}",
        )
    return Pooled(module, POOLS[modes[0]], normalized="Normalize" in kinds)


class Pooled(torch.nn.Module):
    """An encoder and what makes its states, (batch, length, width), one embedding.

    Attributes:
        pooled: the encoder.
    """

    def __init__(
        self, module: PreTrainedModel, pool: Callable[..., torch.Tensor], *, normalized: bool
    ) -> None:
        """Keep them."""
        super().__init__()
        self.pooled = module
        self.config = module.config
        self._pool = pool
        self._normalized = normalized

    def forward(self, attention_mask: torch.Tensor, **inputs: Any) -> dict[str, torch.Tensor]:
        """Return the states and the embedding."""
        states = self.pooled(attention_mask=attention_mask, **inputs).last_hidden_state
        embedding = self._pool(states, attention_mask)
        if self._normalized:
            embedding = torch.nn.functional.normalize(embedding, dim=-1)
        return {"last_hidden_state": states, EMBEDDING: embedding}


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _mean_sqrt(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9).sqrt()


def _weighted(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    places = torch.ones_like(mask).cumsum(1) * mask
    weights = places.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _largest(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states.masked_fill(mask.unsqueeze(-1) == 0, -1e9).amax(1)


def _first(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    place = mask.argmax(1, keepdim=True).unsqueeze(-1)
    return states.gather(1, place.expand(-1, 1, states.shape[-1])).squeeze(1)


def _last(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    place = (torch.ones_like(mask).cumsum(1) * mask).argmax(1, keepdim=True).unsqueeze(-1)
    return states.gather(1, place.expand(-1, 1, states.shape[-1])).squeeze(1)


POOLS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted,
    "max": _largest,
    "cls": _first,
    "lasttoken": _last,
}
"""The modes of pooling, each with padding on either side left out.

Source: ``sentence_transformers/sentence_transformer/modules/pooling.py``.
"""
