"""Torch's dtypes and this package's encodings: which is which, and tensors as arrays and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.encoding import DATA, DENSE, Dense, dense
from weighbridge.errors import InvalidInput, MissingDependency
from weighbridge.tensor import Tensor, dense_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

TORCH_DTYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16",
    "f8_e4m3": "float8_e4m3fn", "f8_e5m2": "float8_e5m2", "f8_e4m3fnuz": "float8_e4m3fnuz",
    "f8_e5m2fnuz": "float8_e5m2fnuz", "f8_e8m0": "float8_e8m0fnu",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
    "bool": "bool", "c64": "complex64", "c128": "complex128",
}  # fmt: skip
"""What torch calls the dense encodings of whole bytes."""


def import_torch() -> Any:
    """Return torch.

    Raises:
        MissingDependency: (rule ``torch``) when it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependency(
            "torch is not installed", rule="torch", hint="pip install 'weighbridge[torch]'"
        ) from None
    return torch


def torch_dtype(encoding: Dense) -> torch.dtype:
    """Return torch's dtype of an encoding that `TORCH_DTYPES` has."""
    return getattr(import_torch(), TORCH_DTYPES[encoding.name])  # type: ignore[no-any-return]


def encoding_of(dtype: torch.dtype, tensor: str | None = None) -> Dense:
    """Return the encoding of a dtype.

    Raises:
        InvalidInput: (rule ``dtype``) for a dtype that no dense encoding has.
    """
    torch = import_torch()
    for ours, theirs in TORCH_DTYPES.items():
        if getattr(torch, theirs) == dtype:
            return DENSE[ours]
    raise InvalidInput("this dtype cannot be stored", rule="dtype", tensor=tensor, got=dtype)


def dtype_named(name: str) -> Dense:
    """Return the encoding of that name.

    Raises:
        InvalidInput: (rule ``encoding``) when torch has no such dtype.
    """
    found = dense(name)
    if found.name not in TORCH_DTYPES:
        raise InvalidInput("is not a dtype of torch", rule="encoding", got=name)
    return found


def octets(values: torch.Tensor) -> NDArray[np.uint8]:
    """Return the memory of a contiguous tensor on the CPU, not copied."""
    flat = values.detach().reshape(-1).view(import_torch().uint8)
    return flat.numpy()


def from_torch(name: str, values: torch.Tensor) -> Tensor:
    """Return a torch tensor as a lazy one; its memory is shared where it is contiguous.

    Raises:
        InvalidInput: (rule ``dtype``) for a dtype that no dense encoding has, (rule ``storage``)
            for a tensor whose numbers are not in memory one by one: a sparse or a meta tensor.
    """
    torch = import_torch()
    encoding = encoding_of(values.dtype, name)
    if values.layout != torch.strided or values.is_meta:
        raise InvalidInput(
            "its numbers are not in memory one by one",
            rule="storage",
            tensor=name,
            got="a meta tensor" if values.is_meta else values.layout,
        )
    plain = values.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return Tensor(name, tuple(values.shape), encoding, {DATA: octets(plain)})


def as_torch(array: NDArray[Any]) -> torch.Tensor:
    """Return an array as a torch tensor, those of ml_dtypes included, not copied if contiguous.

    A part of a tensor, as one process of several wants it, is thereby two calls:
    ``as_torch(model.tensors[name][rows, columns])`` reads and decodes only that part.

    Raises:
        InvalidInput: (rule ``dtype``) for an array of a type that torch does not have.

    Example:
        >>> import ml_dtypes
        >>> as_torch(np.ones((1, 2), ml_dtypes.bfloat16))
        tensor([[1., 1.]], dtype=torch.bfloat16)
    """
    torch = import_torch()
    dtype = torch_dtype(dtype_named(dense_of(array.dtype).name))
    if not array.size:
        return torch.empty(array.shape, dtype=dtype)  # type: ignore[no-any-return]
    held = array if array.flags.c_contiguous and array.flags.writeable else array.copy(order="C")
    flat = torch.from_numpy(held.reshape(-1).view(np.uint8))
    return flat.view(dtype).reshape(array.shape)  # type: ignore[no-any-return]
