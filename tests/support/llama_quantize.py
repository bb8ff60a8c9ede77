"""Models by their headers alone, and what llama.cpp's own quantiser chooses for their tensors.

``tests/data/llama_quantize.json`` holds its choices, without and with an importance matrix: they
depend on whether there is one, not on what is in it. They were made by this module, from a dry run
of ``llama_model_quantize`` in the shared library of llama.cpp v0.5.0 that the npm package
``@node-llama-cpp/linux-x64`` 3.22.1 carries:

    PYTHONPATH=tests python -m support.llama_quantize package/bins/linux-x64
"""

from __future__ import annotations

import ctypes
import itertools
import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import weighbridge as wb
from weighbridge.converters.filetypes.table import FILE_TYPES, NEED_IMPORTANCE
from weighbridge.encoding import DENSE
from weighbridge.metadata import Value, scalar, string
from weighbridge.model import Model
from weighbridge.testing.models import Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from weighbridge.tensor import Lazy

PLAIN, WEIGHTED = "models", "models with an importance matrix"

STORED = Path(__file__).parent.parent / "data" / "llama_quantize.json"


@dataclass(frozen=True)
class Header:
    """A decoder's sizes; experts are stacked, a fused one has queries, keys and values in one.

    A shared expert of a layer stands beside its stack.
    """

    family: str = "llama"
    layers: int = 32
    hidden: int = 4096
    inner: int = 14336
    heads: int = 32
    kv_heads: int = 8
    vocab: int = 32000
    tied: bool = False
    experts: int = 0
    fused: bool = False
    shared: bool = False

    def model(self) -> Model:
        """Return the model; its weights cannot be read."""
        return Model(
            format="gguf", dialect="gguf", tensors=self._tensors(), metadata=self._metadata()
        )

    def _tensors(self) -> dict[str, Lazy]:
        return {name: Unreadable(shape, DENSE["f16"]) for name, shape in self._shapes().items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        size, head = self.hidden, self.hidden // self.heads
        stack = (self.experts,) if self.experts else ()
        suffix = "_exps" if self.experts else ""
        attention = {
            "attn_q": (self.heads * head, size),
            "attn_k": (self.kv_heads * head, size),
            "attn_v": (self.kv_heads * head, size),
        }
        if self.fused:
            attention = {"attn_qkv": ((self.heads + 2 * self.kv_heads) * head, size)}
        shared = {
            "ffn_gate_shexp": (self.inner, size),
            "ffn_up_shexp": (self.inner, size),
            "ffn_down_shexp": (size, self.inner),
        }
        block = {
            **attention,
            "attn_output": (size, self.heads * head),
            f"ffn_gate{suffix}": (*stack, self.inner, size),
            f"ffn_up{suffix}": (*stack, self.inner, size),
            f"ffn_down{suffix}": (*stack, size, self.inner),
            **({"ffn_gate_inp": (self.experts, size)} if self.experts else {}),
            **(shared if self.shared else {}),
        }
        shapes = {"token_embd.weight": (self.vocab, size)}
        if not self.tied:
            shapes["output.weight"] = (self.vocab, size)
        for layer, (name, shape) in itertools.product(range(self.layers), block.items()):
            shapes[f"blk.{layer}.{name}.weight"] = shape
        return shapes

    def _metadata(self) -> dict[str, Value]:
        numbers = {
            "block_count": self.layers,
            "context_length": 2048,
            "embedding_length": self.hidden,
            "feed_forward_length": self.inner,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            **({"expert_count": self.experts, "expert_used_count": 2} if self.experts else {}),
        }
        epsilons = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
        return {
            "general.architecture": string(self.family),
            **{f"{self.family}.{key}": scalar("u32", data) for key, data in numbers.items()},
            **{f"{self.family}.{key}": scalar("f32", 1e-5) for key in epsilons},
            "tokenizer.ggml.model": string("none"),
        }


HEADERS = {
    "llama-3-8b": Header(vocab=128256),
    "llama-2-7b": Header(inner=11008, kv_heads=32),
    "llama-3-70b-narrow": Header(layers=80, hidden=1024, inner=3584, heads=64),
    "llama-65b-narrow": Header(layers=80, hidden=1024, inner=2816, heads=64, kv_heads=64),
    "smollm2-135m": Header(
        layers=30, hidden=576, inner=1536, heads=9, kv_heads=3, vocab=49152, tied=True
    ),
    "rows-of-320": Header(layers=17, hidden=320, inner=800, heads=4, kv_heads=1, vocab=640),
    "rows-of-100": Header(layers=3, hidden=100, inner=256, heads=4, kv_heads=2, vocab=640),
    "mixtral-8x7b-narrow": Header(experts=8, hidden=1024, inner=3584),
    "four-experts": Header(experts=4, layers=9, heads=8, kv_heads=8),
    "shared-experts": Header("qwen2moe", 24, 512, 1536, 8, 8, experts=4, shared=True),
    "qwen2-72b-narrow": Header("qwen2", 80, 1024, 3712, 64, 8),
    "qwen3-0.6b": Header("qwen3", 28, 1024, 3072, 16, 8, 151936, tied=True),
    "phi-3-mini": Header("phi3", 32, 3072, 8192, 32, 32, 32064, fused=True),
    "falcon-7b": Header("falcon", 32, 4544, 18176, 71, 1, 65024, fused=True),
}
"""Sizes of well-known models, some of them narrower, and of some that nobody has."""


Choices = dict[str, dict[str, dict[str, str]]]
"""Model -> file type -> stem of names -> what llama.cpp chose, in layers' order."""


def stored(*, weighted: bool = False) -> Choices:
    """Return the choices without an importance matrix, or those with one."""
    found: Choices = json.loads(STORED.read_text())[WEIGHTED if weighted else PLAIN]
    return found


def file_types(*, weighted: bool = False) -> list[str]:
    """Return the file types that there are without an importance matrix, or those with one."""
    return [name for name in FILE_TYPES if weighted or name not in NEED_IMPORTANCE]


def summary(encodings: dict[str, str]) -> dict[str, str]:
    """Return stem -> encodings in layers' order, as ``Q6_K*2 Q4_K*30``.

    Example:
        >>> summary({"blk.0.a": "Q6_K", "blk.1.a": "Q4_K", "blk.2.a": "Q4_K", "b": "F16"})
        {'a': 'Q6_K*1 Q4_K*2', 'b': 'F16*1'}
    """
    stems: dict[str, dict[int, str]] = {}
    for name, encoding in encodings.items():
        match = re.fullmatch(r"blk\.(\d+)\.(.*)", name)
        stem, layer = (match[2], int(match[1])) if match else (name, 0)
        stems.setdefault(stem, {})[layer] = encoding
    return {stem: _runs(encoding for _, encoding in sorted(stems[stem].items())) for stem in stems}


def _runs(encodings: object) -> str:
    groups = itertools.groupby(encodings)  # type: ignore[call-overload]
    return " ".join(f"{encoding}*{len(list(group))}" for encoding, group in groups)


class _Entry(ctypes.Structure):
    """``llama_model_imatrix_data``: a tensor's weights; one without a name is the last."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.POINTER(ctypes.c_float)),
        ("size", ctypes.c_size_t),
    )


class _Parameters(ctypes.Structure):
    """``llama_model_quantize_params``: its first fields; the rest stays as llama.cpp sets it."""

    _fields_ = (
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int32),
        ("output_tensor_type", ctypes.c_int32),
        ("token_embedding_type", ctypes.c_int32),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output_tensor", ctypes.c_bool),
        ("only_copy", ctypes.c_bool),
        ("pure", ctypes.c_bool),
        ("keep_split", ctypes.c_bool),
        ("dry_run", ctypes.c_bool),
        ("imatrix", ctypes.POINTER(_Entry)),
        ("rest", ctypes.c_uint8 * 256),
    )


class Quantizer:
    """llama.cpp's quantiser, from a directory of its shared libraries."""

    def __init__(self, directory: Path) -> None:
        """Load the libraries."""
        for pattern in ("libggml-base.so", "libggml.v*.so", "libllama.v*.so"):
            (path,) = directory.glob(pattern)
            self.library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        self.library.llama_model_quantize_default_params.restype = _Parameters
        self.lines: list[str] = []
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self._log = kind(lambda level, text, data: self.lines.append(text.decode()))
        self.library.llama_log_set(self._log, None)

    def quantize(
        self,
        path: Path,
        target: Path,
        number: int,
        matrix: Mapping[str, NDArray[np.float32]] | None = None,
        *,
        dry_run: bool = False,
    ) -> str:
        """Quantise a GGUF file to this file type, with importance weights, and return the log."""
        wanted = self.library.llama_model_quantize_default_params()
        wanted.ftype, wanted.dry_run = number, dry_run
        wanted.imatrix = _entries(matrix) if matrix else None
        self.lines.clear()
        failed = self.library.llama_model_quantize(
            str(path).encode(), str(target).encode(), ctypes.byref(wanted)
        )
        log = "".join(self.lines)
        assert not failed, log
        return log

    def choices(self, path: Path, number: int, *, weighted: bool) -> dict[str, str]:
        """Return the encoding that each matrix of a GGUF file would get as this file type."""
        matrix = {"x": np.ones(1, np.float32)} if weighted else None
        log = self.quantize(path, path.with_suffix(".none"), number, matrix, dry_run=True)
        return {
            name: (after or before).upper()
            for name, before, after in re.findall(
                r"\] +(\S+) +- \[[^\]]*\], type = +(\w+), size = .*?(?:-> .*?\((\w+)\))?\n", log
            )
        }


def _entries(matrix: Mapping[str, NDArray[np.float32]]) -> ctypes.Array[_Entry]:
    single = ctypes.POINTER(ctypes.c_float)
    held = [
        _Entry(name.encode(), weights.ctypes.data_as(single), weights.size)
        for name, weights in matrix.items()
    ]
    return (_Entry * (len(held) + 1))(*held)


def main(directory: Path) -> None:
    """Store the choices of the quantiser in a directory of shared libraries."""
    quantizer = Quantizer(directory)
    found: dict[str, Choices] = {PLAIN: {}, WEIGHTED: {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, header in HEADERS.items():
            path = _sparse(Path(folder) / "model.gguf", header)
            for kind, choices in found.items():
                weighted = kind == WEIGHTED
                choices[name] = {
                    entry: summary(
                        quantizer.choices(path, FILE_TYPES[entry].number, weighted=weighted)
                    )
                    for entry in file_types(weighted=weighted)
                }
    made = "llama_model_quantize of llama.cpp v0.5.0, dry run; see tests/support/llama_quantize.py"
    STORED.write_text(json.dumps({"made by": made, **found}, indent=1) + "\n")


def _sparse(path: Path, header: Header) -> Path:
    """Write a file that is all header: the weights are a hole."""
    plan = wb.plan(header.model(), path, overwrite=True)
    (file,) = plan.layout.files  # type: ignore[union-attr]
    with path.open("wb") as target:
        for offset, content in file.pieces:
            target.seek(offset)
            target.write(content)
        target.truncate(file.size)
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]))
