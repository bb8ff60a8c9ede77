"""The command: what it says, where it says it, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.command import COMMAND, Done, called, run
from support.plans import listing

import weighbridge as wb
from weighbridge.graph import Graph
from weighbridge.metadata import array, scalar, string
from weighbridge.model import Model
from weighbridge.planner import IN_MEMORY
from weighbridge.show import model_json, print_model
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE = "a\x1b[31m\n\r\x9b2J\u202e[bold]x[/]"
ESCAPED = r"a\x1b[31m\n\r\x9b2J\u202e[bold]x[/]"


TENSORS_OF_MODEL = {
    "layer.weight": np.ones((4, 64), np.float32),
    "layer.bias": np.zeros(64, np.float32),
    "重み": np.array(3, np.int64),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    wb.save_file(TENSORS_OF_MODEL, path, {"format": "pt"})
    return path


INSPECTED = """\
{path}: safetensors, 3 tensors, 321 values, 1.3 kB

encoding  tensors  values    size
F32             2     320  1.3 kB
I64             1       1     8 B

metadata:
  format (string) = pt
"""

TENSORS = """
tensors:
  重み          scalar  I64     8 B
  layer.bias    64      F32   256 B
  layer.weight  4x64    F32  1.0 kB
"""


def test_inspect(model: Path) -> None:
    assert called("inspect", model) == Done(0, INSPECTED.format(path=model), "")
    listed = called("inspect", model, "--tensors")
    assert listed == Done(0, INSPECTED.format(path=model) + TENSORS, "")


def test_inspect_in_json(model: Path) -> None:
    document = called("inspect", model, "--tensors", "--json").json
    assert document == {
        "path": str(model),
        "format": "safetensors",
        "dialect": "huggingface",
        "tensors": 3,
        "bytes": 1288,
        "encodings": [
            {"encoding": "F32", "tensors": 2, "values": 320, "bytes": 1280},
            {"encoding": "I64", "tensors": 1, "values": 1, "bytes": 8},
        ],
        "metadata": {"format": {"type": "string", "items": None, "value": "pt"}},
        "config": None,
        "files": [],
        "graph": None,
        "tensor_list": [
            {"name": "重み", "shape": [], "encoding": "i64", "bytes": 8},
            {"name": "layer.bias", "shape": [64], "encoding": "f32", "bytes": 256},
            {"name": "layer.weight", "shape": [4, 64], "encoding": "f32", "bytes": 1024},
        ],
    }
    assert "tensor_list" not in called("inspect", model, "--json").json


def test_convert(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    done = called("convert", model, target, "--weights-only", "--quantize", "Q8_0")
    assert (done.code, done.err) == (0, "")
    notes, result = done.out.splitlines()[:-1], done.out.splitlines()[-1]
    assert notes == [
        "dropped: metadata: 1 key-value of safetensors",
        "rounded: 1 tensor: F32 to Q8_0: numbers are rounded",
    ]
    assert result.startswith(f"{target}: {target.stat().st_size} B in ")
    assert result.endswith("1 tensor by decode, 2 tensors by copy")
    assert called("convert", model, target, "--weights-only").rules == ["exists"]
    again = called("convert", model, target, "--weights-only", "--overwrite", "--json")
    assert again.json["bytes"] == target.stat().st_size
    assert again.json["seconds"] > 0


def test_a_dry_run_writes_nothing(model: Path, tmp_path: Path) -> None:
    before = listing(tmp_path)
    arguments = ["convert", model, tmp_path / "x.gguf", "--weights-only", "--dry-run"]
    done = called(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{model} (safetensors) -> {tmp_path}/x.gguf (gguf)\n")
    assert called(*arguments, "--json").json["steps"][0]["route"] == "copy"
    assert listing(tmp_path) == before


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("as_json", [True, False])
def test_every_problem_of_a_plan_is_a_line(
    model: Path, tmp_path: Path, dry: bool, as_json: bool
) -> None:
    wb.save_file({n: np.zeros(2, np.complex64) for n in "ab"}, model)
    options = [*(["--dry-run"] if dry else []), *(["--json"] if as_json else [])]
    done = called("convert", model, tmp_path / "x.gguf", "--weights-only", *options)
    assert done.code == 2
    assert done.rules == ["encoding-unsupported"] * 2
    if as_json:
        problems = done.json["problems"]
        assert [problem["tensor"] for problem in problems] == ["a", "b"]
        assert problems[0]["rule"] == "encoding-unsupported"


@pytest.mark.parametrize(
    ("value", "options", "code"),
    [(1.0, [], 0), (1.5, [], 1), (1.5, ["--tolerance", "0.5"], 0), (1.5, ["--tolerance=0.4"], 1)],
)
def test_diff(model: Path, tmp_path: Path, value: float, options: list[str], code: int) -> None:
    other = tmp_path / "other.safetensors"
    wb.save_file({**TENSORS_OF_MODEL, "layer.weight": np.full((4, 64), value, np.float32)}, other)
    done = called("diff", model, other, *options)
    assert (done.code, done.err) == (code, "")
    *table, last = done.out.splitlines()
    assert last.startswith("3 tensors: 3 equal" if value == 1 else "3 tensors: 2 equal, 1 differ")
    assert table == ([] if value == 1 else [
        "tensor        A    B    max error  RMS error  SNR dB",
        "layer.weight  F32  F32        0.5        0.5     6.0",
        "",
    ])  # fmt: skip
    in_json = called("diff", model, other, "--json", *options)
    assert in_json.code == code
    assert in_json.json["within_tolerance"] == (code == 0)
    assert in_json.json["equal"] == (value == 1)


def test_diff_in_json_has_no_infinity(model: Path, tmp_path: Path) -> None:
    wb.save_file({"layer.bias": np.full(64, np.inf, np.float32)}, tmp_path / "o.safetensors")
    document = called("diff", model, tmp_path / "o.safetensors", "--json").json
    assert {d["name"]: d["max_error"] for d in document["tensors"]}["layer.bias"] is None


def test_formats() -> None:
    done = called("formats")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) < 80
    document = called("formats", "--json").json
    names = [entry["name"] for entry in document]
    assert names == sorted(names)
    assert {"gguf", "huggingface", "onnx", "safetensors"} <= set(names)
    assert set(document[0]) == {"name", "title", "suffixes", "directory", "dialect", "encodings"}


def gguf_ending_early(path: Path) -> None:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 10, 10))


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda path: None, "not-found"),
    "directory": (lambda path: path.mkdir(), "unknown-format"),
    "empty": (lambda path: path.touch(), "unknown-format"),
    "magic": (lambda path: path.write_bytes(b"NOPE" * 10), "unknown-format"),
    "truncated": (gguf_ending_early, "count"),
    "pipe": (lambda path: os.mkfifo(path), "not-a-file"),
    "loop": (lambda path: path.symlink_to(path.name), "unreadable"),
    "no-json": (lambda path: path.write_bytes(b"\x03\0\0\0\0\0\0\0{]}"), "json"),
}


@pytest.mark.parametrize("command", ["inspect", "convert", "diff"])
@pytest.mark.parametrize(("make", "rule"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_input_is_one_line(
    tmp_path: Path, make: Callable[[Path], Any], rule: str, command: str
) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "bad.bin"
    make(path)
    more = {"inspect": [], "convert": [tmp_path / "x.gguf"], "diff": [path]}[command]
    done = called(command, path, *more)
    assert (done.code, done.out, done.rules) == (2, "", [rule])
    assert done.err.startswith(f"{path}: ")
    in_json = called(command, path, *more, "--json")
    assert (in_json.code, in_json.err) == (2, done.err)
    (problem,) = in_json.json["problems"]
    assert (problem["rule"], problem["path"]) == (rule, str(path))
    assert not (tmp_path / "x.gguf").exists()


BAD_OPTIONS = [
    (["inspect", "--foo"], "usage"),
    (["inspect"], "usage"),
    (["nothing"], "usage"),
    (["convert", "{model}"], "usage"),
    (["inspect", "{model}", "{model}"], "usage"),
    (["convert", "{model}", "{out}", "--threads", "many"], "usage"),
    (["diff", "{model}", "{model}", "--tolerance", "-1"], "usage"),
    (["convert", "{model}", "{out}", "--weights-only", "--threads", "0"], "threads"),
    (["convert", "{model}", "{out}", "--weights-only", "--memory", "lots"], "size"),
    (["convert", "{model}", "{out}", "--weights-only", "--memory", "1kB"], "memory"),
    (["convert", "{model}", "{out}", "--shard-size", "0"], "size"),
    (["convert", "{model}", "{out}", "--to", "zip"], "target-format"),
    (["convert", "{model}", "{out}.bin"], "target-format"),
    (["convert", "{model}", "{out}", "--dtype", "int4"], "encoding"),
    (["convert", "{model}", "{out}", "--quantize", "Q4_Z"], "unknown-encoding"),
    (["convert", "{model}", "{out}", "--quantize", "Q8_0", "--dtype", "f32"], "options"),
]


@pytest.mark.parametrize(("arguments", "rule"), BAD_OPTIONS, ids=lambda value: str(value))
def test_bad_options_are_one_line(
    model: Path, tmp_path: Path, arguments: list[str], rule: str
) -> None:
    places = {"model": model, "out": tmp_path / "out.gguf"}
    filled = [argument.format(**places) for argument in arguments]
    before = listing(tmp_path)
    done = called(*filled)
    assert (done.code, done.out, done.rules) == (2, "", [rule])
    in_json = called(*filled, "--json")
    assert in_json.code == 2
    assert [problem["rule"] for problem in in_json.json["problems"]] == [rule]
    assert listing(tmp_path) == before


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["convert", "--help"]])
def test_help(arguments: list[str]) -> None:
    done = called(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: weighbridge ")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "\x1b" not in done.out
    assert "..." not in done.out.partition("Commands:")[2]


def test_version() -> None:
    assert called("--version") == Done(0, f"weighbridge {wb.__version__}\n", "")


def hostile_model() -> Model:
    return Model(
        IN_MEMORY,
        "huggingface",
        {HOSTILE: from_array(HOSTILE, np.zeros(2))},
        metadata={
            HOSTILE: string(HOSTILE),
            "many": array("string", [HOSTILE] * 9),
            "nested": array("array", [array("u8", [1, 2])]),
            "empty": array("u8", []),
            "nan": scalar("f32", float("nan")),
        },
        config={"architectures": [HOSTILE, 5]},
        files={HOSTILE: b""},
        graph=Graph({HOSTILE: 3}, (HOSTILE,), ()),
        path=Path(HOSTILE.replace("/", "")),
    )


def test_no_name_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_model(hostile_model(), tensors=True)
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert out.count(ESCAPED) >= 7
    assert "nested (array[]) = [[1, 2]]" in out
    assert "empty (u8[]) = []" in out


def test_what_is_long_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    metadata = {"k" * 10**6: string("v" * 10**6), "many": array("u32", range(10**6))}
    print_model(Model(IN_MEMORY, "huggingface", {}, metadata=metadata), tensors=True)
    assert len(capsys.readouterr().out) < 1000
    shown = model_json(Model(IN_MEMORY, "huggingface", {}, metadata=metadata), tensors=True)
    assert shown["metadata"]["many"]["value"] == {"length": 10**6}


@pytest.mark.parametrize("config", [{"architectures": 5}, {"architectures": "X"}, {}, {"a": 1e999}])
def test_any_config_is_shown(capsys: pytest.CaptureFixture[str], config: dict) -> None:
    print_model(Model(IN_MEMORY, "huggingface", {}, config=config), tensors=True)
    assert "memory: memory, 0 tensors, 0 values, 0 B" in capsys.readouterr().out


def test_hostile_names_are_safe_everywhere(tmp_path: Path) -> None:
    path = tmp_path / HOSTILE.replace("/", "")
    target = tmp_path / (path.name + ".safetensors")
    wb.save_file({HOSTILE: np.zeros((2, 2), np.complex64)}, target, {HOSTILE: HOSTILE})
    target.rename(path)
    other = tmp_path / "other.safetensors"
    wb.save_file({HOSTILE: np.ones((2, 2), np.complex64)}, other)
    for arguments in (
        ["inspect", path, "--tensors"],
        ["inspect", path, "--json", "--tensors"],
        ["diff", path, other],
        ["diff", path, other, "--json"],
        ["convert", path, target.with_suffix(".gguf"), "--weights-only"],
        ["convert", path, target.with_suffix(".onnx"), "--weights-only"],
        ["inspect", str(path) + "absent"],
        ["inspect", "--" + HOSTILE],
    ):
        done = called(*arguments)
        assert done.code in (0, 1, 2)
        for line in (done.out + done.err).split("\n"):
            assert line.isprintable(), line


def test_output_that_no_encoding_has_is_escaped(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xc3.safetensors"
    wb.save_file({"重み": np.zeros(2)}, tmp_path / "x.safetensors")
    os.rename(tmp_path / "x.safetensors", path)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for options in ([], ["--json"]):
        done = subprocess.run(
            [*COMMAND, "inspect", path, "--tensors", *options],
            check=False,
            capture_output=True,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert rb"\udcff" in done.stdout
        assert all(line.isascii() or not options for line in done.stdout.splitlines())


def test_numbers_that_json_lacks_are_text(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    model.rename(folder / "model.safetensors")
    (folder / "config.json").write_text('{"architectures": ["X"], "a": NaN, "b": [Infinity, 1]}')
    document = called("inspect", folder, "--json").json
    assert (document["config"]["a"], document["config"]["b"]) == ("nan", ["inf", 1])
    (folder / "config.json").write_text('{"a": ' + "[" * 900 + "]" * 900 + "}")
    deep = called("inspect", folder, "--json")
    assert (deep.code, deep.rules) in ((0, []), (2, ["nesting"]))


def test_a_pipe_gets_no_colour_and_no_bar(model: Path, tmp_path: Path) -> None:
    for arguments in (["inspect", model, "--tensors"], ["convert", model, tmp_path / "x.onnx"]):
        done = run(*arguments)
        assert (done.code, done.err) == (0, "")
        assert "\x1b" not in done.out


def test_a_terminal_gets_a_bar(model: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "convert", model, tmp_path / "x.gguf", "--weights-only", "--overwrite"]
    shown = at_terminal(command)
    assert b"x.gguf" in shown
    assert b"\x1b[?25h" in shown  # the cursor is back
    assert at_terminal([*command, "--json"]) == b""
    assert b"comparing 3/3 layer.weight" in at_terminal([*COMMAND, "diff", model, model])


def at_terminal(command: list[Any]) -> bytes:
    """Run a command whose standard error is a terminal, and return what it shows there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:  # all is read, and nobody has the other end
            break
    os.close(ours)
    assert done.returncode == 0, shown
    return shown


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_leaves_is_no_error(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "many.safetensors"
    wb.save_file({f"tensor.{n:05}": np.zeros(1, np.int8) for n in range(3000)}, path)
    command = subprocess.Popen(
        [*COMMAND, "inspect", path, "--tensors", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.readline()
    command.stdout.close()
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait() == 0


SIGNALS = [
    (signal.SIGINT, 130, False),
    (signal.SIGINT, 130, True),
    (signal.SIGTERM, 143, True),
    (signal.SIGHUP, 129, False),
]


@pytest.mark.parametrize(("number", "code", "directory"), SIGNALS)
def test_a_signal_leaves_nothing_behind(
    tmp_path: Path, number: int, code: int, directory: bool
) -> None:
    (tmp_path / "home").mkdir()
    source = sparse_checkpoint(tmp_path / "source", gigabytes=3)
    target = tmp_path / "home" / ("model" if directory else "model.safetensors")
    command = subprocess.Popen(
        [*COMMAND, "convert", source, target, "--dtype", "bf16", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: any((tmp_path / "home").iterdir()))
    command.send_signal(number)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (code, "")
    assert err == ("interrupted\n" if number == signal.SIGINT else "")
    assert list((tmp_path / "home").iterdir()) == []


def sparse_checkpoint(folder: Path, gigabytes: int) -> Path:
    """Make a checkpoint of zeros that takes no room, and time to convert."""
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["X"]}')
    size = gigabytes << 30
    entry = {"dtype": "F32", "shape": [size // 4096, 1024], "data_offsets": [0, size]}
    header = json.dumps({"x": entry}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return folder


def wait_for(ready: Callable[[], bool]) -> None:
    for _ in range(600):
        if ready():
            return
        time.sleep(0.05)
    raise AssertionError("waited for nothing")


def test_a_file_that_may_not_grow_is_a_line(model: Path, tmp_path: Path) -> None:
    wb.save_file({"x": np.zeros(1 << 20, np.uint8)}, model)
    before = listing(tmp_path)
    done = run(
        "convert", model, tmp_path / "x.onnx",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
    )  # fmt: skip
    assert (done.code, done.rules) == (2, ["disk-full"])
    assert listing(tmp_path) == before


def test_the_module_is_the_command(model: Path) -> None:
    command = [
        *COMMAND[:-1],
        COMMAND[0].replace("weighbridge", "python"),
        "-P",
        "-m",
        "weighbridge",
    ]
    done = subprocess.run([*command, "inspect", model], check=False, capture_output=True, text=True)
    assert done.stdout == INSPECTED.format(path=model)
