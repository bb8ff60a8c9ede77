"""How far apart two models that run may be and still count as one, where the user does not say.

It goes by the coarsest encoding of either side: llama.cpp rounds what it multiplies with a matrix
to the precision of that matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE, is_float

if TYPE_CHECKING:
    from weighbridge.encoding import Encoding
    from weighbridge.model import Model

TOLERANCES = {"f64": 1e-3, "f32": 1e-3, "f16": 0.2, "bf16": 1.0}
"""Dense encoding -> the largest difference of a logarithm that passes by default.

Measured on SmolLM2-135M, llama.cpp against transformers in float32, over the whole vocabulary: F32
6e-5, F16 0.04, BF16 0.4, Q8_0 and Q4_1 1.7, Q4_K 2.5. So from 8 bits down the default finds models
that are damaged, not models that are a little worse than they could be.
"""

COARSE = ((8.0, 4.0), (4.0, 10.0), (0.0, 30.0))
"""Bits in a value, at least -> the same for all other encodings."""

GELU = 2e-2
"""The least default tolerance where GELU is used: llama.cpp looks it up in a table of float16."""

INTEGERS = frozenset({"i8", "u8", "i4", "u4", "i2", "u2"})
"""The integers that weights are quantised to; wider ones are positions and the like."""


def default_tolerance(*models: Model) -> float:
    """Return the largest difference that passes, by the encodings and the activation functions."""
    allowed = max(_allowed(coarsest(model)) for model in models)
    return max(allowed, GELU) if any(map(_uses_gelu, models)) else allowed


def _allowed(encoding: Encoding) -> float:
    """Return what one encoding allows.

    Example:
        >>> from weighbridge.encoding import DENSE, scaled
        >>> _allowed(DENSE["bf16"]), _allowed(scaled(DENSE["u4"], DENSE["f32"], (32,)))
        (1.0, 10.0)
    """
    bits = 8 * encoding.grain_bytes / encoding.grain
    by_bits = next(allowed for least, allowed in COARSE if bits >= least)
    return TOLERANCES.get(encoding.name, by_bits)


def coarsest(model: Model) -> Encoding:
    """Return the encoding of the matrices that allows the most; float32 without any."""
    found = {tensor.encoding for tensor in model.tensors.values() if tensor.ndim > 1}
    weights = {one for one in found if is_float(one) or one.name in INTEGERS}
    return max(weights, key=lambda one: (_allowed(one), one.name), default=DENSE["f32"])


def _uses_gelu(model: Model) -> bool:
    config = model.config or {}
    text = config.get("text_config")
    return any(
        "act" in key and isinstance(value, str) and "gelu" in value
        for settings in (config, text if isinstance(text, dict) else {})
        for key, value in settings.items()
    )
