"""The graphs that a model becomes: a module each, inputs to trace it with, and the axes that vary.

In the samples no two axes have one length, batches are of two, and masks have padding on the left:
what is equal in a sample the tracer takes for the same, and what is one for fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from weighbridge.converters.graphs import samples
from weighbridge.converters.graphs.caches import cache_after, cache_axes
from weighbridge.converters.graphs.pooled import pooled
from weighbridge.converters.graphs.samples import BATCH, ENCODED, PAST, QUERY, TEXT, ids, mask
from weighbridge.errors import Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from weighbridge.converters.graphs.samples import Axes, Inputs
    from weighbridge.model import Model


IDS, MASK = "input_ids", "attention_mask"

WHOLE = {0: "batch", 1: "total_sequence"}
"""The axes of a mask that covers what is in a cache, too."""


@dataclass(frozen=True)
class Stage:
    """One graph.

    Attributes:
        name: of the component: ``model``, ``encoder``, ``prefill``, ``decode``.
        module: what is traced.
        inputs: its keyword arguments.
        axes: for each argument, axis -> name of its length; of a cache, a list of such; None for
            one that is no tensor, but a setting.
    """

    name: str
    module: torch.nn.Module
    inputs: Inputs
    axes: Axes


def whole(module: PreTrainedModel, model: Model) -> list[Stage]:
    """Return a model as one graph, from what it takes to what it gives."""
    del model
    return [Stage("model", module, *samples.inputs_of(module))]


def features(module: PreTrainedModel, model: Model) -> list[Stage]:
    """Return a model as one graph that pools its states, where the checkpoint says how."""
    inputs, axes = samples.inputs_of(module)
    return [Stage("model", pooled(module, model.files), inputs, axes)]


def decoder(module: PreTrainedModel, model: Model) -> list[Stage]:
    """Return a decoder as one graph: it takes any number of tokens after a past of any length."""
    del model
    past: Inputs = {IDS: ids(module.config, PAST), MASK: mask(PAST)}
    inputs: Inputs = {IDS: ids(module.config, QUERY), MASK: mask(PAST + QUERY)}
    axes: Axes = {IDS: TEXT, MASK: WHOLE}
    if "position_ids" in samples.arguments(module):
        inputs["position_ids"] = torch.arange(PAST, PAST + QUERY).repeat(BATCH, 1)
        axes["position_ids"] = TEXT
    return [Stage("model", module, *_after(module, past, inputs, axes))]


def encoder_decoder(module: PreTrainedModel, model: Model) -> list[Stage]:
    """Return an encoder, a decoder's first step, and its further ones, which have a cache."""
    del model
    from transformers.modeling_outputs import BaseModelOutput

    encoder = module.get_encoder()
    inputs, axes = samples.inputs_of(encoder)
    states, states_axes = samples.states_of(module.config, inputs)
    shared: Inputs = {"encoder_outputs": BaseModelOutput(last_hidden_state=states)}
    shared_axes: Axes = {"encoder_outputs": [states_axes]}
    if MASK in inputs:
        shared[MASK] = mask(ENCODED)
        shared_axes[MASK] = {0: "batch", 1: "encoder_sequence"}
    steps = _steps(module, "decoder_input_ids", shared, shared_axes)
    return [Stage("encoder", encoder, inputs, axes), *steps]


def captioning(module: PreTrainedModel, model: Model) -> list[Stage]:
    """Return what sees an image and the decoder that describes it.

    Raises:
        Unsupported: (rule ``no-task``) for a model whose parts are put together otherwise.
    """
    if module.config.is_encoder_decoder:
        return encoder_decoder(module, model)
    if not hasattr(module, "vision_model") or not hasattr(module, "text_decoder"):
        raise Unsupported(
            "no way is known to export this class for image-to-text",
            rule="no-task",
            got=type(module).__name__,
            expected="an encoder-decoder, or BLIP",
        )
    inputs, axes = samples.inputs_of(module.vision_model)
    states, states_axes = samples.states_of(module.config, inputs)
    shared: Inputs = {"encoder_hidden_states": states, "is_decoder": True}
    decoder = cast("PreTrainedModel", module.text_decoder)
    shared_axes: Axes = {"encoder_hidden_states": states_axes, "is_decoder": None}
    steps = _steps(decoder, IDS, shared, shared_axes)
    return [Stage("encoder", cast("PreTrainedModel", module.vision_model), inputs, axes), *steps]


def recognition(module: PreTrainedModel, model: Model) -> list[Stage]:
    """Return a recogniser of speech: an encoder-decoder, or one graph that scores each frame."""
    parts = encoder_decoder if module.config.is_encoder_decoder else whole
    return parts(module, model)


def _steps(module: PreTrainedModel, tokens: str, shared: Inputs, axes: Axes) -> list[Stage]:
    """Return a decoder's first step and its further ones.

    Args:
        module: what decodes.
        tokens: what its ids are called; a mask goes with them where they are its only ids.
        shared: what every step is given besides.
        axes: those of what is shared.
    """
    masked = tokens == IDS

    def step(length: int, past: int = 0) -> Inputs:
        covers: Inputs = {MASK: mask(past + length)} if masked else {}
        return {tokens: ids(module.config, length), **covers, **shared}

    first = {tokens: TEXT, **({MASK: TEXT} if masked else {}), **axes}
    later = {**first, **({MASK: WHOLE} if masked else {})}
    prefill = Stage("prefill", module, {**step(QUERY), "use_cache": True}, first)
    return [prefill, Stage("decode", module, *_after(module, step(PAST), step(QUERY, PAST), later))]


def _after(
    module: PreTrainedModel, past: Inputs, inputs: Inputs, axes: Axes
) -> tuple[Inputs, Axes]:
    """Return inputs with the cache that a past leaves."""
    cache = cache_after(module, past)
    return (
        {**inputs, "past_key_values": cache, "use_cache": True},
        {**axes, "past_key_values": cache_axes(cache)},
    )
