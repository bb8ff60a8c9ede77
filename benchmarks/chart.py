"""Bar charts: SVG whose lengths are shares of the width, under words that wrap as they must."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.benchmarks.figures import times
from weighbridge.benchmarks.markup import Markup, el

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from weighbridge.benchmarks.results import Spread

BAR, AXIS = 16, 22
"""Pixels: the height of a bar, and of the axis below all bars."""

ROUND = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10)
"""What the ends of axes begin with."""


@dataclass(frozen=True)
class Bar:
    """One line of a chart.

    Attributes:
        name: stands over it.
        spread: how long it is, and how long it has been.
        label: the figure in words.
        kind: ``ours``, ``peer`` or ``floor``.
        solid: the part of it that is drawn solid; None for all.
    """

    name: str
    spread: Spread
    label: str
    kind: str
    solid: float | None = None


def bars(rows: Sequence[Bar], unit: Callable[[float], str]) -> Markup:
    """Return a chart of figures from 0 on, the spread as a line.

    Args:
        rows: its bars.
        unit: writes a figure of the axis with its unit.
    """
    end = _round_up(max((row.spread.high for row in rows), default=0.0))
    ticks = [(0.0, "0"), (0.5, unit(end / 2)), (1.0, unit(end))]
    return _chart(rows, [_lengths(row, end) for row in rows], ticks, lambda figure: figure / end)


def _lengths(row: Bar, end: float) -> tuple[Markup, Markup]:
    """Return a bar: all of it, and over that what is solid of it."""
    length = row.spread.median
    solid = length if row.solid is None else min(row.solid, length)
    return _rect(0, length / end, f"{row.kind} faint"), _rect(0, solid / end, row.kind)


def ratios(rows: Sequence[Bar]) -> Markup:
    """Return a chart of ratios, from 1 to the right and to the left, on a logarithmic axis.

    Args:
        rows: its bars; the colour of one tells on which side of 1 it is.
    """
    low = min((row.spread.low for row in rows), default=1.0)
    high = max((row.spread.high for row in rows), default=1.0)
    first, last = math.floor(min(_log(low), -0.3)), math.ceil(max(_log(high), 0.3))

    def place(ratio: float) -> float:
        return (_log(ratio) - first) / (last - first)

    ticks = [(place(10.0**power), f"{10.0**power:g}x") for power in range(first, last + 1)]
    return _chart(rows, [(_side(row, place),) for row in rows], ticks, place)


def _log(ratio: float) -> float:
    return math.log10(max(ratio, 1e-6))


def _side(row: Bar, place: Callable[[float], float]) -> Markup:
    start, end = place(1.0), place(row.spread.median)
    kind = "ahead" if row.spread.median >= 1 else "behind"
    return _rect(min(start, end), abs(end - start), kind)


def _rect(start: float, length: float, kind: str) -> Markup:
    place = {"x": _percent(start), "width": _percent(length)}
    return el("rect", **place, y=1, height=BAR - 2, rx=2, class_=kind)


def _whisker(low: float, high: float) -> Iterator[Markup]:
    """Yield the line from the lowest to the highest figure, and its ends."""
    middle = BAR // 2
    yield _line(low, high, middle, middle, "spread")
    for end in (low, high):
        yield _line(end, end, middle - 4, middle + 4, "spread")


def _line(start: float, end: float, top: float, bottom: float, kind: str) -> Markup:
    across = {"x1": _percent(start), "x2": _percent(end)}
    return el("line", **across, y1=top, y2=bottom, class_=kind)


def _chart(
    rows: Sequence[Bar],
    drawn: Sequence[Sequence[Markup]],
    ticks: Sequence[tuple[float, str]],
    place: Callable[[float], float],
) -> Markup:
    """Return rows of words and bars, and an axis below.

    Args:
        rows: what the words are taken from.
        drawn: the bar of each row.
        ticks: (place, text) of the axis.
        place: where a figure is.
    """
    grid = [_line(at, at, 0, BAR, "grid") for at, _ in ticks]
    texts = [
        el("text", text, x=_percent(at), y=AXIS - 7, class_=f"tick {_anchor(at)}")
        for at, text in ticks
    ]
    lines = [
        el("div", _words(row), _svg(BAR, *grid, *bar, *_whisker(*_ends(row, place))), class_="bar")
        for row, bar in zip(rows, drawn, strict=True)
    ]
    return el("div", *lines, _svg(AXIS, *texts), class_="chart")


def _ends(row: Bar, place: Callable[[float], float]) -> tuple[float, float]:
    return place(row.spread.low), place(row.spread.high)


def _words(row: Bar) -> Markup:
    name = el("span", row.name, class_=f"name {row.kind}")
    return el("div", name, el("span", row.label, class_="label"), class_="words")


def _svg(height: int, *inner: Markup) -> Markup:
    return el("svg", *inner, width="100%", height=height, aria_hidden="true")


def _anchor(share: float) -> str:
    return "start" if share <= 0 else "end" if share >= 1 else "middle"


def _percent(share: float) -> str:
    return f"{max(share, 0.0) * 100:.2f}%"


def _round_up(figure: float) -> float:
    """Return the next round number.

    Example:
        >>> _round_up(0.034), _round_up(7), _round_up(0)
        (0.04, 8.0, 1.0)
    """
    if figure <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(figure))
    return next(round(step * power, 12) for step in ROUND if step * power >= figure)


def compared(ratio: float) -> str:
    """Say how much faster something is than another.

    Example:
        >>> compared(12.3), compared(1.02), compared(0.25)
        ('12.3x as fast', 'as fast', '4.00x slower')
    """
    if 0.95 <= ratio <= 1.05:
        return "as fast"
    return f"{times(ratio)} as fast" if ratio > 1 else f"{times(1 / ratio)} slower"
