"""The end of the HTML report: how it was measured, and on what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.benchmarks.figures import duration
from weighbridge.benchmarks.markup import Markup, el
from weighbridge.benchmarks.measure import REST
from weighbridge.benchmarks.run import STEADY
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.benchmarks.results import Results

METHOD = (
    "Every measurement has a process of its own. In each round every tool has a turn, each round "
    "begins with another one, and ratios are taken within a round: what slows the machine down "
    "slows all of them down.",
    "Figures are medians over the rounds; lines in charts and small figures in tables go from the "
    "lowest to the highest.",
    "Libraries are imported before the clock starts. Where calls are too short to be timed once, "
    "the time is the median of calls after the first, and the first one has a column of its own. "
    "A command is measured whole, from start to exit.",
    "Loading touches every page of the result. The sum of all bytes is compared after the clock "
    "has stopped: tools that load the same in the same dtype find the same sum.",
    "Peak memory is the kernel's high-water mark of resident bytes (VmHWM), of a call beyond what "
    "its process had before. Private bytes are those that are not pages of files, which the system "
    "may take back. What is beside the result is the peak less the result's own bytes.",
    "The page cache is warm where it is not said to be cold: the share of the input that is in it "
    "is looked up (mincore) before each measurement. A cold input is driven out (posix_fadvise); "
    f"where more than {REST:.0%} of it stay, nothing is measured, and that is said.",
    "What is read counts system calls, not the pages of mapped files.",
)

KEY = (
    ("ours", "Weighbridge"),
    ("peer", "another tool"),
    ("floor", "the floor: what the machine itself needs"),
    ("faint", "memory: pages of files"),
)


def key() -> Markup:
    """Return what the colours of the charts mean."""
    return el("ul", *(el("li", el("i", class_=kind), text) for kind, text in KEY), class_="key")


def method(results: Results) -> Iterator[Markup]:
    """Yield how it was measured."""
    yield el("h2", "Method", id="method")
    patience = (
        f"Who has taken {results.settings.patience:g} s in a case is not measured again in it, nor "
        f"who took the same time, within {STEADY:.0%}, in its first two rounds."
    )
    yield el("ul", *(el("li", sentence) for sentence in (*METHOD, patience)))
    if not any(place != "cpu" for place in results.settings.devices):
        yield el("p", "Loading to a GPU was not measured.")


def machine(results: Results) -> Iterator[Markup]:
    """Yield what it was measured on."""
    own = results.machine
    facts = {
        "Processor": f"{own.processor}, {own.cores} cores",
        "Memory": human(own.memory),
        "Devices": ", ".join(own.devices) or "none beside the CPU",
        "System": f"{own.system}, {own.file_system}",
        "Load at the end": f"{own.load}",
        "When": f"{results.when}, for {duration(results.seconds)}",
        "Made-up models": ", ".join(
            f"{role}: {name}" for role, name in results.settings.sizes.items()
        ),
        "Versions": ", ".join(f"{k} {v}" for k, v in results.versions.items() if v),
        "Not installed": ", ".join(k for k, v in results.versions.items() if not v) or "nothing",
    }
    pairs = [part for key, text in facts.items() for part in (el("dt", key), el("dd", text))]
    yield el("h2", "Machine", id="machine")
    yield el("dl", *pairs)
