"""Which points of a grid are near to those that are not in it (``iq3xs_init_impl``).

A point is a number whose digits are its codes, the first one lowest: of 3 bits each in grids of 4
magnitudes, of 2 bits in those of 8.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.kernels.ggml.grids import grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHELLS = {"iq2_xxs": 2, "iq2_xs": 2, "iq2_s": 1, "iq3_xxs": 2, "iq3_s": 3, "iq1": 3}
"""How many distances count as near: all the points at the smallest ones are neighbours."""

_BATCH = 1 << 10

_ROW = 16
"""How many neighbours are read at once: the first one stands where there are too few."""


@functools.cache
def tables(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the places of all points in a grid, and the neighbours of those not in it.

    The first table has, for each point, its index in the grid, or ``-1 - start``: from `start` on
    the second one has how many neighbours it has, and these, the nearest first. Behind the last
    one is the first one again, as often as makes them a multiple of 16.

    Example:
        >>> places, neighbours = tables("iq3_s")
        >>> places[:4].tolist(), neighbours[:3].tolist()
        ([0.0, 1.0, 2.0, -1.0], [13.0, 2.0, 10.0])
    """
    codes, base = _codes(name)
    width = codes.shape[1]
    numbers = codes @ base ** np.arange(width)
    places = np.zeros(1 + codes.max() * (base ** np.arange(width)).sum(), np.float32)
    digits = np.arange(len(places))[:, None] // base ** np.arange(width) % base
    reachable = np.flatnonzero((digits <= codes.max()).all(axis=1))
    outside = np.setdiff1d(reachable, numbers)
    places[numbers] = np.arange(len(numbers))
    near = [
        _near(outside[at : at + _BATCH], codes, base, _SHELLS[name])
        for at in range(0, len(outside), _BATCH)
    ]
    rows, columns = (np.concatenate(part) for part in zip(*near, strict=True))
    counts = np.bincount(np.searchsorted(outside, rows), minlength=len(outside))
    sizes = 1 + -(-counts // _ROW) * _ROW
    starts = np.cumsum(sizes) - sizes
    places[outside] = -1.0 - starts
    before = np.cumsum(counts) - counts
    neighbours = numbers[columns][before].astype(np.float32).repeat(sizes)
    neighbours[starts] = counts
    within = np.arange(len(columns)) - before.repeat(counts)
    neighbours[starts.repeat(counts) + 1 + within] = numbers[columns]
    return places, neighbours


def _codes(name: str) -> tuple[NDArray[np.int64], int]:
    points = grid(name)
    _, ranks = np.unique(points, return_inverse=True)
    return ranks.reshape(points.shape), 8 if points.shape[1] == 4 else 4


def _near(
    numbers: NDArray[np.int64], codes: NDArray[np.int64], base: int, shells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of points and neighbours, the latter by distance, then in the grid's order."""
    points = numbers[:, None] // base ** np.arange(codes.shape[1]) % base
    distance = ((points * points).sum(1)[:, None] + (codes * codes).sum(1)).astype(np.float32)
    distance -= 2 * (points.astype(np.float32) @ codes.T.astype(np.float32))
    shell = np.empty((shells, *distance.shape), np.bool_)
    for i in range(shells):
        least = distance.min(axis=1, keepdims=True)
        shell[i] = (distance == least) & np.isfinite(least)
        distance[shell[i]] = np.inf
    row, _, column = np.nonzero(shell.transpose(1, 0, 2))
    return numbers[row], column
