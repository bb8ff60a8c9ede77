"""Exported directories, made by transformers' own ONNX exporter from tiny models."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers.exporters.base import ExportedModel
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter
from transformers.exporters.utils import decompose_prefill_decode
from transformers.modeling_outputs import BaseModelOutput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

PADDED = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
"""A mask of texts of three lengths: of one that is all ones the graph would lose its input."""


def texts(vocabulary: int, **others: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a batch of token ids with its mask."""
    ids = torch.arange(PADDED.numel()).reshape(PADDED.shape) % (vocabulary - 5) + 5
    return {"input_ids": ids * PADDED, "attention_mask": PADDED, **others}


def whole(
    directory: Path,
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Export a model as one graph."""
    with _silent():
        exported = OnnxExporter().export(model, dict(inputs), OnnxConfig(dynamic=True))
    return _saved(directory, exported, model, files)


def decoder(
    directory: Path, model: PreTrainedModel, files: Mapping[str, bytes] | None = None
) -> Path:
    """Export a decoder as ``prefill`` and ``decode``."""
    inputs = texts(model.config.vocab_size)
    with _silent():
        stages = decompose_prefill_decode(model, inputs, multi_token_decode=True)
        exported = _exported(model, stages)
    return _saved(directory, exported, model, files)


def encoder_decoder(
    directory: Path,
    model: PreTrainedModel,
    inputs: dict[str, Any],
    files: Mapping[str, bytes] | None = None,
    begin: Mapping[str, Any] | None = None,
) -> Path:
    """Export a model with an encoder as ``encoder``, ``prefill`` and ``decode``.

    Args:
        directory: where.
        model: the model.
        inputs: what its encoder takes.
        files: what is put beside the graphs.
        begin: what makes ``generate`` begin with several tokens, so that the first step takes any
            number of them; None gives it three.
    """
    begun = {"decoder_input_ids": torch.tensor([[3, 4, 5]]).expand(len(PADDED), -1)}
    with _silent():
        encoder = model.get_encoder()
        told = inputs | dict(begin or begun)
        stages = decompose_prefill_decode(model, told, multi_token_decode=True)
        exported = _exported(model, {"encoder": (encoder, dict(inputs)), **stages})
    return _saved(directory, exported, model, files)


def _exported(model: PreTrainedModel, stages: Mapping[str, Any]) -> ExportedModel:
    exporter, config = OnnxExporter(), OnnxConfig(dynamic=True)
    components = {
        name: exporter.export(module, _plain(inputs), config).components["model"]
        for name, (module, inputs) in stages.items()
    }
    return ExportedModel(components, "onnx", model.config, model.generation_config)


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a stage, of an encoder's outputs the states alone."""
    found = {name: value for name, value in inputs.items() if value is not None}
    if "encoder_outputs" in found:
        states = found["encoder_outputs"].last_hidden_state
        found["encoder_outputs"] = BaseModelOutput(last_hidden_state=states)
    return found


def _saved(
    directory: Path,
    exported: ExportedModel,
    model: PreTrainedModel,
    files: Mapping[str, bytes] | None,
) -> Path:
    exported.save_pretrained(directory)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    for name, content in (files or {}).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@contextmanager
def _silent() -> Iterator[None]:
    """Let the exporter warn of what its own dependencies do."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def captioner(
    directory: Path,
    model: PreTrainedModel,
    pixels: torch.Tensor,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Export BLIP: its vision model as ``encoder``, its text decoder as the other two."""
    with _silent():
        states = model.vision_model(pixels)[0]
        rows = len(pixels)
        inputs = {
            "input_ids": torch.arange(2 * rows).reshape(rows, 2) + 5,
            "attention_mask": PADDED[:rows, 1:3],
            "encoder_hidden_states": states,
            "encoder_attention_mask": torch.ones(states.shape[:2], dtype=torch.int64),
        }
        stages = decompose_prefill_decode(model.text_decoder, inputs, multi_token_decode=True)
        encoder = {"encoder": (model.vision_model, {"pixel_values": pixels})}
        exported = _exported(model, encoder | stages)
    return _saved(directory, exported, model, files)
