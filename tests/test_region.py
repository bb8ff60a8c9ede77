"""Regions: every one of them means the items that NumPy's own indexing means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shapes import regions_of, shapes

from weighbridge import region as regions

SHAPE_AND_REGION = shapes().flatmap(lambda shape: st.tuples(st.just(shape), regions_of(shape)))


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape)


@given(SHAPE_AND_REGION)
def test_runs_are_the_flat_indices_in_order(case: tuple) -> None:
    shape, region = case
    items = [i for first, n in regions.runs(region, shape) for i in range(first, first + n)]
    assert items == numbered(shape)[regions.slices(region)].ravel().tolist()


@given(SHAPE_AND_REGION)
def test_runs_are_as_long_as_they_can_be(case: tuple) -> None:
    shape, region = case
    items = numbered(shape)[regions.slices(region)].ravel()
    breaks = np.count_nonzero(np.diff(items) != 1) + 1
    assert sum(n > 0 for _, n in regions.runs(region, shape)) == (breaks if items.size else 0)


@given(SHAPE_AND_REGION)
def test_extent_is_the_shape_of_the_slice(case: tuple) -> None:
    shape, region = case
    assert regions.extent(region) == numbered(shape)[regions.slices(region)].shape


@given(shapes(), st.integers(1, 60), st.data())
def test_tiles_cover_every_item_once(shape: tuple, most: int, data: st.DataObject) -> None:
    units = data.draw(st.tuples(*[st.integers(1, 4)] * len(shape)))
    seen = np.zeros(shape, int)
    for tile in regions.tiles(shape, most, units):
        assert math.prod(regions.extent(tile)) <= max(most, math.prod(units))
        assert all(start % unit == 0 for (start, _), unit in zip(tile, units, strict=True))
        seen[regions.slices(tile)] += 1
    assert (seen == 1).all()


@given(shapes(), st.integers(1, 60))
def test_tiles_without_units_follow_each_other(shape: tuple, most: int) -> None:
    tiles = regions.tiles(shape, most, (1,) * len(shape))
    items = [numbered(shape)[regions.slices(tile)].ravel() for tile in tiles]
    assert np.concatenate([*items, []]).tolist() == list(range(math.prod(shape)))


@given(SHAPE_AND_REGION, st.integers(1, 4))
def test_a_widened_region_holds_the_region_in_whole_grains(case: tuple, grain: int) -> None:
    shape, region = case
    wide, inside = regions.widened(region, grain, shape)
    items = numbered(shape)
    wider = items[regions.slices(wide)]
    assert (wider[regions.slices(inside)] == items[regions.slices(region)]).all()
    if region:
        start, stop = wide[-1]
        assert start % grain == 0
        assert stop % grain == 0 or stop == shape[-1]


@pytest.mark.parametrize(
    ("start", "stop", "expected"), [(0, 0, (0, 0)), (5, 8, (4, 8)), (9, 10, (8, 10))]
)
def test_aligned_is_cut_at_the_end(start: int, stop: int, expected: tuple) -> None:
    assert regions.aligned(start, stop, 4, 10) == expected
