"""What Numba compiles, and the encoders written in lanes, run over 16 blocks at a time.

Compiled once and kept in a folder of the user's cache that is named for a hash of the sources, so
that a changed search is never answered by old code.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba.core import caching, types
from numba.extending import register_jitable

from weighbridge.kernels import lanes
from weighbridge.kernels.ggml import iencoders, kencoders, mencoders, search
from weighbridge.kernels.simd_lanes import WIDTH, transpose

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from numpy.typing import NDArray

_BODIES = (search, kencoders, iencoders, mencoders)
"""Where the functions are that are written in lanes."""


def own_functions(module: ModuleType) -> list[Any]:
    """Return the functions that a module defines."""
    members = inspect.getmembers(module, inspect.isfunction)
    return [member for _, member in members if member.__module__ == module.__name__]


for _module in _BODIES:
    for _function in own_functions(_module):
        register_jitable(_function)


@functools.cache
def source_hash() -> str:
    """Return a name for the state of all the sources that compiled code depends on."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of compiled kernels."""
    root = os.environ.get("WEIGHBRIDGE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    return base / "weighbridge" / "kernels" / source_hash()


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Where Numba keeps what it compiled, and what tells that it is out of date: the folder."""

    def __init__(self, function: Any, file: str) -> None:
        self._name: str = function.__name__

    def ensure_cache_path(self) -> None:
        """Do nothing: whoever set the cache has made the folder."""

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return source_hash()

    def get_disambiguator(self) -> str:
        return self._name

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Locator:
        return cls(function, file)


class _CacheImpl(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _CacheImpl


def source_of(kind: Any) -> Any:
    """Return the type of an array that is only read: of a file's pages, it may be, or of others."""
    return types.Array(kind, 1, "C", readonly=True)


def compiled(function: Any, name: str, kinds: tuple[Any, ...]) -> Any:
    """Return Numba's object for `function`, compiled for arguments of `kinds`, or loaded.

    Args:
        function: holds no lock and raises nothing.
        name: what it is called in the cache.
        kinds: Numba's types.
    """
    function.__name__ = function.__qualname__ = name
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    if _is_writable(cache_folder()):
        dispatcher._cache = _Cache(function)
    dispatcher.compile(kinds)
    # Else it would compile again for arrays that may be written as well as read.
    dispatcher.disable_compile()
    return dispatcher


class Kernel:
    """An encoder compiled.

    Called with rows of values, a block each, and rows of bytes for the blocks, it encodes the one
    into the other without holding the interpreter's lock, and tells whether a value was not finite
    or too large: the bytes mean nothing then.

    Attributes:
        dispatcher: Numba's object.
    """

    def __init__(
        self, body: Callable[..., Any], grain: int, nbytes: int, *, tabled: bool = False
    ) -> None:
        """Compile `body`, which sets `nbytes` bytes for `grain` values, or load it.

        Args:
            body: see `weighbridge.kernels.target.encoder`.
            grain: values of a block.
            nbytes: bytes of a block.
            tabled: whether `body` takes the tables of a grid.
        """
        run = _with_tables(body) if tabled else _without_tables(body)
        # Compiled functions of one name are one, wherever they were loaded from.
        run.__name__ = run.__qualname__ = f"run_{body.__name__}"
        function = _over_all_blocks(run, grain, nbytes)
        kinds = (
            source_of(numba.float32),
            source_of(numba.uint32),
            numba.uint8[::1],
            numba.float32[::1],
            numba.float32[::1],
        )
        self.dispatcher = compiled(function, f"encode_{body.__name__}", kinds)

    def __call__(
        self,
        values: NDArray[np.float32],
        blocks: NDArray[np.uint8],
        places: NDArray[np.float32],
        neighbours: NDArray[np.float32],
    ) -> bool:
        """Encode rows; the tables may be empty where the body takes none."""
        flat = values.reshape(-1)
        bits = flat.view(np.uint32)
        return bool(self.dispatcher(flat, bits, blocks.reshape(-1), places, neighbours))


def _with_tables(body: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, out: Any, places: Any, neighbours: Any) -> Any:
        return lanes.anyl(body(x, out, places, neighbours) != 0.0)

    return register_jitable(run)  # type: ignore[no-any-return]


def _without_tables(body: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, out: Any, places: Any, neighbours: Any) -> Any:
        body(x, out)
        return False

    return register_jitable(run)  # type: ignore[no-any-return]


def _over_all_blocks(run: Callable[..., Any], grain: int, nbytes: int) -> Callable[..., Any]:
    """Return a function that calls `run` for 16 blocks after the other.

    It is written in loops: Numba compiles those faster than words on whole arrays.
    """
    squares = nbytes - nbytes % WIDTH

    def encode(values: Any, bits: Any, blocks: Any, places: Any, neighbours: Any) -> Any:
        refused = False
        x = lanes.scratch(values, grain)
        out = np.empty((nbytes, WIDTH), np.uint8)
        largest = np.uint32(0)
        for i in range(len(bits)):
            magnitude = bits[i] & np.uint32(0x7FFFFFFF)
            largest = magnitude if magnitude > largest else largest
        total = len(blocks) // nbytes
        for start in range(0, total, WIDTH):
            whole = start + WIDTH <= total
            if whole:
                for i in range(0, grain, WIDTH):
                    transpose(values, start * grain + i, grain, x, i * WIDTH, WIDTH)
            else:
                for lane in range(WIDTH):
                    block = start + lane if start + lane < total else start
                    for i in range(grain):
                        x[i, lane] = values[block * grain + i]
            refused = run(x, out, places, neighbours) or refused
            first = 0
            if whole:
                first = squares
                for i in range(0, squares, WIDTH):
                    transpose(out, i * WIDTH, WIDTH, blocks, start * nbytes + i, nbytes)
            for lane in range(WIDTH if whole else total - start):
                for i in range(first, nbytes):
                    blocks[(start + lane) * nbytes + i] = out[i, lane]
        return refused or largest >= np.uint32(0x7F800000)

    return encode


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
