"""From one format to another, by call: ours, what people write with stock libraries, and ``cp``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.benchmarks.case import OURS, Case
from weighbridge.benchmarks.contender import Call, Command, Contender, Role
from weighbridge.benchmarks.contenders import floor, gguf_py, onnx_py, ours, safetensors_py

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TARGETS = {"gguf": "out.gguf", "onnx": "out.onnx", "safetensors": "out.safetensors"}
"""What is written to tell the format."""

TITLES = {"gguf": "GGUF", "onnx": "ONNX", "safetensors": "safetensors"}
"""What titles call the formats."""

ROUNDS = 2
"""How often these are measured: they are many, and none is in the short table."""

CP_SYNC = Command("cp, sync", "cp a b; sync b", role=Role.FLOOR, argv=floor.cp_and_sync)

STOCK: Mapping[tuple[str, str], Sequence[Contender]] = {
    ("gguf", "safetensors"): (
        Call(
            "gguf, safetensors",
            "GGUFReader(a), save_file(tensors, b), unsynced",
            ("gguf", "safetensors", "torch"),
            prepare=gguf_py.to_safetensors,
        ),
    ),
    ("onnx", "safetensors"): (
        Call(
            "onnx, safetensors",
            "onnx.load(a), save_file(arrays, b), unsynced",
            ("onnx", "safetensors"),
            prepare=onnx_py.to_safetensors,
        ),
    ),
    ("safetensors", "onnx"): (
        Call(
            "safetensors, onnx-ir",
            "load_file(a), onnx_ir.save(model, b, external_data=...), unsynced",
            ("onnx-ir", "safetensors", "torch"),
            prepare=onnx_py.from_safetensors,
        ),
    ),
}
"""What people write for themselves, by the formats of source and target."""


def copied(kind: str, target: str, source: str | Path, label: str, what: str) -> Case:
    """Return the case of moving tensors into another format as they are.

    Args:
        kind: the source's format.
        target: the target's.
        source: the input, as `Workshop.path` takes it.
        label: what the case's name calls the input.
        what: what its title calls it.
    """
    how = f"weighbridge.convert(a, '{TARGETS[target]}', weights_only=True), synced"
    options = {"target": TARGETS[target]}
    ourselves = Call(OURS, how, role=Role.OURS, prepare=ours.convert_call, options=options)
    return Case(
        f"copy-{label}-{target}",
        "Convert",
        f"Convert {what} to {TITLES[target]}, byte for byte",
        source,
        (ourselves, *STOCK.get((kind, target), ()), CP_SYNC),
        rounds=ROUNDS,
    )


def cast(dtype: str, source: str | Path, label: str, what: str) -> Case:
    """Return the case of casting all tensors of a safetensors file."""
    options = {"target": TARGETS["safetensors"], "dtype": dtype}
    how = f"weighbridge.convert(a, b, dtype='{dtype}', weights_only=True), synced"
    stock = Call(
        "safetensors, torch",
        f"load_file(a), .to(torch.{dtype}), save_file(b), unsynced",
        ("safetensors", "torch"),
        prepare=safetensors_py.cast,
        options={"dtype": dtype},
    )
    return Case(
        f"cast-{label}-{dtype}",
        "Convert",
        f"Cast {what} to {dtype}",
        source,
        (
            Call(OURS, how, role=Role.OURS, prepare=ours.convert_call, options=options),
            stock,
            CP_SYNC,
        ),
        rounds=ROUNDS,
    )


def quantised(kind: str, source: str | Path, label: str, what: str) -> Case:
    """Return the case of quantising all matrices of a safetensors file to GGUF."""
    options = {"target": TARGETS["gguf"], "quantize": kind}
    how = f"weighbridge.convert(a, b, quantize='{kind}', weights_only=True), synced"
    native = Call(
        "libgguf, gguf",
        "load_file(a), libgguf.quantize_rows, GGUFWriter(b), unsynced",
        ("gguf", "libgguf", "safetensors", "torch"),
        prepare=gguf_py.quantize,
        options={"kind": kind},
    )
    return Case(
        f"quantize-{label}-{kind.lower()}",
        "Convert",
        f"Quantise {what} to GGUF in {kind}",
        source,
        (Call(OURS, how, role=Role.OURS, prepare=ours.convert_call, options=options), native),
        rounds=ROUNDS,
    )
