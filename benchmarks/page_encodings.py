"""The speed of encodings in the HTML report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.benchmarks.figures import times
from weighbridge.benchmarks.markup import Markup, el
from weighbridge.benchmarks.page_case import sortable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from weighbridge.benchmarks.results import Speed

HEADINGS = (
    "encoding", "job", "GB/s", "libgguf", "gguf or NumPy", "copy", "to libgguf", "to gguf or NumPy",
    "to copy", "bytes",
)  # fmt: skip


def encodings(speeds: Sequence[Speed]) -> Iterator[Markup]:
    """Yield a table of them; nothing where none were measured."""
    if not speeds:
        return
    yield el("h2", "Encodings", id="encodings")
    yield el(
        "p",
        "One core: GB of float32 in a second of processor time, the best of three rounds; of a "
        "cast, the mean of both sides.",
        class_="soft",
    )
    yield el("div", sortable(HEADINGS, map(_line, speeds), "Speed of encodings"), class_="case")


def _line(speed: Speed) -> Markup:
    rates = (speed.ours, speed.theirs, speed.python, speed.copy)
    ratios = (other and speed.ours / other for other in rates[1:])
    cells = [
        *(el("td", text, data_value=text) for text in (speed.name, speed.job)),
        *(_figure(rate, "{:.3f}".format) for rate in rates),
        *(_figure(ratio, times) for ratio in ratios),
        el("td", "same" if speed.same else "differ", data_value=int(speed.same)),
    ]
    return el("tr", *cells)


def _figure(figure: float | None, write: Callable[[float], str]) -> Markup:
    if figure is None:
        return el("td", data_value="")
    return el("td", write(figure), data_value=figure)
