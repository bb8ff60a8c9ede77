"""Encode and decode on the device where the numbers are, or shall be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.encoding import DATA
from weighbridge.engine.torch_types import TORCH_DTYPES, import_torch
from weighbridge.errors import InvalidInput, MissingDependency, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from weighbridge.encoding import Dense, Encoding
    from weighbridge.region import Shape


def place_of(data: Any, device: str | torch.device | None) -> torch.device | None:
    """Return the GPU to work on, None for the CPU.

    Args:
        data: what is to be coded: a tensor on a GPU is coded there by default.
        device: where to work instead.

    Raises:
        InvalidInput: (rule ``device``) for what names no device.
        Unsupported: (rule ``device``) when nothing is coded on such devices, or there is none here.
        MissingDependency: (rule ``device``) when torch is not installed.

    Example:
        >>> place_of(b"", None), place_of(b"", "cpu")
        (None, None)
    """
    if device is None:
        own = data.device if hasattr(data, "detach") else None
        return own if own is not None and own.type == "cuda" else None
    if str(device) == "cpu":
        return None
    return _gpu(device)


def encode_there(
    place: torch.device,
    values: Any,
    encoding: Encoding,
    on_cpu: Callable[[], Any],
    *,
    weighted: bool,
) -> torch.Tensor:
    """Encode rows on `place`; with `on_cpu`, and a copy, where there is no kernel for that.

    There is none for importance weights (`weighted`).
    """
    torch = import_torch()
    from weighbridge.kernels import device

    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    known = isinstance(values, torch.Tensor) and device.encodes(encoding, values.dtype)
    if weighted or not known:
        return torch.from_numpy(on_cpu()).to(place)  # type: ignore[no-any-return]
    if not values.ndim:
        raise InvalidInput("a single number has no rows", rule="shape", expected="an axis or more")
    return device.encode(encoding, values.detach().to(place))


def octets_there(place: torch.device, data: Any, on_cpu: Callable[[], Any]) -> torch.Tensor:
    """Return bytes, with at least one axis, on `place`; `on_cpu` gives an array of them."""
    torch = import_torch()
    if isinstance(data, torch.Tensor) and data.dtype in (torch.uint8, torch.int8):
        octets = data.detach().view(torch.uint8)
    else:
        octets = torch.from_numpy(np.require(on_cpu(), requirements=["C", "W"]))
    return torch.atleast_1d(octets.to(place))  # type: ignore[no-any-return]


def decode_there(
    octets: torch.Tensor, encoding: Encoding, shape: Shape, to: Dense, on_cpu: Callable[[], Any]
) -> torch.Tensor:
    """Decode bytes where they are; with `on_cpu`, and a copy, where there is no kernel for that.

    Raises:
        Unsupported: (rule ``torch-dtype``) when torch has no such type.
    """
    torch = import_torch()
    from weighbridge.kernels import device

    if device.decodes(encoding, to):
        return device.decode(encoding, {DATA: octets.contiguous().reshape(-1)}, shape, to)
    if to.name not in TORCH_DTYPES:
        raise Unsupported(f"torch has no dtype for {to}", rule="torch-dtype", hint="give a dtype")
    numbers = torch.from_numpy(on_cpu().reshape(-1).view(np.uint8)).to(octets.device)
    return numbers.view(getattr(torch, TORCH_DTYPES[to.name])).reshape(shape)  # type: ignore[no-any-return]


def _gpu(device: str | torch.device) -> torch.device:
    try:
        torch = import_torch()
    except MissingDependency as error:
        error.rule, error.got = "device", device
        raise
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise InvalidInput("names no device", rule="device", got=device, expected=_here()) from None
    if place.type != "cuda":
        raise Unsupported(
            "nothing is coded on such a device", rule="device", got=device, expected=_here()
        )
    if (place.index or 0) >= torch.cuda.device_count():
        raise Unsupported("there is no such device", rule="device", got=device, expected=_here())
    return place  # type: ignore[no-any-return]


def _here() -> str:
    count = import_torch().cuda.device_count()
    return " or ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
