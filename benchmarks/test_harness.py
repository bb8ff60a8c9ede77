"""The scale itself: it weighs known weights, says who is absent or failed, and keeps books."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from weighbridge import convert, save_file
from weighbridge.benchmarks import command, made, readme, results, worker
from weighbridge.benchmarks.case import FASTEST, Case, Goal, Limit
from weighbridge.benchmarks.command import app
from weighbridge.benchmarks.contender import Call, Command, Outcome, Role
from weighbridge.benchmarks.contenders import floor, ours
from weighbridge.benchmarks.inputs import TINY, Workshop
from weighbridge.benchmarks.measure import Failed, Sample, take
from weighbridge.benchmarks.memory import DeviceMemory, device_memory
from weighbridge.benchmarks.results import CaseResult, Machine, Results, Settings
from weighbridge.benchmarks.run import Lane, run_case, summed_up
from weighbridge.benchmarks.worker import measure
from weighbridge.errors import Error, InvalidFile
from weighbridge.model import HUGGING_FACE, Model

if TYPE_CHECKING:
    from weighbridge.benchmarks.contender import Timed

MEGABYTE = 1 << 20
KNOWN = 64 * MEGABYTE

SHARED_MEMORY = Path("/dev/shm")
"""A file system in memory, on Linux."""


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


def test_what_a_command_reads_is_counted(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(bytes(KNOWN))
    code = f"open({str(source)!r}, 'rb', 0).readinto(bytearray({KNOWN}))"
    line = [sys.executable, "-P", "-c", code]
    sample = take(Command("x", "", argv=lambda *_: [line]), source, tmp_path, again=False)
    assert KNOWN <= sample.read < KNOWN + 8 * MEGABYTE


def reads(source: Path, scratch: Path) -> Timed:
    """Read the source."""
    return lambda: Outcome({"bytes": len(source.read_bytes())})


def test_a_cold_file_is_read_from_the_disk(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(KNOWN))
    call = Call("x", "", prepare=reads)
    warm = take(call, source, tmp_path, again=False, files=[source])
    assert (warm.cached, warm.disk) == (1.0, 0)
    assert warm.read >= KNOWN
    cold = take(call, source, tmp_path, again=False, files=[source], cold=True)
    assert cold.cached is not None
    assert cold.cached < 0.02
    assert cold.disk >= KNOWN * (1 - 0.02)


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="there is no file system in memory")
def test_where_the_page_cache_cannot_be_emptied_nothing_is_measured(tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY) as file:
        file.write(bytes(MEGABYTE))
        file.flush()
        source, call = Path(file.name), Call("x", "", prepare=reads)
        with pytest.raises(Failed, match="cannot be emptied here: 100% of the input stayed"):
            take(call, source, tmp_path, again=False, files=[source], cold=True)


def test_memory_beyond_the_result_is_told_apart(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(bytes(KNOWN))
    sample = take(Call("x", "", prepare=reads), source, tmp_path, again=False)
    assert sample.peak >= about(KNOWN)
    assert sample.beyond < 4 * MEGABYTE


def test_device_memory_is_that_of_the_fullest_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        max_memory_allocated=lambda number: (5, 7)[number],
        host_memory_stats=lambda: {"allocated_bytes.peak": 3},
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert device_memory() == DeviceMemory(7, 3)


def test_without_a_device_it_has_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert device_memory() is None


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
    case = Case("x", "x", "x", None, contenders, subject="ours", goals=goals)
    found = run_case(case, Workshop(tmp_path, TINY), 2, print)
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
    counted = {"tensors": seen}
    samples = [Sample(each, each, each, peak, peak, seen=counted) for each in seconds]
    role = Role.OURS if name == "weighbridge" else Role.PEER
    return Lane(Call(name, "", role=role, prepare=allocates), None, samples)


def test_ratios_are_taken_round_by_round() -> None:
    goals = (Goal("peer", 3), Limit(2), Goal("peer", 4, "peak"), Limit(2000, "peak"))
    case = Case("x", "x", "{size}", None, (), goals=goals)
    found = summed_up(case, [lane("weighbridge", 1, 2, 3), lane("peer", 4, 4, 9, peak=5)], 2000)
    assert found.title == "2.0 kB"
    assert found.rows[1].ratio == results.Spread(3, 2, 4)
    assert [(verdict.got, verdict.met) for verdict in found.verdicts] == [
        ("3", True),
        ("2.000 s", True),
        ("5", True),
        ("1 B", True),
    ]


def test_the_fastest_peer_is_found_and_slow_ones_are_compared_as_far_as_they_came() -> None:
    goals = (Goal(FASTEST, 2), Goal(FASTEST, 4))
    case = Case("x", "x", "x", None, (), goals=goals)
    lanes = [lane("weighbridge", 1, 1, 1), lane("slow", 9), lane("quick", 3, 3, 3)]
    found = summed_up(case, lanes, 0)
    assert found.peer == results.Compared("quick", results.Spread(3, 3, 3))
    assert [verdict.met for verdict in found.verdicts] == [True, False]
    assert [len(row.samples) for row in found.rows] == [3, 1, 3]


def test_contenders_that_see_something_else_are_told_on() -> None:
    case = Case("x", "x", "x", None, ())
    assert summed_up(case, [lane("weighbridge", 1), lane("peer", 1)], 0).agree
    assert not summed_up(case, [lane("weighbridge", 1), lane("peer", 1, seen=2)], 0).agree


def test_results_come_back_as_they_were_and_reach_the_readme(tmp_path: Path) -> None:
    book, target = tmp_path / "results.json", tmp_path / "README.md"
    target.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    options = ["--work-dir", str(tmp_path), "--only", "import", "--rounds", "1"]
    ran = CliRunner().invoke(app, [*options, "--json", str(book)])
    assert ran.exit_code == 0, ran.output
    read = results.read(book)
    read.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == book.read_bytes()
    shown = CliRunner().invoke(app, ["--from", str(book), "--readme", str(target)])
    assert shown.exit_code == 0, shown.output
    assert shown.output in ran.output
    assert "python" in shown.output
    text = target.read_text()
    assert text.startswith(f"before\n{readme.BEGIN}\n| | weighbridge |")
    assert text.endswith(f"{readme.END}\nafter\n")
    assert "old" not in text


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"cases": [1]}', '{"cases": [], "schema": 1}']
)
def test_other_json_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InvalidFile) as raised:
        results.read(path)
    assert raised.value.rule == "results"


NOTHING = Results(Machine("", 1, 1, "", "", 0.0, []), "", 0.0, {}, Settings({}, None, 12.0, []), [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": "other"},
        {"seconds": "long"},
        {"machine": {"processor": "x"}},
        {"cases": [{"name": "x"}]},
        {"cases": None},
        {"more": 1},
    ],
    ids=["schema", "type", "missing", "case", "none", "unknown"],
)
def test_results_of_another_schema_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**asdict(NOTHING), **wrong}))
    with pytest.raises(InvalidFile) as raised:
        results.read(path)
    assert raised.value.rule == "results"


@pytest.mark.parametrize(
    "content", ["", readme.BEGIN, f"{readme.END}{readme.BEGIN}", f"{readme.BEGIN * 2}{readme.END}"]
)
def test_a_file_without_markers_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(content)
    with pytest.raises(InvalidFile) as raised:
        readme.insert(path, "new")
    assert raised.value.rule == "markers"
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--only", "nothing"], "case"),
        (["--make", "llama-9000b"], "shape"),
        (["no-such-file"], "not-found"),
        (["README.md", "--make", "llama-1b"], "usage"),
    ],
)
def test_bad_options_are_refused(options: list[str], rule: str) -> None:
    ran = CliRunner().invoke(app, options)
    assert isinstance(ran.exception, Error)
    assert ran.exception.rule == rule


def test_a_device_that_is_not_there_is_said(tmp_path: Path) -> None:
    options = ["--device", "cuda:77", "--only", "*safetensors", "--work-dir", str(tmp_path)]
    ran = CliRunner().invoke(app, options)
    assert ran.exit_code == 0, ran.output
    assert "there is no device cuda:77" in ran.output
    assert "fastsafetensors" in ran.output
    assert list(tmp_path.iterdir()) == []


def test_a_made_up_model_has_its_size_and_is_the_same_each_time(tmp_path: Path) -> None:
    example = Model("x", HUGGING_FACE, {}, config={"vocab_size": 1000})
    model = made.llama(made.SHAPES["llama-15m"], example)
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for path in (one, two):
        save_file({name: tensor.values() for name, tensor in model.tensors.items()}, path)
    assert one.read_bytes() == two.read_bytes()
    numbers = model.tensors["model.embed_tokens.weight"].values().astype(np.float32)
    assert numbers.std() == pytest.approx(made.STANDARD_DEVIATION, rel=0.02)


@pytest.mark.parametrize("name", made.SHAPES)
def test_shapes_have_about_as_many_parameters_as_their_names_say(name: str) -> None:
    example = Model("x", HUGGING_FACE, {}, config={"vocab_size": 49_152})
    digits, unit = name.removeprefix("llama-")[:-1], name[-1]
    expected = int(digits) * {"m": 1_000_000, "b": 1_000_000_000}[unit]
    size = sum(tensor.size for tensor in made.llama(made.SHAPES[name], example).tensors.values())
    assert size == pytest.approx(expected, rel=0.12)


def test_what_the_import_brings_is_listed() -> None:
    assert "weighbridge" in ours.imported()
    assert "numpy" not in ours.imported()


def test_who_takes_the_same_time_twice_is_not_measured_again() -> None:
    assert lane("x", 1.0).waits(10)
    assert lane("x", 1.0, 1.1).waits(10)
    assert not lane("x", 1.0, 1.01).waits(10)
    assert not lane("x", 6.0, 7.0).waits(10)


def test_a_long_call_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def call() -> Outcome:
        calls.append(1)
        return Outcome({})

    assert measure(call, again=True).again
    calls.clear()
    monkeypatch.setattr(worker, "LONG", 0.0)
    assert measure(call, again=True).again == []
    assert len(calls) == 1


def test_a_model_is_copied_with_its_external_data(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    save_file({"x": np.zeros((64, 64), np.float32)}, tmp_path / "x.safetensors")
    convert(tmp_path / "x.safetensors", path, weights_only=True, external=True)
    for number, argv in enumerate((floor.cp, floor.cp_through_memory, floor.cp_and_sync)):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        take(Command("cp", "", argv=argv), path, scratch, again=False)
        for line in argv(path, scratch):
            subprocess.run(line, check=True)
        assert {file.name for file in scratch.iterdir()} == {"x.onnx", "x.onnx.data"}


def test_an_interrupted_run_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = summed_up(Case("x", "Open", "x", None, ()), [lane("weighbridge", 1.0)], 0)

    def run_case(case: Case, *_: object) -> CaseResult:
        if case.name == "open-onnx":
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(command, "run_case", run_case)
    book, html, table = (tmp_path / name for name in ("x.json", "x.html", "README.md"))
    table.write_text("<!-- benchmarks --><!-- /benchmarks -->")
    lines = ["--only", "open-*", "--work-dir", tmp_path, "--json", book, "--html", html]
    ended = CliRunner().invoke(command.app, [*map(str, lines), "--readme", str(table)])
    assert ended.exit_code == 130
    assert "The run was interrupted" in ended.output
    found = results.read(book)
    assert (found.interrupted, [case.name for case in found.cases]) == (True, ["x"])
    assert "The run was interrupted" in html.read_text()
    assert table.read_text() == "<!-- benchmarks --><!-- /benchmarks -->"
