"""Weighbridge itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.contenders import transformers_py
from weighbridge.benchmarks.weights import loaded, name_of

if TYPE_CHECKING:
    from weighbridge.benchmarks.contender import Timed

PYTHON = (sys.executable, "-P")
CONVERT = (str(Path(sys.executable).with_name("weighbridge")), "convert")


def open_model(source: Path, scratch: Path) -> Timed:
    """Open by content and list names and shapes."""
    del scratch
    from weighbridge import open as open_any

    def call() -> Outcome:
        model = open_any(source)
        sizes = [tensor.size for tensor in model.tensors.values()]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, model)

    return call


def load_one(source: Path, scratch: Path, which: str) -> Timed:
    """Open, and decode one tensor."""
    del scratch
    from weighbridge import open as open_any

    name = name_of(source, which)

    def call() -> Outcome:
        model = open_any(source)
        return loaded([model.tensors[name].values()], model)

    return call


def load_all(source: Path, scratch: Path, **options: Any) -> Timed:
    """Load every tensor as torch tensors, in the stored dtype or in another, to a device."""
    del scratch
    import torch

    from weighbridge import load

    _import_plugins()
    torch.empty(1, device=options.get("device", "cpu"))
    return lambda: loaded(load(source, **options))


def _import_plugins() -> None:
    """Import what a first call would import: every format, dialect and family, and the loader."""
    import weighbridge.engine.load  # noqa: F401
    from weighbridge import registry

    for group in ("formats", "dialects", "architectures"):
        registry.all_of(group)


def convert_call(source: Path, scratch: Path, target: str, **options: Any) -> Timed:
    """Convert tensors under their own names, in a process that has converted before."""
    import numpy as np

    from weighbridge import convert, save_file

    small = scratch / "a.safetensors"
    save_file({"x": np.zeros((2, 256), np.float32)}, small)
    convert(small, scratch / f"small-{target}", weights_only=True, **options)

    def call() -> Outcome:
        convert(source, scratch / target, weights_only=True, **options)
        return Outcome({})

    return call


def copy_command(source: Path, scratch: Path) -> list[list[str]]:
    """Move tensors from safetensors to GGUF under their own names, as a whole process."""
    return [[*CONVERT, str(source), str(scratch / "out.gguf"), "--weights-only"]]


def convert_unsynced(source: Path, scratch: Path, target: str) -> Timed:
    """Do the same without waiting for the disk, as `cp` does: not something that we offer."""
    call = convert_call(source, scratch, target)

    def unsynced() -> Outcome:
        with mock.patch("weighbridge.engine.commit.sync"):
            return call()

    return unsynced


def to_gguf(source: Path, scratch: Path) -> list[list[str]]:
    """Convert a checkpoint to GGUF as it is."""
    return [[*CONVERT, str(source), str(scratch / "out.gguf")]]


def to_q8_0(source: Path, scratch: Path) -> list[list[str]]:
    """Convert a checkpoint to GGUF, quantised."""
    return [[*to_gguf(source, scratch)[0], "--quantize", "Q8_0"]]


def to_transformers(source: Path, scratch: Path, dtype: str) -> Timed:
    """Load a GGUF as a model and a tokenizer of transformers."""
    del scratch
    from weighbridge.transformers import from_pretrained

    transformers_py.automatic()

    def call() -> Outcome:
        return transformers_py.outcome(*from_pretrained(source, dtype=dtype))

    return call


def import_package(source: Path, scratch: Path) -> list[list[str]]:
    """Import the package."""
    del source, scratch
    return [[*PYTHON, "-c", "import weighbridge"]]


def import_api(source: Path, scratch: Path) -> list[list[str]]:
    """Import all that opening a model needs."""
    del source, scratch
    return [[*PYTHON, "-c", "import weighbridge.api"]]


def imported() -> str:
    """Say which modules importing the package brings."""
    code = "import sys; old = {*sys.modules}; import weighbridge; print(*{*sys.modules} - old)"
    line = [*PYTHON, "-c", code]
    names = subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()
    return f"import weighbridge brings {', '.join(sorted(names))}"
