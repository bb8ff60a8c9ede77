"""Small models that llama.cpp has quantised whole: every tensor's type, and a hash of its bytes.

``tests/data/whole_files.json`` holds what came out of ``llama_model_quantize`` in the libraries
that `support.llama_quantize` names; this module has made it:

    PYTHONPATH=tests python -m support.whole_files package/bins/linux-x64

Weights and importance are made from the raw numbers of a bit generator, which are the same on every
machine and with every NumPy.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np

import weighbridge as wb
from support.importance import Sums, made_up
from support.llama_quantize import Header, Quantizer
from weighbridge.converters.filetypes.table import FILE_TYPES
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.region import Shape

STORED = Path(__file__).parent.parent / "data" / "whole_files.json"

SIZES = {"hidden": 256, "heads": 4, "kv_heads": 2, "vocab": 96}

MODELS = {
    "llama": (Header(layers=8, inner=320, **SIZES), "float32"),
    "experts": (Header(layers=2, inner=512, experts=4, **SIZES), "bfloat16"),
}
"""Name -> sizes, and the dtype of the weights: rows of 320 are no whole number of blocks of 256."""

FILE_TYPES_MADE = {
    "without": ("Q4_K_M", "Q2_K", "Q3_K_L", "Q5_K_S", "Q6_K", "IQ4_XS"),
    "with": ("IQ2_XXS", "IQ1_S", "Q4_K_M", "Q2_K_S", "IQ3_XS"),
}
"""Without and with an importance matrix: the file types."""

NO_ENTRY = ("token_embd.weight", "output.weight")
"""What llama-imatrix has nothing to say of."""

Tensors = dict[str, tuple[str, str]]


def source(name: str, directory: Path) -> Path:
    """Write a model's GGUF file, and return its path."""
    header, dtype = MODELS[name]
    model = header.model()
    tensors = {
        tensor: from_array(tensor, _numbers(lazy.shape, seed))
        for seed, (tensor, lazy) in enumerate(model.tensors.items())
    }
    path = directory / f"{name}.gguf"
    wb.convert(replace(model, tensors=tensors), path, dtype=dtype)
    return path


def _numbers(shape: Shape, seed: int) -> NDArray[np.float32]:
    """Return numbers about 0.05, bell-shaped, with larger ones in some columns."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    sums = raw.view(np.int16).reshape(-1, 4).sum(1, dtype=np.int32)
    louder = np.where(np.arange(shape[-1]) % 37 == 5, np.float32(6), np.float32(1))
    return (sums * np.float32(2.0**-20)).reshape(shape) * louder


def importance(name: str) -> dict[str, Sums]:
    """Return what was counted for a model; one of its experts had no input."""
    header, _ = MODELS[name]
    counts = (3, 0, 5, 7) if header.experts else (3,)
    return {
        tensor: made_up(lazy.shape[-1], counts if lazy.ndim > 2 else (3,), seed)
        for seed, (tensor, lazy) in enumerate(header.model().tensors.items())
        if tensor not in NO_ENTRY
    }


def tensors_of(path: Path) -> Tensors:
    """Return name -> type and SHA-256 of the bytes, of every tensor of a GGUF file."""
    return {
        tensor.name: (
            tensor.tensor_type.name,
            hashlib.sha256(np.ascontiguousarray(tensor.data).tobytes()).hexdigest(),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


def stored() -> dict[str, dict[str, dict[str, Tensors]]]:
    """Return model -> ``with`` or ``without`` -> file type -> tensors."""
    held = json.loads(STORED.read_text())["files"]
    return {
        model: {
            kind: {
                name: {tensor: (type, hash) for tensor, (type, hash) in tensors.items()}
                for name, tensors in files.items()
            }
            for kind, files in kinds.items()
        }
        for model, kinds in held.items()
    }


def main(directory: Path) -> None:
    """Store what the quantiser in a directory of shared libraries makes."""
    quantizer = Quantizer(directory)
    files: dict[str, dict[str, dict[str, Tensors]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            path = source(model, Path(folder))
            means = {tensor: held.means() for tensor, held in importance(model).items()}
            files[model] = {kind: {} for kind in FILE_TYPES_MADE}
            for kind, names in FILE_TYPES_MADE.items():
                for name in names:
                    target = path.with_suffix(f".{kind}.{name}.gguf")
                    matrix = means if kind == "with" else None
                    quantizer.quantize(path, target, FILE_TYPES[name].number, matrix)
                    files[model][kind][name] = tensors_of(target)
    made = "llama_model_quantize of llama.cpp v0.5.0; see tests/support/whole_files.py"
    STORED.write_text(json.dumps({"made by": made, "files": files}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
