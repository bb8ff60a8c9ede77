"""llama.cpp's own `gguf` package, alone and with `libgguf`, which decodes with ggml's C code."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.weights import loaded, name_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from weighbridge.benchmarks.contender import Timed

    Decode = Callable[[Any], NDArray[Any]]


def read(source: Path, scratch: Path) -> Timed:
    """Open with the reader and list names and shapes."""
    del scratch
    from gguf import GGUFReader

    def call() -> Outcome:
        reader = GGUFReader(source)
        sizes = [int(tensor.n_elements) for tensor in reader.tensors]
        return Outcome({"tensors": len(sizes), "values": sum(sizes)}, reader)

    return call


def load_all(source: Path, scratch: Path) -> Timed:
    """Take every tensor as it is stored: a view of the file, which the reader maps."""
    del scratch
    from gguf import GGUFReader

    def call() -> Outcome:
        reader = GGUFReader(source)
        return loaded([tensor.data for tensor in reader.tensors], reader)

    return call


def load_one(source: Path, scratch: Path, which: str) -> Timed:
    """Open, and decode one tensor."""
    del scratch
    from gguf import GGUFReader

    decode, name = _python(), name_of(source, which)

    def call() -> Outcome:
        reader = GGUFReader(source)
        return loaded([decode(next(one for one in reader.tensors if one.name == name))], reader)

    return call


def decode_all(source: Path, scratch: Path, dtype: str) -> Timed:
    """Decode every tensor with the package's own NumPy code, and cast it."""
    del scratch
    return _decode_all(source, dtype, _python())


def decode_with_libgguf(source: Path, scratch: Path, dtype: str) -> Timed:
    """Decode every tensor with ggml's C code, and cast it."""
    del scratch
    return _decode_all(source, dtype, _native())


def _decode_all(source: Path, dtype: str, decode: Decode) -> Timed:
    torch = _torch()
    from gguf import GGUFReader

    target = getattr(torch, dtype)

    def call() -> Outcome:
        reader = GGUFReader(source)
        return loaded([torch.from_numpy(decode(one)).to(target) for one in reader.tensors], reader)

    return call


def _torch() -> Any:
    """Import torch; that arrays of the reader cannot be written to is known."""
    import torch

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    return torch


def _python() -> Decode:
    from gguf import dequantize

    return lambda tensor: dequantize(tensor.data, tensor.tensor_type)


def _native() -> Decode:
    from gguf import GGMLQuantizationType, dequantize
    from libgguf import dequantize_rows

    plain = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)

    def decode(tensor: Any) -> NDArray[Any]:
        how = dequantize if tensor.tensor_type in plain else dequantize_rows
        return how(tensor.data, tensor.tensor_type)

    return decode


def to_safetensors(source: Path, scratch: Path) -> Timed:
    """Read a GGUF of F32, F16 and BF16, and save what it holds as safetensors."""
    torch = _torch()
    from gguf import GGUFReader
    from safetensors.torch import save_file

    def call() -> Outcome:
        reader = GGUFReader(source)
        save_file({one.name: _dense(one, torch) for one in reader.tensors}, scratch / "out")
        return Outcome({})

    return call


def _dense(tensor: Any, torch: Any) -> Any:
    shape = [int(length) for length in reversed(tensor.shape)]
    kind = tensor.tensor_type.name
    data = torch.from_numpy(tensor.data)
    return (data.view(torch.bfloat16) if kind == "BF16" else data).reshape(shape)


def quantize(source: Path, scratch: Path, kind: str) -> Timed:
    """Quantise every matrix of a safetensors file with ggml's C code, and write a GGUF."""
    import torch
    from gguf import GGMLQuantizationType, GGUFWriter
    from libgguf import quantize_rows
    from safetensors.torch import load_file

    wanted = GGMLQuantizationType[kind]

    def call() -> Outcome:
        writer = GGUFWriter(scratch / "out.gguf", "llama")
        for name, tensor in load_file(source).items():
            values = tensor.to(torch.float32).numpy()
            if values.ndim == 2:
                writer.add_tensor(name, quantize_rows(values, wanted), raw_dtype=wanted)
            else:
                writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return Outcome({})

    return call


def import_package(source: Path, scratch: Path) -> list[list[str]]:
    """Import the package."""
    del source, scratch
    return [[sys.executable, "-P", "-c", "import gguf"]]
