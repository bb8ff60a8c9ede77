"""``python -m weighbridge.benchmarks``: measure, show, keep."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weighbridge.benchmarks import report, results
from weighbridge.benchmarks.cases import CASES
from weighbridge.benchmarks.inputs import FULL, QUICK, Workshop
from weighbridge.benchmarks.machine import machine, versions
from weighbridge.benchmarks.run import run_case
from weighbridge.errors import Error, InvalidInput, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.benchmarks.cases import Case

QUICK_ROUNDS = 2

NAMES = ", ".join(case.name for case in CASES)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmarks(
    quick: Annotated[bool, typer.Option("--quick", help="Small inputs, two rounds.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"One case; may be repeated: {NAMES}.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="How often each contender is measured.", min=1)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Write the table between the markers of this file.")
    ] = None,
    again: Annotated[
        Path | None, typer.Option("--from", help="Show results as JSON, measure nothing.")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Where inputs and outputs are written: 10 GB.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the inputs in --work-dir for the next run.")
    ] = False,
) -> None:
    """Measure Weighbridge beside the tools that people use."""
    try:
        chosen = _chosen(only)
        if again is not None:
            found = results.read(again)
        else:
            with _workshop(work_dir, quick=quick, keep=keep) as shop:
                found = _measured(chosen, shop, QUICK_ROUNDS if quick else None, rounds)
        report.show(found, report.console())
        if json is not None:
            found.write(json)
        if readme is not None:
            report.insert(readme, report.markdown(found))
    except Error as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _chosen(only: list[str] | None) -> list[Case]:
    unknown = set(only or ()) - {case.name for case in CASES}
    if unknown:
        raise typer.BadParameter(f"no case {', '.join(sorted(unknown))}; there are {NAMES}")
    return [case for case in CASES if not only or case.name in only]


@contextmanager
def _workshop(folder: Path | None, *, quick: bool, keep: bool) -> Iterator[Workshop]:
    if sys.platform != "linux":
        raise Unsupported("memory is measured through Linux' /proc", rule="platform")
    sizes = QUICK if quick else FULL
    if keep and folder is None:
        raise InvalidInput("cannot keep what has no place", rule="keep", hint="give --work-dir")
    if keep and folder:
        yield Workshop(folder, sizes)
        return
    with tempfile.TemporaryDirectory(prefix="weighbridge-benchmarks-", dir=folder) as place:
        yield Workshop(Path(place), sizes)


def _measured(
    cases: list[Case], shop: Workshop, fewer: int | None, rounds: int | None
) -> results.Results:
    found = [run_case(case, shop, rounds or fewer or case.rounds, _tell) for case in cases]
    settings = {"sizes": vars(shop.sizes), "rounds": rounds or fewer}
    return results.Results(machine(shop.folder), versions(), settings, found)


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{text}", nl=False, err=True)


if __name__ == "__main__":
    app()
