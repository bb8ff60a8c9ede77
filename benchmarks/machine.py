"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from weighbridge.benchmarks.contender import installed
from weighbridge.benchmarks.results import Machine

DISTRIBUTIONS = (
    "weighbridge", "numpy", "numba", "fastsafetensors", "gguf", "instanttensor", "libgguf",
    "mobius-onnx", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "runai-model-streamer",
    "safetensors", "torch", "transformers", "ztensor",
)  # fmt: skip
"""Whose versions are recorded."""


def machine(folder: Path) -> Machine:
    """Return what this is, with the file system of `folder`."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        file_system=_file_system(folder),
        load=round(os.getloadavg()[0], 2),
        devices=_devices(),
    )


def _devices() -> list[str]:
    """Name what torch finds beside the CPU, where torch is installed."""
    if installed("torch") is None:
        return []
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of all that may take part."""
    return {
        "python": platform.python_version(),
        **{name: installed(name) for name in DISTRIBUTIONS},
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds `folder` (proc_pid_mounts(5))."""
    kinds: dict[Path, str] = {}
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, point, kind, *_ = line.split()
            kinds[Path(point)] = kind
    places = (place for place in (folder.resolve(), *folder.resolve().parents) if place in kinds)
    return kinds[next(places)] if kinds else "unknown"
