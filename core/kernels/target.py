"""What runs a body written in lanes: Numba's compiled code, or NumPy where there is no Numba."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.errors import InvalidInput
from weighbridge.kernels.codec import Blocks, Values, refuse_not_finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from weighbridge.encoding import Blocked
    from weighbridge.kernels.lanes import Lanes, Octets

    Body = Callable[..., Lanes | None]
    Table = NDArray[np.float32]
    Kernel = Callable[[Values, Values | None, Octets, tuple[Table, ...]], bool]


class SlowKernelsWarning(UserWarning):
    """The encoders that search for scales run in NumPy, many times slower than compiled."""


BODIES: dict[str, tuple[Body, str]] = {}
"""What `encoder` was given, by the name of the encoding: a body and the name of its grid."""


def offsets(encoding: Blocked) -> list[int]:
    """Return where each field of a block begins, in the order of its fields.

    Example:
        >>> from weighbridge.kernels.ggml.kblocks import Q4_K
        >>> offsets(Q4_K)
        [0, 2, 4, 16]
    """
    fields = encoding.dtype.fields
    return [fields[name][1] for name in encoding.dtype.names or ()] if fields else []


def encoder(encoding: Blocked, body: Body, grid: str = "") -> Callable[[Values], Blocks]:
    """Return the function of a codec that encodes as `body` says.

    Args:
        encoding: what it encodes to.
        body: sets the bytes of blocks, given their values as rows of lanes. With a grid it takes
            the grid's tables too, and returns what is not 0 where numbers are too large for it.
        grid: the name of a grid, or nothing.
    """
    BODIES[encoding.name] = body, grid

    def encode(values: Values) -> Blocks:
        return _encoded(encoding, body, values, grid)

    encode.__name__ = f"encode_{encoding.name}"
    encode.__doc__ = body.__doc__
    return encode


def weighted_encoder(
    encoding: Blocked, body: Body, grid: str = ""
) -> Callable[[Values, Values], Blocks]:
    """Return the function of a codec that encodes whole rows with importance weights.

    Args:
        encoding: what it encodes to.
        body: sets the bytes of blocks, given their values and the weights of these, both as rows
            of lanes. Its name is one that no other body has. As for `encoder` otherwise.
        grid: the name of a grid, or nothing.
    """

    def encode(rows: Values, importance: Values) -> Blocks:
        return _encoded(encoding, body, rows.reshape(-1, encoding.grain), grid, importance)

    encode.__name__ = f"encode_weighted_{encoding.name}"
    encode.__doc__ = body.__doc__
    return encode


def _encoded(
    encoding: Blocked, body: Body, values: Values, grid: str, importance: Values | None = None
) -> Blocks:
    values = np.ascontiguousarray(values, np.float32)
    data = np.empty((len(values), encoding.grain_bytes), np.uint8)
    kernel = compiled(encoding, body, grid, weighted=importance is not None)
    if kernel is None:
        refuse_not_finite(values, encoding)
        refused = in_numpy(body, values, data, grid, importance)
    else:
        refused = kernel(values, importance, data, tables_of(grid))
    if refused:
        refuse_not_finite(values, encoding)
        raise InvalidInput(
            f"{encoding} cannot hold numbers whose squares are out of float32's range",
            rule="overflow",
            got=np.abs(values).max(),
        )
    blocks: Blocks = data.view(encoding.dtype)[:, 0]
    return blocks


@np.errstate(all="ignore")
def in_numpy(
    body: Body, values: Values, data: Octets, grid: str = "", importance: Values | None = None
) -> bool:
    """Run `body` as Python: set the bytes of the blocks of `values`, a row each.

    The blocks take the numbers of `importance` in turn, from its start again behind its end.
    Tells whether some numbers are too large.
    """
    out = np.empty(data.shape[::-1], np.uint8)
    lanes = [values] if importance is None else [values, np.resize(importance, values.shape)]
    failed = body(*(np.ascontiguousarray(each.T) for each in lanes), out, *tables_of(grid))
    data[:] = out.T
    return failed is not None and bool(failed.any())


def tables_of(grid: str) -> tuple[Table, ...]:
    """Return the tables that a body with a grid takes; nothing where there is no grid."""
    if not grid:
        return ()
    # Only who encodes to such blocks needs the grids.
    from weighbridge.kernels.ggml.neighbours import tables

    return tables(grid)


_kernels: dict[str, Kernel | None] = {}
_compiling = threading.Lock()


def compiled(
    encoding: Blocked, body: Body, grid: str = "", *, weighted: bool = False
) -> Kernel | None:
    """Return `body` compiled, at once or from the cache; None where that cannot be.

    The first use of a body takes seconds, the first use in a later process a part of one.

    Warns:
        SlowKernelsWarning: once, where Numba is not installed. The environment variable
            ``WEIGHBRIDGE_KERNELS=numpy`` asks for NumPy without a warning.
    """
    name = body.__name__
    if name not in _kernels:
        with _compiling:
            if name not in _kernels:
                _kernels[name] = _compile(encoding, body, bool(grid), weighted)
    return _kernels[name]


def _compile(encoding: Blocked, body: Body, tabled: bool, weighted: bool) -> Kernel | None:
    if os.environ.get("WEIGHBRIDGE_KERNELS") == "numpy":
        return None
    try:
        from weighbridge.kernels import simd
    except ImportError as error:
        if None not in _kernels.values():
            warnings.warn(_SLOW.format(encoding, error), SlowKernelsWarning, stacklevel=2)
        return None
    sizes = encoding.grain, encoding.grain_bytes
    return simd.Kernel(body, *sizes, tabled=tabled, weighted=weighted)


_SLOW = "to encode {} takes NumPy some fifty times longer; pip install weighbridge[fast] ({})"
