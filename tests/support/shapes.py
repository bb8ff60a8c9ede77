"""Strategies for shapes, regions of them, and indices into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from weighbridge.region import Region, Shape


def shapes(axes: int = 3, side: int = 6) -> st.SearchStrategy[Shape]:
    """Return shapes of none to `axes` axes, each of none to `side` items."""
    return st.lists(st.integers(0, side), max_size=axes).map(tuple)


@st.composite
def regions_of(draw: st.DrawFn, shape: Shape) -> Region:
    """Return regions of `shape`, empty ones too."""
    bounds = [sorted(draw(st.tuples(*[st.integers(0, length)] * 2))) for length in shape]
    return tuple((start, stop) for start, stop in bounds)


def indices_of(shape: Shape) -> st.SearchStrategy[Any]:
    """Return indices as NumPy takes them: integers, slices with steps, ``...``, fewer than axes."""
    axes = st.tuples(*map(_index, shape))
    return axes.flatmap(lambda items: st.sampled_from(_spellings(items)))


def _index(length: int) -> st.SearchStrategy[Any]:
    slices = st.slices(length)
    return slices if not length else slices | st.integers(-length, length - 1)


def _spellings(items: tuple[Any, ...]) -> list[Any]:
    shorter = [items[:count] for count in range(len(items) + 1)]
    dotted = [(*items[:at], ..., *items[end:]) for at in range(len(items) + 1)
              for end in range(at, len(items) + 1)]  # fmt: skip
    alone = [items[0]] if items else [...]
    return [*shorter, *dotted, *alone]
