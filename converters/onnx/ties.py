"""Parameters that are one: which of their names checkpoints have.

A graph has a parameter once, under one of its names; ``save_pretrained`` keeps another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from weighbridge.converters.onnx.claims import Claim
    from weighbridge.model import Config
    from weighbridge.report import Report

SHARED = (
    ("encoder.embed_tokens.weight", "shared.weight"),
    ("decoder.embed_tokens.weight", "shared.weight"),
    ("predictions.decoder.bias", "predictions.bias"),
    ("lm_head.decoder.bias", "lm_head.bias"),
)
"""Ends of names in a state dict -> ends of those that the parameters have in a checkpoint.

Source: ``_tied_weights_keys`` of the classes of transformers 5.23.
"""

OUTPUT = (
    "lm_head.weight", "lm_head.decoder.weight", "predictions.decoder.weight",
    "vocab_projector.weight", "proj_out.weight",
)  # fmt: skip
"""Ends of the names of output layers that may be the embedding."""


def untied(
    claims: Mapping[str, Claim], known: Container[str], config: Config, report: Report
) -> dict[str, Claim]:
    """Return the claims without names that checkpoints do not have for what others are.

    Args:
        claims: by name.
        known: names that the class is known to have.
        config: config.json.
        report: is told what is left out.
    """
    found = dict(claims)
    for name, claim in claims.items():
        original = _original(name)
        if original is None or not (original in claims or original in known):
            continue
        if found.setdefault(original, replace(claim, name=original)).source == claim.source:
            del found[name]
            report.note("tied", name, f"is {original}")
    embeddings = _Embeddings(found)
    for name in [name for name in found if name.endswith(OUTPUT)]:
        embedding = embeddings.of(name, config)
        if embedding is not None:
            del found[name]
            report.note("tied", name, f"is {embedding}")
    return found


def _original(name: str) -> str | None:
    for end, original in SHARED:
        if name.endswith(end):
            return name.removesuffix(end) + original
    return None


class _Embeddings:
    """The embeddings among the tensors of a checkpoint."""

    def __init__(self, claims: dict[str, Claim]) -> None:
        self._claims = dict(claims)
        # The first of a shape counts: tokens come before their positions.
        others = (claims[name] for name in reversed(claims) if not name.endswith(OUTPUT))
        found = [claim for claim in others if claim.looked_up]
        self._by_source = {claim.source: claim.name for claim in found}
        self._by_shape = {claim.tensor.shape: claim.name for claim in found}

    def of(self, name: str, config: Config) -> str | None:
        """Return the embedding that an output layer is, None where it is itself.

        It is one where both are one tensor of the graph; or where config.json says so and the
        exporter turned the output layer round, unless there are two halves: their config may say
        it wrongly.
        """
        own = self._claims[name]
        # A config that is silent leaves it to its class, most of which tie them.
        tied = config.get("tie_word_embeddings", bool(config))
        other = self._by_source.get(own.source)
        said = "tie_word_embeddings" in config and not config.get("is_encoder_decoder")
        if other is None and own.copied and said:
            other = self._by_shape.get(own.tensor.shape)
        return other if tied is True else None
