"""The scale itself: it weighs known weights, says who is absent or failed, and keeps books."""

from __future__ import annotations

import mmap
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from weighbridge import save_file
from weighbridge.benchmarks import made, report, results
from weighbridge.benchmarks.__main__ import app
from weighbridge.benchmarks.cases import Case, Goal, Limit
from weighbridge.benchmarks.contender import Call, Command, Outcome
from weighbridge.benchmarks.contenders import ours
from weighbridge.benchmarks.inputs import QUICK, Workshop
from weighbridge.benchmarks.measure import Failed, Sample, take
from weighbridge.benchmarks.run import Lane, run_case, summed_up
from weighbridge.errors import InvalidFile
from weighbridge.model import HUGGING_FACE, Model

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed

MEGABYTE = 1 << 20
KNOWN = 64 * MEGABYTE


def about(size: int) -> int:
    """Return the least that Linux may say of a size: it counts pages in batches."""
    return size - MEGABYTE


def allocates(source: Path, scratch: Path) -> Timed:
    """Take 64 MB of private memory and hold them."""
    return lambda: Outcome({}, np.ones(KNOWN, np.uint8))


def allocates_and_frees(source: Path, scratch: Path) -> Timed:
    """Take 64 MB of private memory and give them back at once."""
    return lambda: Outcome({"sum": int(np.ones(KNOWN, np.uint8)[::4096].sum())})


def maps(source: Path, scratch: Path) -> Timed:
    """Touch every page of the source."""

    def call() -> Outcome:
        with source.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return Outcome({"sum": int(np.frombuffer(view, np.uint8)[::4096].sum())}, view)

    return call


def fails(source: Path, scratch: Path) -> Timed:
    """Raise."""

    def call() -> Outcome:
        raise RuntimeError("cannot")

    return call


def test_private_memory_is_weighed(tmp_path: Path) -> None:
    sample = take(Call("x", "", prepare=allocates), tmp_path, tmp_path, again=False)
    assert about(KNOWN) <= sample.private <= sample.peak < KNOWN + 4 * MEGABYTE


def test_memory_that_was_given_back_is_in_the_peak(tmp_path: Path) -> None:
    sample = take(Call("x", "", prepare=allocates_and_frees), tmp_path, tmp_path, again=False)
    assert about(KNOWN) <= sample.peak < KNOWN + 4 * MEGABYTE


def test_mapped_files_are_not_private(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(bytes(KNOWN))
    sample = take(Call("x", "", prepare=maps), source, tmp_path, again=False)
    assert sample.peak >= about(KNOWN)
    assert sample.private < 4 * MEGABYTE


def test_a_command_is_weighed_whole(tmp_path: Path) -> None:
    code = f"import time; held = b'x' * {KNOWN}; time.sleep(0.2)"
    line = [sys.executable, "-P", "-c", code]
    sample = take(Command("x", "", argv=lambda *_: [line]), tmp_path, tmp_path, again=False)
    assert sample.seconds > 0.2
    assert about(KNOWN) <= sample.private < sample.peak < KNOWN + 32 * MEGABYTE


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="RuntimeError: cannot"):
        take(Call("x", "", prepare=fails), tmp_path, tmp_path, again=False)
    assert list(tmp_path.iterdir()) == []


def test_who_is_absent_or_fails_is_said(tmp_path: Path) -> None:
    contenders = (
        Call("ours", "", prepare=allocates_and_frees),
        Call("absent", "", ("no-such-distribution",), prepare=allocates),
        Command("nowhere", "", argv=lambda *_: [["no-such-command"]]),
        Call("failing", "", prepare=fails),
    )
    goals = (Goal("absent", 2), Goal("failing", 2))
    case = Case("x", "x", None, contenders, subject="ours", goals=goals)
    found = run_case(case, Workshop(tmp_path, QUICK), 2, print)
    assert [row.why for row in found.rows] == [
        None,
        "no-such-distribution is not installed",
        "no-such-command is not there",
        "RuntimeError: cannot",
    ]
    assert len(found.rows[0].samples) == 2
    assert found.verdicts == []


