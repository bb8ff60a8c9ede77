"""Weighbridge itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.contenders import transformers_py

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


def copy_command(source: Path, scratch: Path) -> list[list[str]]:
    """Move tensors from safetensors to GGUF under their own names, as a whole process."""
    return [[*CONVERT, str(source), str(scratch / "out.gguf"), "--weights-only"]]


def copy_call(source: Path, scratch: Path) -> Timed:
    """Do the same in a process that has converted before, so that all is imported."""
    import numpy as np

    from weighbridge import convert, save_file

    small = {name: scratch / name for name in ("a.safetensors", "a.gguf")}
    save_file({"x": np.zeros(1, np.float32)}, small["a.safetensors"])
    convert(small["a.safetensors"], small["a.gguf"], weights_only=True)

    def call() -> Outcome:
        result = convert(source, scratch / "out.gguf", weights_only=True, overwrite=True)
        return Outcome({"bytes": result.bytes})

    return call


def copy_unsynced(source: Path, scratch: Path) -> Timed:
    """Do the same without waiting for the disk, as `cp` does: not something that we offer."""
    call = copy_call(source, scratch)

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


def load_gguf(source: Path, scratch: Path) -> Timed:
    """Load a GGUF as a model and a tokenizer of transformers, in float32."""
    return _load_gguf(source, transformers_py.FLOAT32)


def load_gguf_bf16(source: Path, scratch: Path) -> Timed:
    """Load it in bfloat16."""
    return _load_gguf(source, transformers_py.BFLOAT16)


def _load_gguf(source: Path, dtype: str) -> Timed:
    from weighbridge.transformers import from_pretrained

    transformers_py.automatic()

    def call() -> Outcome:
        return transformers_py.outcome(*from_pretrained(source, dtype=dtype))

    return call


def inspect(source: Path, scratch: Path) -> list[list[str]]:
    """Show what a model holds."""
    del scratch
    return [[CONVERT[0], "inspect", str(source)]]


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
