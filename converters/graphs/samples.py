"""Inputs to trace a model with, by the names of the arguments that it takes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedConfig

    Inputs = dict[str, Any]
    Axes = dict[str, Any]
    Sample = tuple[torch.Tensor, dict[int, str]]

BATCH, QUERY, PAST, SEQUENCE, ENCODED = 2, 3, 4, 5, 6
"""The lengths of sample axes."""

SAMPLES_OF_SOUND = 4001
"""How long a sample of sound is, at whatever rate: a quarter of a second."""

SIDES = (64, 96)
"""The height and width of a sample image for models that take any."""

TEXT = {0: "batch", 1: "sequence"}
"""The axes of ids and masks that vary."""


def arguments(module: torch.nn.Module) -> tuple[str, ...]:
    """Return the names of a module's arguments, in order."""
    return tuple(inspect.signature(module.forward).parameters)


def inputs_of(module: Any) -> tuple[Inputs, Axes]:
    """Return sample inputs of a model that are no cache, and which of their axes vary."""
    made = {
        name: _SAMPLES[name](module.config)
        for name in arguments(module)
        if name in _SAMPLES and _WANTED.get(name, _always)(module)
    }
    if "pixel_values" in made and "input_ids" in made:
        made = {name: _named_apart(name, sample) for name, sample in made.items()}
    return (
        {name: sample for name, (sample, _) in made.items()},
        {name: axes for name, (_, axes) in made.items()},
    )


def ids(config: PreTrainedConfig, length: int) -> torch.Tensor:
    """Return token ids, of which each row ends with the end of a text."""
    text = config.get_text_config(decoder=True)
    made = torch.ones(BATCH, length, dtype=torch.long)
    end = text.eos_token_id
    end = end[0] if isinstance(end, list) else end
    made[:, -1] = end if end is not None and 0 <= end < text.vocab_size else 1
    return made


def mask(length: int) -> torch.Tensor:
    """Return a mask whose first row has padding on its left."""
    made = torch.ones(BATCH, length, dtype=torch.long)
    made[0, 0] = 0
    return made


def states_of(config: PreTrainedConfig, inputs: Inputs) -> Sample:
    """Return what an encoder would give for its inputs: (batch, length, width).

    The length of what it makes of images and sound is fixed where theirs is.
    """
    encoder = getattr(config, "vision_config", None) or config.get_text_config(encoder=True)
    encoder = getattr(config, "encoder", None) or encoder
    width = getattr(encoder, "hidden_size", None) or encoder.d_model
    return torch.zeros(BATCH, ENCODED, width), {0: "batch", 1: "encoder_sequence"}


def _text(config: PreTrainedConfig) -> Sample:
    return ids(config, SEQUENCE), TEXT


def _mask(config: PreTrainedConfig) -> Sample:
    del config
    return mask(SEQUENCE), TEXT


def _kinds(config: PreTrainedConfig) -> Sample:
    del config
    return torch.zeros(BATCH, SEQUENCE, dtype=torch.long), TEXT


def _image(config: PreTrainedConfig) -> Sample:
    vision = getattr(config, "vision_config", None) or config
    size = getattr(vision, "image_size", None)
    if size is None:
        shape, axes = SIDES, {0: "batch", 2: "height", 3: "width"}
    else:
        shape = (size, size) if isinstance(size, int) else tuple(size)
        axes = {0: "batch"}
    return torch.zeros(BATCH, getattr(vision, "num_channels", 3), *shape), axes


def _image_mask(config: PreTrainedConfig) -> Sample:
    del config
    return torch.ones(BATCH, *SIDES, dtype=torch.long), {0: "batch", 1: "height", 2: "width"}


def _spectrum(config: PreTrainedConfig) -> Sample:
    frames = 2 * config.max_source_positions
    return torch.zeros(BATCH, config.num_mel_bins, frames), {0: "batch"}


def _sound(config: PreTrainedConfig) -> Sample:
    if hasattr(config, "num_mel_bins"):
        return torch.zeros(BATCH, config.max_length, config.num_mel_bins), {0: "batch"}
    return torch.zeros(BATCH, SAMPLES_OF_SOUND), {0: "batch", 1: "samples"}


_SAMPLES: Mapping[str, Callable[[Any], Sample]] = {
    "input_ids": _text,
    "attention_mask": _mask,
    "token_type_ids": _kinds,
    "pixel_values": _image,
    "pixel_mask": _image_mask,
    "input_features": _spectrum,
    "input_values": _sound,
}
"""The arguments that a graph takes, each with what makes a sample of it from the config."""


def _always(module: Any) -> bool:
    del module
    return True


_WANTED: Mapping[str, Callable[[Any], bool]] = {
    "attention_mask": lambda module: "input_ids" in arguments(module),
    "token_type_ids": lambda module: getattr(module.config, "type_vocab_size", 0) > 1,
    "pixel_mask": lambda module: getattr(module.config, "image_size", None) is None,
}
"""Tells of an argument that a class has whether models of it have it."""


def _named_apart(name: str, sample: Sample) -> Sample:
    """Return a sample of a model that takes texts and images, as many of each as there are."""
    kind = "image" if name.startswith("pixel") else "text"
    tensor, axes = sample
    return tensor, {axis: f"{kind}_batch" if axis == 0 else length for axis, length in axes.items()}
