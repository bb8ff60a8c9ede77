"""Open safetensors, GGUF and ONNX models as one, and convert any of them into any other.

Importing this package imports nothing else: each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weighbridge.api import convert, load, load_file, open, plan, save_file
    from weighbridge.candidates import quantize_error
    from weighbridge.coding import decode, encode
    from weighbridge.compare import diff
    from weighbridge.engine.torch_types import as_torch
    from weighbridge.errors import (
        AlreadyExists,
        Error,
        InvalidFile,
        InvalidInput,
        InvalidPlan,
        MissingDependency,
        NotFound,
        OutOfMemory,
        Unsupported,
    )
    from weighbridge.model import Model
    from weighbridge.modules import load_into
    from weighbridge.parts import blocks_to_parts, decode_parts, encode_parts, parts_to_blocks
    from weighbridge.pipelines import pipeline
    from weighbridge.steps import Plan
    from weighbridge.tensor import Tensor
    from weighbridge.verification import verify

__version__ = "0.1.0"

_HOMES = {
    "api": ("convert", "load", "load_file", "open", "plan", "save_file"),
    "candidates": ("quantize_error",),
    "coding": ("decode", "encode"),
    "compare": ("diff",),
    "engine.torch_types": ("as_torch",),
    "errors": (
        "AlreadyExists",
        "Error",
        "InvalidFile",
        "InvalidInput",
        "InvalidPlan",
        "MissingDependency",
        "NotFound",
        "OutOfMemory",
        "Unsupported",
    ),
    "model": ("Model",),
    "modules": ("load_into",),
    "parts": ("blocks_to_parts", "decode_parts", "encode_parts", "parts_to_blocks"),
    "pipelines": ("pipeline",),
    "steps": ("Plan",),
    "tensor": ("Tensor",),
    "verification": ("verify",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

_MODULES = ("transformers",)
"""What is public by its module. A star does not import it: it has another package's name."""

__all__ = [
    "AlreadyExists",
    "Error",
    "InvalidFile",
    "InvalidInput",
    "InvalidPlan",
    "MissingDependency",
    "Model",
    "NotFound",
    "OutOfMemory",
    "Plan",
    "Tensor",
    "Unsupported",
    "as_torch",
    "blocks_to_parts",
    "convert",
    "decode",
    "decode_parts",
    "diff",
    "encode",
    "encode_parts",
    "load",
    "load_file",
    "load_into",
    "open",
    "parts_to_blocks",
    "pipeline",
    "plan",
    "quantize_error",
    "save_file",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name in _MODULES:
        return import_module(f"weighbridge.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'weighbridge' has no attribute '{name}'")
    value = getattr(import_module(f"weighbridge.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, *_MODULES]
