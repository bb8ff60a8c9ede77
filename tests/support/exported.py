"""Tiny models as the real exporters write them: one for each class, the same weights in each file.

directory = exported(tmp_path, "fused", "llama")
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from support import tiny
from weighbridge.canonical import canonical
from weighbridge.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from weighbridge.model import Model

ENCODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "num_labels": 3,
}

MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bert": ("BertForSequenceClassification", ENCODER),
    "roberta": ("RobertaForSequenceClassification", ENCODER),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 64, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    ),
    "llama": ("LlamaForCausalLM", tiny.COMMON),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
         "bos_token_id": 1, "eos_token_id": 2},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
         "decoder_start_token_id": 0, "feed_forward_proj": "gated-gelu"},
    ),
    "vit": (
        "ViTForImageClassification",
        {**ENCODER, "image_size": 16, "patch_size": 4},
    ),
}  # fmt: skip


def config(name: str) -> transformers.PreTrainedConfig:
    """Return the config of one of `MODELS`."""
    model_class, entries = MODELS[name]
    return tiny.config(model_class, **entries)


def state(name: str) -> dict[str, torch.Tensor]:
    """Return the weights, tied ones under each of their names."""
    return dict(tiny.model(config(name)).state_dict())


def inputs(name: str) -> dict[str, torch.Tensor]:
    """Return what the model takes."""
    if name == "vit":
        return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)}
    ids = torch.arange(14).reshape(2, 7) % 50 + 5
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    found = {"input_ids": ids, "attention_mask": mask}
    return found | ({"decoder_input_ids": ids[:, :3].clone()} if name == "t5" else {})


def exported(directory: Path, kind: str, name: str) -> Path:
    """Export one of `MODELS`, and return the directory of its ONNX file and config.json.

    Args:
        directory: where; it is made.
        kind: the exporter, out of `EXPORTERS`.
        name: the model.
    """
    directory.mkdir(parents=True)
    settings = config(name)
    settings.save_pretrained(directory)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        EXPORTERS[kind](directory, name, settings)
    return directory


def _tupled(name: str, settings: transformers.PreTrainedConfig) -> torch.nn.Module:
    """Return a model that gives logits alone, of what it takes: torch's exporters ask for that."""
    settings.use_cache = False
    whole = getattr(transformers, MODELS[name][0])

    class Image(whole):  # type: ignore[misc]
        def forward(self, pixel_values: Any) -> Any:
            return super().forward(pixel_values=pixel_values).logits

    class Text(whole):  # type: ignore[misc]
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask).logits

    class Texts(whole):  # type: ignore[misc]
        def forward(self, input_ids: Any, attention_mask: Any, decoder_input_ids: Any) -> Any:
            taken = {"attention_mask": attention_mask, "decoder_input_ids": decoder_input_ids}
            return super().forward(input_ids=input_ids, **taken).logits

    made = {"vit": Image, "t5": Texts}.get(name, Text)(settings).eval()
    made.load_state_dict(state(name))
    return made


def _script(directory: Path, name: str, settings: transformers.PreTrainedConfig) -> None:
    taken = inputs(name)
    axes = {key: {0: "batch"} | ({1: f"{key}_length"} if value.ndim == 2 else {})
            for key, value in taken.items()}  # fmt: skip
    torch.onnx.export(
        _tupled(name, settings), (), directory / "model.onnx", kwargs=taken, dynamo=False,
        input_names=list(taken), dynamic_axes=axes, opset_version=17,
    )  # fmt: skip


def _dynamo(directory: Path, name: str, settings: transformers.PreTrainedConfig) -> None:
    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", min=2, max=60)
    taken = inputs(name)
    shapes = {key: {0: batch} | ({1: length} if value.ndim == 2 else {})
              for key, value in taken.items()}  # fmt: skip
    torch.onnx.export(
        _tupled(name, settings), (), directory / "model.onnx", kwargs=taken, dynamo=True,
        dynamic_shapes=shapes,
    )  # fmt: skip


def _static(directory: Path, name: str, settings: transformers.PreTrainedConfig) -> None:
    torch.onnx.export(
        _tupled(name, settings), (), directory / "model.onnx", kwargs=inputs(name), dynamo=True
    )


def _exporter(fusions: str | None) -> Callable[..., None]:
    def export(directory: Path, name: str, settings: transformers.PreTrainedConfig) -> None:
        from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

        options = OnnxConfig(dynamic=True, ort_fusions=fusions)
        program = OnnxExporter().export(tiny.model(settings), inputs(name), config=options)
        program.save_pretrained(directory)

    return export


def _generation(directory: Path, name: str, settings: transformers.PreTrainedConfig) -> None:
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    made = OnnxExporter().export_for_generation(
        tiny.model(settings), inputs(name), config=OnnxConfig(dynamic=True)
    )
    made.save_pretrained(directory)


def _halves(directory: Path, name: str, settings: transformers.PreTrainedConfig) -> None:
    """Export an encoder for itself and the decoder as a part of the whole, as Optimum does."""
    settings.use_cache = False
    model = tiny.model(settings)
    whole, half = type(model), type(model.get_encoder())

    class Encoder(half):  # type: ignore[misc,valid-type]
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return half.forward(self, input_ids, attention_mask).last_hidden_state

    class Decoder(whole):  # type: ignore[misc,valid-type]
        def forward(self, encoder_attention_mask: Any, input_ids: Any, states: Any) -> Any:
            taken = {"decoder_input_ids": input_ids, "encoder_outputs": (states,)}
            return whole.forward(self, attention_mask=encoder_attention_mask, **taken).logits

    ids, mask, decoder_ids = inputs(name).values()
    states = torch.zeros(2, 7, settings.d_model)
    options = {"dynamo": False, "opset_version": 17}
    model.get_encoder().__class__ = Encoder
    torch.onnx.export(model.get_encoder(), (ids, mask), directory / "encoder_model.onnx", **options)
    model.get_encoder().__class__ = half
    model.__class__ = Decoder
    torch.onnx.export(
        model, (mask, decoder_ids, states), directory / "decoder_model.onnx", **options
    )


EXPORTERS: Mapping[str, Callable[..., None]] = {
    "script": _script,
    "dynamo": _dynamo,
    "static": _static,
    "exporter": _exporter(None),
    "fused": _exporter("cpu"),
    "generation": _generation,
    "halves": _halves,
}
"""TorchScript, torch's dynamo with free and with fixed lengths, transformers' without and with
fusions, and its prefill and decode; encoder and decoder in files of their own."""


def named(model: Model) -> tuple[Model, Report]:
    """Return a model with Hugging Face's names, and what was said of it."""
    report = Report()
    return canonical(model, report), report


def check(model: Model, weights: Mapping[str, torch.Tensor]) -> set[str]:
    """Check that each tensor is bit for bit one of `weights`, and return those that are missing.

    Of parameters that are one, any will do.
    """
    for name, tensor in model.tensors.items():
        value, expected = tensor.values(), weights[name].contiguous().numpy()
        assert value.shape == expected.shape, name
        assert value.dtype == expected.dtype, name
        assert value.tobytes() == np.ascontiguousarray(expected).tobytes(), name
    found = {weights[name].data_ptr() for name in model.tensors}
    return {name for name, value in weights.items() if value.data_ptr() not in found}
