"""Compiled code for what NumPy does too, where Numba is at hand and there is enough to do.

The environment variable ``WEIGHBRIDGE_KERNELS`` may ask for ``numpy`` in any case, or for
``compiled`` code from the first number on.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from weighbridge.encoding import Blocked, Dense

    Shortcut = Callable[[Any, Any], Any]

# Numba takes 0.3 s to import and 100 MB, which would be no part of what `--memory` allows: here it
# is used where it is there already, or was expected to pay. A kernel then takes 0.1 to 0.5 s to
# compile, the first time on a machine, or some ms to load; so no job waits for much longer than
# NumPy would have taken.
_WORTH_IT = 1 << 24
"""How many values NumPy does of each kind before a kernel is made, where Numba is imported."""

_WORTH_IMPORTING = 1 << 26
"""How many values are to be decoded, at least, for NumPy to take longer than Numba's import."""

_IMPORT_BYTES = 100_000_000
"""What Numba takes, the code that it makes included: half of it is private, half its own files."""

_ready: dict[str, Shortcut | None] = {}
_done: dict[str, int] = {}
_loading = threading.Lock()


def expect(counts: Mapping[tuple[str, str], int], memory: int) -> int:
    """Import Numba where so much is to be decoded that it pays, and where it may take the memory.

    Args:
        counts: how many values of blocks are to be decoded soon: of which encoding, and to which
            dense one, by their names.
        memory: the bytes that this may take, beside the values.

    Returns:
        What it takes of them.
    """
    asked = os.environ.get("WEIGHBRIDGE_KERNELS")
    if sum(counts.values()) < _WORTH_IMPORTING or memory < 2 * _IMPORT_BYTES or asked == "numpy":
        return 0
    taken = 0 if "numba" in sys.modules else _IMPORT_BYTES
    try:
        import numba  # noqa: F401
    except ImportError:
        return 0
    for (name, to), count in counts.items():
        _count(f"decode {name}", count)
        _count(f"f32 {to}", count)
    return taken


def decoder(encoding: Blocked, count: int) -> Shortcut | None:
    """Return what decodes the bytes of blocks into float32 values; None where NumPy shall do it.

    Args:
        encoding: one of ggml's; there are none for others.
        count: how many values are to be decoded now. They are counted.
    """
    return _in_time(f"decode {encoding.name}", partial(_decoder, encoding), count)


def packer(encoding: Blocked, count: int) -> Shortcut | None:
    """Return what encodes float32 values and tells whether all were finite, likewise."""
    if encoding.name not in _PACKED:
        return None
    return _in_time(f"encode {encoding.name}", partial(_packer, encoding), count)


def caster(source: Dense, to: Dense, count: int) -> Shortcut | None:
    """Return what casts bits of 16 or more numbers and tells whether all have a place, likewise."""
    if (source.name, to.name) not in _CASTS or count < _LEAST:
        return None
    return _in_time(f"{source.name} {to.name}", partial(_caster, source.name, to.name), count)


_PACKED = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mxfp4", "tq1_0", "tq2_0"}

_CASTS = {("f16", "f32"), ("bf16", "f32"), ("f32", "f16"), ("f32", "bf16")}

_LEAST = 16
"""Numbers that a compiled cast does at once."""


def _decoder(encoding: Blocked, blocks: ModuleType) -> Shortcut | None:
    found: Shortcut | None = blocks.decoder(encoding)
    return found


def _packer(encoding: Blocked, blocks: ModuleType) -> Shortcut | None:
    found: Shortcut | None = blocks.packer(encoding)
    return found


def _caster(source: str, to: str, blocks: ModuleType) -> Shortcut | None:
    found: Shortcut | None = blocks.caster(source, to)
    return found


def _in_time(
    name: str, build: Callable[[ModuleType], Shortcut | None], count: int
) -> Shortcut | None:
    if name in _ready:
        return _ready[name]
    _count(name, count)
    # While one thread compiles, others go on in NumPy.
    if _done[name] < _enough() or not _loading.acquire(blocking=False):
        return None
    try:
        if name not in _ready:
            _ready[name] = _load(build)
    finally:
        _loading.release()
    return _ready[name]


def _count(name: str, count: int) -> None:
    _done[name] = _done.get(name, 0) + count


def _enough() -> float:
    if os.environ.get("WEIGHBRIDGE_KERNELS") == "compiled":
        return 0
    return _WORTH_IT if "numba" in sys.modules else math.inf


def _load(build: Callable[[ModuleType], Shortcut | None]) -> Shortcut | None:
    """Return a shortcut, or None: unlike the searches, all this is bearable in NumPy."""
    if os.environ.get("WEIGHBRIDGE_KERNELS") == "numpy":
        return None
    try:
        from weighbridge.kernels import simd_blocks
    except ImportError:
        return None
    return build(simd_blocks)
