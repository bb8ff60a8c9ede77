"""Plans: what a wish means, what is wrong with it, and what the plan says, all from headers."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from support.plans import listing

import weighbridge as wb
from weighbridge import kernels
from weighbridge.choose import Wanted
from weighbridge.encoding import DENSE
from weighbridge.errors import AlreadyExists, Error, InvalidInput, InvalidPlan, Unsupported
from weighbridge.formats.gguf import FORMAT as GGUF
from weighbridge.formats.safetensors import FORMAT as SAFETENSORS
from weighbridge.graph import Graph
from weighbridge.layout import Layout, LayoutOptions, OutputFile, plain_file
from weighbridge.metadata import scalar, string
from weighbridge.model import Model
from weighbridge.planner import IN_MEMORY, make_plan, target_format
from weighbridge.target import check_names
from weighbridge.tensor import from_array
from weighbridge.testing.models import Unreadable, tensor_of
from weighbridge.wish import Wish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.steps import Plan
    from weighbridge.tensor import Lazy

WEIGHTS = Wish(weights_only=True)


def model_of(dialect: str = "huggingface", /, **tensors: str | tuple[str, tuple]) -> Model:
    """Return a model that cannot be read, of encodings by name or with a shape."""
    lazies: dict[str, Lazy] = {}
    for name, wanted in tensors.items():
        encoding, shape = (wanted, (4, 64)) if isinstance(wanted, str) else wanted
        lazies[name] = Unreadable(shape, kernels.codec_for(encoding).encoding)
    return Model(IN_MEMORY, dialect, lazies)


def planned(model: Model, target: Path, **wish: Any) -> Plan:
    return make_plan(model, target, replace(WEIGHTS, **wish))


def rule_of(plan: Plan) -> list[str]:
    return [problem.rule for problem in plan.problems]


TARGETS = [
    ("x.safetensors", None, "safetensors"),
    ("x.SAFETENSORS", None, "safetensors"),
    ("x.gguf", None, "gguf"),
    ("x.onnx", None, "onnx"),
    ("model", None, "huggingface"),
    ("existing.d", None, "huggingface"),
    ("existing.gguf", None, "gguf"),
    ("x.gguf", "gguf", "gguf"),
    ("x.gguf", "safetensors", "safetensors"),
    ("x.bin", "GGUF", "gguf"),
    ("SmolLM2-1.7B", "huggingface", "huggingface"),
    ("SmolLM2-1.7B", "safetensors", "huggingface"),
    ("model", "safetensors", "huggingface"),
    ("x.safetensors", "safetensors", "safetensors"),
    ("SmolLM2-1.7B", None, None),
    ("x.bin", None, None),
    ("x.gguf", "ggml", None),
    ("x.gguf", "", "gguf"),
]


@pytest.mark.parametrize(("name", "to", "expected"), TARGETS)
def test_the_format_of_a_target(
    tmp_path: Path, name: str, to: str | None, expected: str | None
) -> None:
    (tmp_path / "existing.d").mkdir()
    (tmp_path / "existing.gguf").mkdir()
    if expected:
        assert target_format(tmp_path / name, to).name == expected
        return
    with pytest.raises(InvalidInput) as caught:
        target_format(tmp_path / name, to)
    assert caught.value.rule == "target-format"


WISHES: list[tuple[dict[str, str], str]] = [
    ({}, "none"),
    ({"dtype": "bfloat16"}, "bf16"),
    ({"dtype": "F16"}, "f16"),
    ({"dtype": "float32"}, "f32"),
    ({"dtype": "double"}, "f64"),
    ({"dtype": "float8_e4m3fn"}, "f8_e4m3"),
    ({"quantize": "q8_0"}, "q8_0"),
    ({"quantize": "F16"}, "f16"),
]

REFUSED = [
    ({"dtype": "bf16", "quantize": "q8_0"}, "options"),
    ({"dtype": "q8_0"}, "encoding"),
    ({"dtype": "int8"}, "encoding"),
    ({"dtype": "i8"}, "encoding"),
    ({"dtype": "bool"}, "encoding"),
    ({"dtype": "c64"}, "encoding"),
    ({"quantize": "i8"}, "encoding"),
    ({"quantize": "Q9_9"}, "unknown-encoding"),
    ({"quantize": "q8_1"}, "no-encoder"),
]


@pytest.mark.parametrize(("wish", "expected"), WISHES, ids=str)
def test_what_a_wish_means(wish: dict[str, str], expected: str) -> None:
    container = GGUF if "quantize" in wish else SAFETENSORS
    encoding = Wanted.of(Wish(**wish, weights_only=True), container).encoding
    assert (encoding.name if encoding else "none") == expected


@pytest.mark.parametrize(("wish", "rule"), REFUSED, ids=str)
def test_wishes_that_mean_nothing(wish: dict[str, str], rule: str, tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        planned(model_of(x="f32"), tmp_path / "x.gguf", **wish)
    assert caught.value.rule == rule


STORED = [
    ("x.safetensors", "bf16", {}, "bf16"),
    ("x.safetensors", "q8_0", {}, "f32"),
    ("x.safetensors", "i4", {}, "i8"),
    ("x.safetensors", "u4", {}, "i8"),
    ("x.safetensors", "c128", {}, None),
    ("x.gguf", "bool", {}, "i8"),
    ("x.gguf", "u8", {}, "i16"),
    ("x.gguf", "u32", {}, "i64"),
    ("x.gguf", "u64", {}, None),
    ("x.gguf", "c64", {}, None),
    ("x.gguf", "f8_e4m3", {}, "bf16"),
    ("x.gguf", "f8_e8m0", {}, "bf16"),
    ("x.gguf", "f4", {}, "bf16"),
    ("x.gguf", "q4_k", {}, "q4_k"),
    ("x.onnx", "q6_k", {}, "f32"),
    ("x.onnx", "u2", {}, "u2"),
    ("x.safetensors", "f32", {"dtype": "f16"}, "f16"),
    ("x.safetensors", "i64", {"dtype": "f16"}, "i64"),
    ("x.safetensors", "bool", {"dtype": "f16"}, "bool"),
    ("x.safetensors", "c64", {"dtype": "f16"}, "c64"),
    ("x.safetensors", "q8_0", {"dtype": "f16"}, "f16"),
    ("x.gguf", "f8_e4m3", {"dtype": "f32"}, "f32"),
    ("x.gguf", "f32", {"quantize": "q8_0"}, "q8_0"),
    ("x.gguf", "i64", {"quantize": "q8_0"}, "i64"),
]


@pytest.mark.parametrize(("target", "own", "wish", "expected"), STORED, ids=str)
def test_what_a_tensor_is_stored_as(
    tmp_path: Path, target: str, own: str, wish: dict[str, str], expected: str | None
) -> None:
    shape = (4, 256)
    plan = planned(model_of(x=(own, shape)), tmp_path / target, **wish)
    if expected is None:
        (problem,) = plan.problems
        assert (problem.rule, problem.tensor) == ("encoding-unsupported", "x")
        return
    plan.check()
    assert plan.steps[0].tensor.encoding.name == expected


def test_only_matrices_of_whole_blocks_are_quantised(tmp_path: Path) -> None:
    shapes = {"matrix": (4, 64), "stack": (2, 4, 32), "vector": (64,), "odd": (4, 40), "one": ()}
    model = model_of(**{name: ("f16", shape) for name, shape in shapes.items()})
    plan = planned(model, tmp_path / "x.gguf", quantize="q8_0")
    stored = {step.name: step.tensor.encoding.name for step in plan.steps}
    assert stored == {name: "q8_0" if name in ("matrix", "stack") else "f16" for name in shapes}


@pytest.mark.parametrize("target", ["x.safetensors", "model"])
def test_what_a_format_cannot_store_is_said_once(tmp_path: Path, target: str) -> None:
    with pytest.raises(Unsupported) as caught:
        planned(model_of(a="f32", b="f32"), tmp_path / target, quantize="q8_0")
    assert (caught.value.rule, caught.value.tensor) == ("encoding-unsupported", None)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    plan = planned(model_of(a="u64", b="f32", c="c64"), tmp_path / "x.gguf")
    assert rule_of(plan) == ["encoding-unsupported", "encoding-unsupported", "exists"]
    with pytest.raises(InvalidPlan) as caught:
        plan.run()
    assert len(str(caught.value).splitlines()) == 3
    assert plan.layout is None
    assert plan.written_bytes == 0


NOTES = [
    ({"a": "bf16", "b": "bf16"}, "x.gguf", {"dtype": "f32"}, ["decoded: 2 tensors: BF16 to F32"]),
    ({"a": "f32"}, "x.gguf", {"dtype": "f16"}, ["rounded: 1 tensor: F32 to F16"]),
    ({"a": "q8_0"}, "x.safetensors", {}, ["decoded: 1 tensor: Q8_0 to F32"]),
    ({"a": "q8_0"}, "x.safetensors", {"dtype": "bf16"}, ["rounded: 1 tensor: Q8_0 to BF16"]),
    ({"a": "bool", "b": "f32"}, "x.gguf", {}, ["decoded: 1 tensor: BOOL to I8"]),
    ({"a": "f32"}, "x.gguf", {}, []),
]


@pytest.mark.parametrize(("tensors", "target", "wish", "expected"), NOTES, ids=str)
def test_changes_of_numbers_are_noted(
    tmp_path: Path, tensors: Mapping[str, str], target: str, wish: dict, expected: list[str]
) -> None:
    plan = planned(model_of(**tensors), tmp_path / target, **wish)
    assert [str(note).rpartition(":")[0] for note in plan.notes] == expected


def test_what_is_dropped_is_noted(tmp_path: Path) -> None:
    model = replace(
        model_of(a="f32"),
        format="gguf",
        metadata={"a.key": scalar("u32", 1)},
        config={"architectures": ["X"]},
        files={"tokenizer.json": b"{}"},
        graph=Graph({"Add": 2}, (), ()),
    )
    plan = planned(model, tmp_path / "x.safetensors")
    subjects = ["config and side files", "metadata", "graph"]
    assert [(note.kind, note.subject) for note in plan.notes] == [("dropped", s) for s in subjects]
    whole = make_plan(model, tmp_path / "x.safetensors", Wish())
    assert {note.subject for note in whole.notes} == {
        "metadata", "graph", "config.json", "tokenizer.json",
    }  # fmt: skip


def test_metadata_stay_where_they_mean_something(tmp_path: Path) -> None:
    metadata = {"format": string("pt")}
    for own, target, kept in (
        ("safetensors", "x.safetensors", True),
        (IN_MEMORY, "x.onnx", True),
        ("safetensors", "x.onnx", False),
        ("onnx", "x.onnx", True),
    ):
        model = replace(model_of(a="f32"), metadata=metadata, format=own)
        plan = planned(model, tmp_path / target)
        assert bool(plan.model.metadata) == kept


def test_a_disk_that_is_too_full_is_seen_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert rule_of(planned(model_of(a="f32"), tmp_path / "x.gguf")) == ["disk-space"]


PLACES = [
    ("absent/x.gguf", {}, "not-found"),
    ("file/x.gguf", {}, "not-found"),
    ("taken.gguf", {}, "exists"),
    ("taken.gguf", {"overwrite": True}, None),
    ("dangling.gguf", {}, "exists"),
    ("dangling.gguf", {"overwrite": True}, None),
    ("folder.gguf", {}, "exists"),
    ("folder.gguf", {"overwrite": True}, "exists"),
    ("a.safetensors", {"layout": LayoutOptions(600)}, "exists"),
    ("a.safetensors", {"layout": LayoutOptions(600), "overwrite": True}, None),
    ("b.safetensors", {"layout": LayoutOptions(600), "overwrite": True}, "exists"),
]


@pytest.mark.parametrize(("target", "wish", "rule"), PLACES, ids=str)
def test_where_a_target_may_be(tmp_path: Path, target: str, wish: dict, rule: str | None) -> None:
    for name in ("file", "taken.gguf", "a-00002-of-00002.safetensors"):
        (tmp_path / name).write_text("old")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "b-00002-of-00002.safetensors").mkdir()
    (tmp_path / "dangling.gguf").symlink_to("nowhere")
    before = listing(tmp_path)
    plan = planned(model_of(a=("f32", (2, 64)), b=("f32", (2, 64))), tmp_path / target, **wish)
    assert rule_of(plan) == ([rule] if rule else [])
    assert listing(tmp_path) == before


def test_a_directory_that_may_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert rule_of(planned(model_of(a="f32"), tmp_path / "x.gguf")) == ["not-writable"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Make a tiny checkpoint directory in two shards."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["X"], "dtype": "float32"}')
    tensors = {n: from_array(n, np.ones((4, 8), np.float32)) for n in "ab"}
    wish = replace(WEIGHTS, layout=LayoutOptions(200))
    make_plan(Model(IN_MEMORY, "huggingface", tensors), folder / "model.safetensors", wish).run()
    return folder


FOREIGN = [
    ("config.json", None),
    ("old.safetensors", None),
    ("old.safetensors.index.json", None),
    ("notes.txt", "foreign-files"),
    (".hidden", "foreign-files"),
    ("sub/notes.txt", "foreign-files"),
    ("sub/old.safetensors", None),
    ("model.gguf", "foreign-files"),
    ("link", "foreign-files"),
]


@pytest.mark.parametrize(("name", "rule"), FOREIGN)
def test_a_directory_with_files_of_others_is_not_replaced(
    tmp_path: Path, checkpoint: Path, name: str, rule: str | None
) -> None:
    target = tmp_path / "target"
    (target / name).parent.mkdir(parents=True)
    if name == "link":
        (target / name).symlink_to(tmp_path)
    else:
        (target / name).write_text("theirs")
    assert rule_of(wb.plan(checkpoint, target)) == ["exists"]
    plan = wb.plan(checkpoint, target, overwrite=True)
    assert rule_of(plan) == ([rule] if rule else [])
    if not rule:
        plan.run()
        assert "theirs" not in [(target / n).read_text() for n in ("config.json",)]


SELVES = {
    "the directory": ("checkpoint", "."),
    "a link to it": ("link", "."),
    "a directory above it": ("", "."),
    "a shard": ("checkpoint/model-00001-of-00002.safetensors", "."),
    "a shard by its link": ("shard.safetensors", "."),
    "a shard by a hard link": ("hard.safetensors", "."),
    "itself": ("checkpoint/model-00001-of-00002.safetensors", "model-00001-of-00002.safetensors"),
    "the directory of a shard": ("checkpoint", "model-00001-of-00002.safetensors"),
    "its shards": ("checkpoint/model.safetensors", "."),
}


@pytest.mark.parametrize(("target", "source"), SELVES.values(), ids=SELVES)
def test_the_source_is_never_replaced(
    tmp_path: Path, checkpoint: Path, target: str, source: str
) -> None:
    shard = checkpoint / "model-00001-of-00002.safetensors"
    (tmp_path / "link").symlink_to(checkpoint)
    (tmp_path / "shard.safetensors").symlink_to(shard)
    (tmp_path / "hard.safetensors").hardlink_to(shard)
    before = listing(tmp_path)
    to = "huggingface" if (tmp_path / target).is_dir() else None
    plan = wb.plan(
        checkpoint / source,
        tmp_path / target,
        to=to,
        overwrite=True,
        shard_size=200 if target.endswith("/model.safetensors") else None,
    )
    assert "same-file" in rule_of(plan)
    with pytest.raises(InvalidPlan):
        plan.run()
    assert listing(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_source_beside_the_target_is_no_hindrance(
    tmp_path: Path, checkpoint: Path, overwrite: bool
) -> None:
    before = listing(checkpoint)
    wb.convert(checkpoint, checkpoint / "all.safetensors", overwrite=overwrite)
    after = listing(checkpoint)
    assert after.pop("all.safetensors")
    assert after == before


NAMES = [
    ("a", True, None),
    ("a/b", True, None),
    ("a/b", False, "file-name"),
    ("../a", True, "file-name"),
    ("a/../../b", True, "file-name"),
    ("/etc/passwd", True, "file-name"),
    ("", True, "file-name"),
    (".", True, "file-name"),
    ("./a", True, "file-name"),
    ("a//b", True, "file-name"),
    ("a/", True, "file-name"),
    ("a\0b", True, "file-name"),
    ("taken", True, "file-name"),
    ("taken/below", True, "file-name"),
]


@pytest.mark.parametrize(("name", "directory", "rule"), NAMES)
def test_names_of_files_stay_inside_and_apart(name: str, directory: bool, rule: str | None) -> None:
    layout = Layout((plain_file("taken", b""), OutputFile(name, 0, ())), {})
    if rule is None:
        check_names(layout, directory=directory)
        return
    with pytest.raises(Unsupported) as caught:
        check_names(layout, directory=directory)
    assert caught.value.rule == rule


def test_a_hostile_side_file_stays_inside(tmp_path: Path, checkpoint: Path) -> None:
    with wb.open(checkpoint) as model:
        hostile = replace(model, files={"../evil": b"x"})
        plan = make_plan(hostile, tmp_path / "target", Wish())
    assert plan.problems
    with pytest.raises(InvalidPlan):
        plan.run()
    assert not (tmp_path / "evil").exists()


def sample(tmp_path: Path) -> Plan:
    model = Model(
        IN_MEMORY,
        "huggingface",
        {
            "a": from_array("a", np.ones((4, 64), ml_dtypes.bfloat16)),
            "b": tensor_of("b", DENSE["f32"], (5,)),
            "c\x1b": tensor_of("c", DENSE["bool"], (7,)),
        },
    )
    return planned(model, tmp_path / "x.gguf", quantize="q8_0")


def test_the_text_of_a_plan(tmp_path: Path) -> None:
    assert str(sample(tmp_path)).splitlines() == [
        f"memory (memory) -> {tmp_path}/x.gguf (gguf)",
        "  write   x.gguf                  512 B",
        "  decode  1 tensor, BF16 -> Q8_0  272 B",
        "  copy    1 tensor, F32            20 B",
        "  repack  1 tensor, BOOL -> I8      7 B",
        "  decoded: 1 tensor: BOOL to I8: every number is kept",
        "  rounded: 1 tensor: BF16 to Q8_0: numbers are rounded",
    ]


def test_the_json_of_a_plan(tmp_path: Path) -> None:
    document = sample(tmp_path).to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["steps"][0] == {
        "name": "a",
        "shape": [4, 64],
        "encoding": "q8_0",
        "route": "decode",
        "sources": ["a"],
        "bytes": 272,
    }
    assert list(document) == [
        "source", "target", "read_bytes", "written_bytes", "files", "steps", "notes", "problems",
    ]  # fmt: skip
    assert (document["read_bytes"], document["written_bytes"]) == (512 + 20 + 7, 512)


def test_the_text_of_a_plan_with_many_files_is_short(tmp_path: Path) -> None:
    model = model_of(**{f"t{n}": ("f32", (2, 64)) for n in range(40)})
    plan = planned(model, tmp_path / "x.safetensors", layout=LayoutOptions(600))
    assert len(plan.layout.files) == 41
    lines = str(plan).splitlines()
    assert len([line for line in lines if line.startswith("  write")]) == 13
    assert any("29 more files" in line for line in lines)


def test_a_plan_reads_nothing(tmp_path: Path) -> None:
    huge = model_of(a=("q4_k", (1 << 20, 1 << 20)), b=("f32", (1 << 30,)))
    plan = planned(huge, tmp_path / "x.safetensors", dtype="f16")
    assert rule_of(plan) == ["disk-space"]
    assert plan.written_bytes > 1 << 40


def test_existing_targets_are_those_of_the_run(tmp_path: Path) -> None:
    model = Model(IN_MEMORY, "huggingface", {"b": tensor_of("b", DENSE["f32"], (5,))})
    plan = planned(model, tmp_path / "x.gguf")
    plan.run()
    with pytest.raises(AlreadyExists):
        plan.run()
    planned(model, tmp_path / "x.gguf", overwrite=True).run()
    assert list(listing(tmp_path)) == ["x.gguf"]
