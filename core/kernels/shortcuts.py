"""Compiled code for what NumPy does too, where it can be had and there is enough to do.

The environment variable ``WEIGHBRIDGE_KERNELS`` may ask for ``numpy`` in any case, or for
``compiled`` code from the first number on.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from weighbridge.encoding import DENSE
from weighbridge.kernels import native
from weighbridge.kernels.native import Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from weighbridge.encoding import Blocked, Dense
    from weighbridge.kernels.native import Code

    Shortcut = Callable[[Any, Any], Any]

# What kernels need would be no part of what `--memory` allows: here they are used where that is
# there already, or was expected to pay. A kernel takes 0.1 to 1 s to compile, the first time on a
# machine, or some ms to load; so no job waits for much longer than NumPy would have taken.
_WORTH_IT = 1 << 24
"""How many values NumPy does of each kind before a kernel is made, where that can be done."""

_WORTH_IMPORTING = 1 << 26
"""How many values are to be decoded, at least, for NumPy to take longer than Numba's import."""

_NUMBA_BYTES = 120_000_000
"""What Numba takes, the code that it makes included: half of it is private, half its own files."""

_LINKER_BYTES = 60_000_000
"""What the linker takes, if all kernels are kept: a tenth of it is private."""

_LEAST_ROOM = 60_000_000
"""What has to be left for the work itself."""

_ready: dict[str, Shortcut | None] = {}
_done: dict[str, int] = {}
_loading = threading.Lock()


def expect(counts: Mapping[tuple[str, str], int], memory: int) -> int:
    """Import what kernels need, where there is so much to make that it pays, and the memory.

    Args:
        counts: how many values are to be made soon: of which encoding, and in which one, by their
            names.
        memory: the bytes that this may take, beside the values.

    Returns:
        What it takes of them.
    """
    asked = os.environ.get("WEIGHBRIDGE_KERNELS")
    room = memory - _NUMBA_BYTES
    needed: Counter[str] = Counter()
    for (encoding, to), count in counts.items():
        needed.update(dict.fromkeys(_needed(encoding, to), count))
    if max(needed.values(), default=0) < _WORTH_IMPORTING or room < _LEAST_ROOM or asked == "numpy":
        return 0
    for name, count in needed.items():
        _count(name, count)
    return _import(needed)


def _needed(encoding: str, to: str) -> set[str]:
    """Return the kernels that make values of one encoding in another."""
    if to not in DENSE:
        return {*_needed(encoding, "f32"), *([_packing(to)] if to in _PACKED else [])}
    if encoding in DENSE:
        return {_casting(encoding, to)} if (encoding, to) in _CASTS else set()
    return {_decoding(encoding, to if to in DECODED else "f32")}


def _import(names: Iterable[str]) -> int:
    """Import what these kernels need, and return what that takes."""
    before = "llvmlite.binding" in sys.modules, "numba" in sys.modules
    try:
        if all(native.kept(name) for name in names):
            return 0 if before[0] else _LINKER_BYTES
        import numba  # noqa: F401
    except ImportError:
        return 0
    return 0 if before[1] else _NUMBA_BYTES


def decoder(encoding: Blocked, count: int, to: str = "f32") -> Shortcut | None:
    """Return what decodes the bytes of blocks; None where NumPy shall do it.

    It tells whether all is well. Where values are to have 16 bits, all are finite then, and
    otherwise NumPy has to look at them.

    Args:
        encoding: one of ggml's; there are none for others.
        count: how many values are to be decoded now. They are counted.
        to: what the values become, one of `DECODED`; results are uint16 where it has 16 bits.
    """
    signature = Signature("u1", encoding.grain_bytes, DECODED[to], encoding.grain)
    name = _decoding(encoding.name, to)
    return _in_time(name, signature, partial(_decoder, encoding, to, name, signature), count)


def packer(encoding: Blocked, count: int) -> Shortcut | None:
    """Return what encodes float32 values and tells whether all were finite, likewise."""
    if encoding.name not in _PACKED:
        return None
    signature = Signature("f4", encoding.grain, "u1", encoding.grain_bytes)
    name = _packing(encoding.name)
    return _in_time(name, signature, partial(_packer, encoding, name, signature), count)


def caster(source: Dense, to: Dense, count: int) -> Shortcut | None:
    """Return what casts bits of 16 or more numbers and tells whether all have a place, likewise."""
    if (source.name, to.name) not in _CASTS or count < _LEAST:
        return None
    signature = Signature(f"u{source.bits // 8}", 1, f"u{to.bits // 8}", 1)
    name = _casting(source.name, to.name)
    code = partial(_caster, source.name, to.name, name, signature)
    return _in_time(name, signature, code, count)


_PACKED = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mxfp4", "tq1_0", "tq2_0"}

DECODED = {"f32": "f4", "f16": "u2", "bf16": "u2"}
"""What blocks are decoded to in compiled code -> the type of the results, as NumPy spells it."""

_CASTS = set(itertools.permutations(DECODED, 2))

_LEAST = 16
"""Numbers that a compiled cast does at once."""


def _decoding(encoding: str, to: str) -> str:
    return f"decode_{encoding}_{to}"


def _packing(encoding: str) -> str:
    return f"pack_{encoding}"


def _casting(source: str, to: str) -> str:
    return f"cast_{source}_{to}"


# Numba is imported where code has to be made, and nowhere else.


def _decoder(encoding: Blocked, to: str, name: str, signature: Signature) -> Code | None:
    from weighbridge.kernels import simd_blocks

    return simd_blocks.decoder(encoding, to, name, signature)


def _packer(encoding: Blocked, name: str, signature: Signature) -> Code | None:
    from weighbridge.kernels import simd_blocks

    return simd_blocks.packer(encoding, name, signature)


def _caster(source: str, to: str, name: str, signature: Signature) -> Code | None:
    from weighbridge.kernels import simd_blocks

    return simd_blocks.caster(source, to, name, signature)


def _in_time(
    name: str, signature: Signature, code: Callable[[], Code | None], count: int
) -> Shortcut | None:
    if name in _ready:
        return _ready[name]
    _count(name, count)
    # While one thread compiles, others go on in NumPy.
    if _done[name] < _enough() or not _loading.acquire(blocking=False):
        return None
    try:
        if name not in _ready:
            _ready[name] = _load(name, signature, code)
    finally:
        _loading.release()
    return _ready[name]


def _count(name: str, count: int) -> None:
    _done[name] = _done.get(name, 0) + count


def _enough() -> float:
    if os.environ.get("WEIGHBRIDGE_KERNELS") == "compiled":
        return 0
    return _WORTH_IT if "llvmlite.binding" in sys.modules else math.inf


def _load(name: str, signature: Signature, code: Callable[[], Code | None]) -> Shortcut | None:
    """Return a shortcut, or None: unlike the searches, all this is bearable in NumPy."""
    if os.environ.get("WEIGHBRIDGE_KERNELS") == "numpy":
        return None
    try:
        return native.kernel(name, signature, code)
    except (ImportError, native.NotAlone):
        return None
