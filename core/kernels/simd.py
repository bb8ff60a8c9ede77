"""What Numba compiles, and the encoders written in lanes, run over 16 blocks at a time.

Compiled once and kept in a folder of the user's cache that is named for a hash of the sources, so
that a changed search is never answered by old code.
"""

from __future__ import annotations

import importlib
import inspect
import os
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba.core import caching, types
from numba.extending import register_jitable

from weighbridge.kernels import lanes
from weighbridge.kernels.native import Code, Signature, cache_folder, source_hash
from weighbridge.kernels.simd_lanes import WIDTH, transpose
from weighbridge.kernels.simd_whole import whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

_BODIES = tuple(
    importlib.import_module(f"weighbridge.kernels.ggml.{name}")
    for name in (
        "groups",
        "iencoders",
        "iq1encoders",
        "iq1search",
        "iq2encoders",
        "iq4encoders",
        "kencoders",
        "kweighted",
        "lweighted",
        "mencoders",
        "points",
        "search",
    )
)
"""Where the functions are that are written in lanes."""


def own_functions(module: ModuleType) -> list[Any]:
    """Return the functions that a module defines."""
    members = inspect.getmembers(module, inspect.isfunction)
    return [member for _, member in members if member.__module__ == module.__name__]


for _module in _BODIES:
    for _function in own_functions(_module):
        register_jitable(no_cfunc_wrapper=True)(_function)


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


def code_of(function: Any, name: str, signature: Signature) -> Code:
    """Return the code of a function of an array, its number of units, and an array of results.

    Args:
        function: holds no lock, raises nothing, and returns a truth.
        name: what Numba calls it.
        signature: the arrays.
    """
    reads, sets = signature.reads, signature.sets

    def run(source: Any, units: Any, results: Any) -> Any:
        return function(numba.carray(source, units * reads), units,
                        numba.carray(results, units * sets))  # fmt: skip

    function = register_jitable(no_cfunc_wrapper=True)(function)
    run.__name__ = run.__qualname__ = name
    source, results = (
        types.misc.CPointer(numba.from_dtype(np.dtype(kind)))
        for kind in (signature.source, signature.result)
    )
    with whole(name):
        made = numba.cfunc(types.boolean(source, types.intp, results), error_model="numpy")(run)
    return Code(made.inspect_llvm(), made.native_name.removeprefix("cfunc."))


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
    with whole(name):
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
        self,
        body: Callable[..., Any],
        grain: int,
        nbytes: int,
        *,
        tabled: bool = False,
        weighted: bool = False,
    ) -> None:
        """Compile `body`, which sets `nbytes` bytes for `grain` values, or load it.

        Args:
            body: see `weighbridge.kernels.target.encoder`.
            grain: values of a block.
            nbytes: bytes of a block.
            tabled: whether `body` takes the tables of a grid.
            weighted: whether `body` takes importance weights.
        """
        run = _with_tables(body) if tabled else _without_tables(body)
        function = _over_all_blocks(run, grain, nbytes, weighted)
        kinds = (
            source_of(numba.float32),
            source_of(numba.uint32),
            source_of(numba.float32),
            numba.uint8[::1],
            types.containers.UniTuple(numba.float32[::1], 2 if tabled else 0),
        )
        self.dispatcher = compiled(function, f"encode_{body.__name__}", kinds)
        self._grain = grain

    def __call__(
        self,
        values: NDArray[np.float32],
        importance: NDArray[np.float32] | None,
        blocks: NDArray[np.uint8],
        tables: tuple[NDArray[np.float32], ...] = (),
    ) -> bool:
        """Encode rows; blocks take the numbers of `importance` in turn, and again from its start.

        Its length is a multiple of that of a block.
        """
        flat = values.reshape(-1)
        bits = flat.view(np.uint32)
        weights = np.empty(0, np.float32)
        if importance is not None:
            # However many blocks a row has, sixteen in a row are without a gap.
            weights = np.resize(importance, importance.size + (WIDTH - 1) * self._grain)
        return bool(self.dispatcher(flat, bits, weights, blocks.reshape(-1), tables))


def _named(run: Callable[..., Any], body: Callable[..., Any]) -> Callable[..., Any]:
    """Name a function for `body`: compiled functions of one name are one, wherever loaded from."""
    run.__name__ = run.__qualname__ = f"run_{body.__name__}"
    return register_jitable(no_cfunc_wrapper=True)(run)  # type: ignore[no-any-return]


def _with_tables(body: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        return lanes.anyl(body(*arguments))

    return _named(run, body)


def _without_tables(body: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        body(*arguments)
        return False

    return _named(run, body)


def _over_all_blocks(
    run: Callable[..., Any], grain: int, nbytes: int, weighted: bool
) -> Callable[..., Any]:
    """Return a function that calls `run` for 16 blocks after the other.

    It is written in loops: Numba compiles those faster than words on whole arrays.
    """
    squares = nbytes - nbytes % WIDTH
    weighed = grain if weighted else 0

    def encode(values: Any, bits: Any, weights: Any, blocks: Any, tables: Any) -> Any:
        refused = False
        x = lanes.scratch(values, grain)
        w = lanes.scratch(values, weighed)
        out = np.empty((nbytes, WIDTH), np.uint8)
        largest = np.uint32(0)
        for i in range(len(bits)):
            magnitude = bits[i] & np.uint32(0x7FFFFFFF)
            largest = magnitude if magnitude > largest else largest
        total = len(blocks) // nbytes
        period = len(weights) - (WIDTH - 1) * grain
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
            for i in range(0, weighed, WIDTH):
                transpose(weights, start * grain % period + i, grain, w, i * WIDTH, WIDTH)
            if weighted:
                refused = run(x, w, out, *tables) or refused
            else:
                refused = run(x, out, *tables) or refused
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
