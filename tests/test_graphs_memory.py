"""How much memory an export takes does not depend on the size of the model."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support.command import COMMAND
from support.holes import holes

from weighbridge.benchmarks.memory import Watch

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = {
    "vocab_size": 8192,
    "num_hidden_layers": 1,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}

MEGABYTES = {
    100: {"hidden_size": 1024, "intermediate_size": 11264},
    1000: {"hidden_size": 4096, "intermediate_size": 33792},
}
"""About as many of BF16 numbers -> widths; the graph written is twice as large."""

MEMORY = 800_000_000
"""What the process may have: half of it is taken by torch and transformers."""

ALIKE = 1.15


def heads(width: int) -> dict[str, Any]:
    return {"num_attention_heads": width // 64, "num_key_value_heads": 4, "head_dim": 64}


def peak_of(folder: Path, widths: dict[str, int], *options: str) -> int:
    """Export a checkpoint of holes in a process of its own, and return its peak."""
    source = holes(folder, "LlamaForCausalLM", {**SHAPE, **widths, **heads(widths["hidden_size"])})
    stored = (source / "model.safetensors").stat().st_size
    line = [*COMMAND, "convert", str(source), str(folder / "out"), "--to", "onnx", *options]
    with (
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        Watch(process.pid) as watch,
    ):
        _, words = process.communicate()
    assert process.returncode == 0, words.decode()
    assert (folder / "out" / "model.onnx.data").stat().st_size > 1.9 * stored
    return watch.peak


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--memory", str(MEMORY))], ids=["default", "limited"])
def test_the_peak_does_not_grow_with_the_model(tmp_path: Path, options: tuple[str, ...]) -> None:
    peaks = {size: peak_of(tmp_path / str(size), MEGABYTES[size], *options) for size in MEGABYTES}
    assert peaks[1000] < ALIKE * peaks[100]
    assert peaks[1000] < MEMORY