def lane(name: str, *seconds: float, peak: int = 1, seen: int = 1) -> Lane:
    """Return a contender with its measurements."""
    samples = [Sample(each, each, each, peak, peak, {"tensors": seen}) for each in seconds]
    return Lane(Call(name, "", prepare=allocates), None, samples)


def test_ratios_are_taken_round_by_round() -> None:
    goals = (Goal("peer", 3), Limit(2), Goal("peer", 4, "peak"), Limit(2000, "peak"))
    case = Case("x", "{size}", None, (), goals=goals)
    found = summed_up(case, [lane("weighbridge", 1, 2, 3), lane("peer", 4, 4, 9, peak=5)], 2000)
    assert found.title == "2.0 kB"
    assert found.rows[1].ratio == results.Spread(3, 2, 4)
    assert [(verdict.got, verdict.met) for verdict in found.verdicts] == [
        ("3", True),
        ("2.000 s", True),
        ("5", True),
        ("1 B", True),
    ]


def test_contenders_that_see_something_else_are_told_on() -> None:
    case = Case("x", "x", None, ())
    assert summed_up(case, [lane("weighbridge", 1), lane("peer", 1)], 0).agree
    assert not summed_up(case, [lane("weighbridge", 1), lane("peer", 1, seen=2)], 0).agree


def test_results_come_back_as_they_were_and_reach_the_readme(tmp_path: Path) -> None:
    book, readme = tmp_path / "results.json", tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    shop = ["--quick", "--work-dir", str(tmp_path), "--only", "import", "--rounds", "1"]
    ran = CliRunner().invoke(app, [*shop, "--json", str(book)])
    assert ran.exit_code == 0, ran.output
    read = results.read(book)
    read.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == book.read_bytes()
    shown = CliRunner().invoke(app, ["--from", str(book), "--readme", str(readme)])
    assert shown.exit_code == 0, shown.output
    assert shown.output in ran.output
    text = readme.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n| | |")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    assert "| numpy | import numpy |" in text


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"cases": [1]}', '{"cases": [], "schema": 1}']
)
def test_other_json_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InvalidFile) as raised:
        results.read(path)
    assert raised.value.rule == "results"


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    replace(results.Results({}, {}, {}, []), schema="other").write(path)
    with pytest.raises(InvalidFile) as raised:
        results.read(path)
    assert raised.value.rule == "results"


@pytest.mark.parametrize(
    "content", ["", report.BEGIN, f"{report.END}{report.BEGIN}", f"{report.BEGIN * 2}{report.END}"]
)
def test_a_file_without_markers_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(content)
    with pytest.raises(InvalidFile) as raised:
        report.insert(path, "new")
    assert raised.value.rule == "markers"
    assert path.read_text() == content


@pytest.mark.parametrize("options", [["--only", "nothing"], ["--keep"]])
def test_bad_options_exit_with_2(options: list[str]) -> None:
    assert CliRunner().invoke(app, options).exit_code == 2


def test_a_made_up_model_has_its_size_and_is_the_same_each_time(tmp_path: Path) -> None:
    example = Model("x", HUGGING_FACE, {}, config={"vocab_size": 1000})
    model = made.llama(2_000_000, example)
    assert model.nbytes == pytest.approx(2_000_000, rel=0.1)
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for path in (one, two):
        save_file({name: tensor.values() for name, tensor in model.tensors.items()}, path)
    assert one.read_bytes() == two.read_bytes()
    numbers = model.tensors["model.embed_tokens.weight"].values().astype(np.float32)
    assert numbers.std() == pytest.approx(made.STANDARD_DEVIATION, rel=0.02)


def test_what_the_import_brings_is_listed() -> None:
    assert "weighbridge" in ours.imported()
    assert "numpy" not in ours.imported()
