"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from weighbridge.benchmarks.contender import installed

DISTRIBUTIONS = (
    "weighbridge", "numpy", "gguf", "onnx", "onnx-ir", "safetensors", "torch", "transformers",
    "ztensor",
)  # fmt: skip
"""Whose versions are recorded."""


def machine(folder: Path) -> dict[str, Any]:
    """Return the processor, the memory, the system, and the file system of `folder`."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(folder),
        "load": round(os.getloadavg()[0], 2),
    }


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
