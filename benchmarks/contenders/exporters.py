"""What makes ONNX graphs of a checkpoint or a GGUF, each as its own documentation says.

What a first export imports is imported before: torch, transformers and the exporters take seconds,
whoever exports with them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weighbridge.benchmarks.contender import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed

FOLDER = "exported"
"""The directory that is written into the scratch directory."""

SAMPLE = (2, 12)
"""Rows and tokens of the inputs that transformers' exporter traces with."""


def weighbridge(source: Path, scratch: Path, **options: Any) -> Timed:
    """Convert to graphs; the weights are streamed."""
    from weighbridge import convert

    _import_exporters()

    def call() -> Outcome:
        convert(source, scratch / FOLDER, to="onnx", **options)
        return Outcome({})

    return call


def generation(source: Path, scratch: Path, **options: Any) -> Timed:
    """Load a model and export it with transformers, as graphs of a first step and further ones."""
    return _by_transformers("export_for_generation", source, scratch, options)


def whole(source: Path, scratch: Path, **options: Any) -> Timed:
    """Load a model and export it with transformers, as one graph that has no cache."""
    return _by_transformers("export", source, scratch, options)


def _by_transformers(method: str, source: Path, scratch: Path, options: dict[str, Any]) -> Timed:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    _import_exporters()
    rows, length = SAMPLE
    ids = torch.arange(1, 1 + rows * length).reshape(rows, length)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    exporter: Any = OnnxExporter

    def call() -> Outcome:
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
        export: Callable[..., Any] = getattr(exporter(), method)
        made = export(model.eval(), inputs, config=OnnxConfig(dynamic=True, **options))
        made.save_pretrained(scratch / FOLDER)
        return Outcome({}, made)

    return call


def mobius(source: Path, scratch: Path, provider: str = "default") -> Timed:
    """Build graphs of a checkpoint with mobius, which traces nothing."""
    from mobius import build

    def call() -> Outcome:
        made = build(str(source), dtype="f32", execution_provider=provider)
        made.save(str(scratch / FOLDER))
        return Outcome({}, made)

    return call


def mobius_gguf(source: Path, scratch: Path, kept: str = "") -> Timed:
    """Build graphs of a GGUF with mobius, as float32 or with quantised weights kept."""
    from mobius import build_from_gguf

    def call() -> Outcome:
        made = build_from_gguf(str(source), keep_quantized=bool(kept))
        made.save(str(scratch / FOLDER))
        return Outcome({}, made)

    return call


def _import_exporters() -> None:
    for name in (
        "onnxscript.optimizer",
        "torch._export",
        "torch.export._trace",
        "torch.onnx._internal.exporter._core",
        "transformers.exporters.exporter_onnx",
        "transformers.models.llama.modeling_llama",
    ):
        import_module(name)
