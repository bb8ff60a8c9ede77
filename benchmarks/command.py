"""``weighbridge bench``: measure, show, keep, compare."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weighbridge.benchmarks import compare as comparison
from weighbridge.benchmarks import page, readme, report, results
from weighbridge.benchmarks.cases import CASES, on_device
from weighbridge.benchmarks.contender import no_device
from weighbridge.benchmarks.exports import EXPORTS
from weighbridge.benchmarks.inputs import FULL, QUICK, Workshop, cache_folder, with_main
from weighbridge.benchmarks.machine import machine, versions
from weighbridge.benchmarks.made import SHAPES
from weighbridge.benchmarks.own import cases_of
from weighbridge.benchmarks.run import PATIENCE, QUICK_PATIENCE, run_case
from weighbridge.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from weighbridge.benchmarks.case import Case

QUICK_ROUNDS = 2

INTERRUPTED = 130
"""The exit code of what Ctrl-C has ended, as shells have it."""

Sources = Annotated[
    list[Path] | None,
    typer.Argument(metavar="SRC", help="Models of yours; made-up ones by default."),
]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def bench(
    sources: Sources = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to load: cpu, cuda, cuda:1; repeatable. By default what is there."
        ),
    ] = None,
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Measure other tools.")] = True,
    cold: Annotated[
        bool, typer.Option("--cold", help="Measure reading with an empty page cache, too.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="The main cases, on small inputs, in two rounds.")
    ] = False,
    make: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"The made-up model: {', '.join(SHAPES)}."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE",
            help="These cases, as open-gguf, 'decode-*', export or encodings; repeatable.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="How often each contender is measured.", min=1)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results as JSON.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--readme", metavar="FILE", help="Write the short table between the file's markers."
        ),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Show results as JSON, measure nothing."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="Compare two results; exit 1 on a regression."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="By how much a case may be worse, as a share.", min=0.0)
    ] = 0.25,
    work_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where inputs are made and kept (7 GB), results written."),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the cases.")] = False,
) -> None:
    """Measure how fast models open, load and convert, in how much memory, beside other tools.

    Every measurement has a process of its own. Inputs are made once and kept in the cache folder.
    Ctrl-C ends the run after the cases that are done: their results are shown and written.
    """
    if compare is not None:
        _compare(*compare, threshold)
        return
    if again is not None:
        _give(results.read(again), json, html, markdown)
        return
    cases = _cases(sources or [], device, make)
    if quick and not sources and not only:
        cases = [case for case in cases if case.quick]
    cases = chosen([*cases, *(EXPORTS if only and not sources else ())], only)
    cases = [case if peers else case.without_peers() for case in cases]
    cases += [case.when_cold() for case in cases if cold and case.group in READING]
    if list_only:
        typer.echo("\n".join(f"{case.name:28} {case.title}" for case in cases))
        return
    shop = _workshop(work_dir, with_main(QUICK if quick else FULL, make))
    rounds = rounds or (QUICK_ROUNDS if quick else None)
    patience = QUICK_PATIENCE if quick else PATIENCE
    settings = results.Settings(shop.sizes, rounds, patience, places(device))
    found = _measured(cases, shop, settings)
    if ENCODINGS in (only or ()) and not found.interrupted:
        found = replace(found, encodings=_encodings())
    _give(found, json, html, None if found.interrupted else markdown)
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)


ENCODINGS = "encodings"
"""What ``--only`` takes for the speed of ggml's encodings, which is no case of a model."""

ROWS = 512
"""Rows of 1024 values that are encoded."""

READING = ("Open", "One tensor", "Load all", "Decode to BF16")
"""The groups of cases that read; more is to be measured of them when the page cache is cold."""


def _cases(sources: list[Path], devices: list[str] | None, make: str | None) -> list[Case]:
    """Return the cases of models, or those of the made-up and the real ones."""
    if sources and make:
        raise InvalidInput("models of yours, or a made-up one?", rule="usage", got=make)
    where = places(devices)
    if sources:
        return cases_of(sources, where)
    others = [case for place in where if place != "cpu" for case in on_device(place)]
    return [*(CASES if "cpu" in where else ()), *others]


def places(devices: list[str] | None) -> list[str]:
    """Return where models are loaded: where it is asked for, or wherever it can be."""
    return devices or ["cpu", *(["cuda"] if no_device("cuda") is None else [])]


def chosen(cases: list[Case], only: list[str] | None) -> list[Case]:
    """Return the cases that any of the patterns fits; all where there are none.

    Raises:
        InvalidInput: (rule ``case``) for a pattern that fits none.
    """
    for pattern in only or ():
        if not any(_fits(case, pattern) for case in cases) and pattern != ENCODINGS:
            names = ", ".join([*(case.name for case in cases), ENCODINGS])
            raise InvalidInput("there is no such case", rule="case", got=pattern, expected=names)
    return [case for case in cases if not only or any(_fits(case, each) for each in only)]


def _fits(case: Case, pattern: str) -> bool:
    """Tell whether a pattern is that of a case's name, or its group's name."""
    return fnmatchcase(case.name, pattern) or case.group.lower() == pattern


def _workshop(folder: Path | None, sizes: dict[str, str]) -> Workshop:
    if sys.platform != "linux":
        raise Unsupported("memory is measured through Linux' /proc", rule="platform")
    place = (folder or cache_folder()).absolute()
    place.mkdir(parents=True, exist_ok=True)
    _tell(f"inputs are in {place}\n")
    return Workshop(place, sizes)


def _measured(cases: list[Case], shop: Workshop, settings: results.Settings) -> results.Results:
    when, start = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    found: list[results.CaseResult] = []
    try:
        for case in cases:
            rounds = settings.rounds or case.rounds
            found.append(run_case(case, shop, rounds, _tell, settings.patience))
    except KeyboardInterrupt:
        _tell("interrupted\n")
    took = round(time.monotonic() - start, 1)
    return results.Results(
        machine(shop.folder),
        when,
        took,
        versions(),
        settings,
        found,
        interrupted=len(found) < len(cases),
    )


def _encodings() -> list[results.Speed]:
    """Measure ggml's encodings, compiled, and casts."""
    import numpy as np

    from weighbridge.benchmarks.encodings import speeds

    os.environ.setdefault("WEIGHBRIDGE_KERNELS", "compiled")
    values = np.random.default_rng(0).standard_normal((ROWS, 1024)).astype(np.float32)
    return list(speeds(None, values))


def _give(
    found: results.Results, json: Path | None, html: Path | None, markdown: Path | None
) -> None:
    """Print results, and write them where they are asked for."""
    report.show(found, report.console())
    if json is not None:
        found.write(json)
    if html is not None:
        html.write_text(page.page(found), encoding="utf-8")
    if markdown is not None:
        readme.insert(markdown, readme.markdown(found))


def _compare(old: Path, new: Path, threshold: float) -> None:
    changes = comparison.changes(results.read(old), results.read(new), threshold)
    report.console().print(comparison.table(changes))
    if any(change.worse for change in changes):
        raise typer.Exit(1)


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{text}", nl=False, err=True)
