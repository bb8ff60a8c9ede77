"""An encoder that was exported for itself, beside a decoder that was not.

Optimum exports the encoder of a model with two halves as a module of its own, ``encoder_model``,
whose tensors lack the beginning of their names (``encoder.`` in T5, ``model.encoder.`` in BART);
the decoder is exported as a part of the whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.converters.onnx.claims import Claim, Findings
    from weighbridge.model import Config

ENCODER = "encoder"
"""Begins the name of a component that is an encoder."""

PARENTS = ("", "model.")
"""What comes before ``encoder.`` and ``decoder.`` in the names of a state dict."""


def whole_names(component: str, told: Mapping[str, Findings], config: Config) -> list[Claim]:
    """Return the claims of a component with the names that they have in the whole model.

    Args:
        component: its name.
        told: what is known of every component.
        config: config.json.
    """
    own = told[component].claims
    if not component.startswith(ENCODER) or not config.get("is_encoder_decoder"):
        return own
    others = {name for other in told if other != component for name in told[other].names}
    for parent in PARENTS:
        inside = (f"{parent}encoder.", f"{parent}decoder.")
        alone = not any(claim.name.startswith(inside) for claim in own)
        if alone and any(name.startswith(inside[1]) for name in others):
            return [replace(claim, name=inside[0] + claim.name) for claim in own]
    return own
