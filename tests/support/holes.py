"""Checkpoints as large as one likes that take no disk: files with holes where the numbers are."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from support import tiny
from weighbridge import registry
from weighbridge.families import find

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.arch import Arch


def holes(directory: Path, model: str, config: dict[str, Any]) -> Path:
    """Write a BF16 checkpoint that is all holes, but for a number of its own in each tensor."""
    arch = find(registry.architectures().values(), {"architectures": [model]})
    shapes = shapes_of(arch, config)
    header, end = {}, 0
    for name in sorted(shapes):
        size = 2 * math.prod(shapes[name])
        header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    directory.mkdir()
    settings = {"architectures": [model], "model_type": arch.model_type, **config}
    (directory / "config.json").write_text(json.dumps(settings))
    for name, content in tiny.small_tokenizer().items():
        (directory / name).write_bytes(content)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, entry in enumerate(header.values(), 1):
            file.seek(8 + len(text) + entry["data_offsets"][0])
            file.write(number.to_bytes(2, "little"))
        file.truncate(8 + len(text) + end)
    return directory


def shapes_of(arch: Arch, config: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors of a family's checkpoint, and their shapes."""
    variables = arch.variables(config)
    expanded = [left for rule in arch.rules(config) for left, _ in rule.expand(variables)]
    return {name: shape for left in expanded for name, shape in left.items()}
