"""Loaders that are made for GPUs, each as its own documentation uses it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weighbridge.benchmarks.contenders.safetensors_py import shards
from weighbridge.benchmarks.weights import loaded

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Outcome, Timed


def fastsafetensors(source: Path, scratch: Path, device: str) -> Timed:
    """Load with fastsafetensors, without GPUDirect Storage."""
    del scratch
    library, files = _ready("fastsafetensors", device), [str(file) for file in shards(source)]

    def call() -> Outcome:
        with library.fastsafe_open(files, nogds=True, device=device) as opened:
            names = opened.keys()
            return loaded([opened.get_tensor(name).clone() for name in names])

    return call


def runai(source: Path, scratch: Path, device: str) -> Timed:
    """Stream with the Run:ai model streamer, and move each tensor as it comes."""
    del scratch
    library, files = _ready("runai_model_streamer", device), shards(source)

    def call() -> Outcome:
        tensors = []
        with library.SafetensorsStreamer() as streamer:
            for file in files:
                streamer.stream_file(str(file))
                tensors += [tensor.to(device) for _, tensor in streamer.get_tensors()]
        return loaded(tensors)

    return call


def instanttensor(source: Path, scratch: Path, device: str) -> Timed:
    """Load with InstantTensor; its tensors are views of a buffer that it uses again."""
    del scratch
    import torch

    library, files = _ready("instanttensor", device), [str(file) for file in shards(source)]
    number = torch.device(device).index or 0

    def call() -> Outcome:
        with library.safe_open(files, framework="pt", device=number) as opened:
            return loaded([tensor.clone() for _, tensor in opened.tensors()])

    return call


def _ready(module: str, device: str) -> Any:
    """Import a loader, and start the device, which takes a while and is nobody's fault."""
    import torch

    torch.empty(1, device=device)
    return import_module(module)
