from __future__ import annotations

import gc
import os
import shutil

import gguf
import numpy as np
import pytest
from support.gguf_files import Raw
from support.writing import write_layout

from weighbridge.errors import InvalidFile, NotFound
from weighbridge.formats.gguf import FORMAT
from weighbridge.layout import LayoutOptions
from weighbridge.metadata import scalar

COUNT = 3


def part(number, count=COUNT, tensors=COUNT, pairs=(), name=None):
    """Return a part that has one tensor, of the value `number`."""
    split = [
        ("split.no", "u16", number),
        ("split.count", "u16", count),
        ("split.tensors.count", "i32", tensors),
    ]
    info = (name or f"x{number}", [2], 0, 0)
    return Raw([*pairs, *split], [info], np.full(2, number, np.float32).tobytes())


def write(folder, parts):
    paths = [folder / f"m-{i + 1:05d}-of-{len(parts):05d}.gguf" for i in range(len(parts))]
    for path, raw in zip(paths, parts, strict=True):
        raw.write(path)
    return paths


@pytest.fixture
def parts():
    first = [("general.architecture", "string", "llama"), ("x.a", "u8", 1)]
    return [part(0, pairs=first), part(1), part(2)]


def rejected(path, kind=InvalidFile):
    with pytest.raises(kind) as error:
        FORMAT.open(path)
    return error.value


@pytest.mark.parametrize("opened", range(COUNT))
def test_any_part_opens_the_whole_model(tmp_path, parts, opened):
    path = write(tmp_path, parts)[opened]
    with FORMAT.open(path) as model:
        assert {name: t.values().tolist() for name, t in model.tensors.items()} == {
            "x0": [0, 0],
            "x1": [1, 1],
            "x2": [2, 2],
        }
        assert list(model.metadata) == ["general.architecture", "x.a"]
        assert (model.path, len(model.resources)) == (path, COUNT)


def test_a_relative_name_will_do(tmp_path, parts, monkeypatch):
    path = write(tmp_path, parts)[1]
    monkeypatch.chdir(tmp_path)
    assert len(FORMAT.open(path.relative_to(tmp_path)).tensors) == COUNT


def test_later_parts_add_what_the_first_does_not_say(tmp_path, parts):
    parts[1].pairs += [("x.a", "u8", 2), ("x.b", "string", "long" * 5000)]
    metadata = FORMAT.open(write(tmp_path, parts)[2]).metadata
    assert list(metadata) == ["general.architecture", "x.a", "x.b"]
    assert metadata["x.a"] == scalar("u8", 1)
    assert metadata["x.b"].data == "long" * 5000


def test_each_part_has_its_own_alignment(tmp_path, parts):
    parts[1].pairs.append(("general.alignment", "u32", 256))
    parts[1].alignment = 256
    model = FORMAT.open(write(tmp_path, parts)[0])
    assert model.tensors["x1"].values().tolist() == [1, 1]


def test_a_count_of_one_or_none_is_one_file(tmp_path):
    for count in (0, 1):
        path = part(0, count).write(tmp_path / f"{count}.gguf")
        model = FORMAT.open(path)
        assert list(model.tensors) == ["x0"]
        assert model.metadata["split.count"] == scalar("u16", count)


def test_what_the_gguf_package_splits_is_read_as_one(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    arrays = {f"x{i}": np.full((2, i + 1), i, np.float16) for i in range(5)}
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.add_array("x.list", ["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = FORMAT.open(tmp_path / "m-00002-of-00003.gguf")
    assert list(model.tensors) == list(arrays)
    assert model.metadata["x.list"].plain() == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(model.tensors[name].values(), array)


def test_split_and_joined_again(tmp_path, parts):
    """Three files become two, and those the one that was never split."""
    source = FORMAT.open(write(tmp_path, parts)[0])
    two = FORMAT.layout(source, "two.gguf", LayoutOptions(shard_size=16))
    paths = write_layout(two, source, tmp_path)
    assert [path.name for path in paths] == ["two-00001-of-00002.gguf", "two-00002-of-00002.gguf"]
    one = [
        write_layout(FORMAT.layout(model, "one.gguf", LayoutOptions()), model, tmp_path)[
            0
        ].read_bytes()
        for model in (source, FORMAT.open(paths[1]))
    ]
    assert one[0] == one[1]
    assert b"split." not in one[0]


@pytest.mark.parametrize("missing", range(COUNT))
def test_a_missing_part_is_named(tmp_path, parts, missing):
    paths = write(tmp_path, parts)
    paths[missing].unlink()
    error = rejected(paths[missing - 1], NotFound)
    assert (error.rule, error.path) == ("missing-shard", str(paths[missing]))
    assert f"part {missing + 1} of 3" in str(error)


def test_a_part_under_another_name(tmp_path, parts):
    path = write(tmp_path, parts)[1]
    error = rejected(shutil.copy(path, tmp_path / "renamed.gguf"))
    assert (error.rule, error.expected) == ("split-name", "renamed-00002-of-00003.gguf")


def test_parts_under_each_others_names(tmp_path, parts):
    paths = write(tmp_path, [parts[0], parts[2], parts[1]])
    assert rejected(paths[0]).rule == "split-number"
    assert rejected(paths[1]).rule == "split-name"


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        pytest.param("split-number", part(2), id="another number"),
        pytest.param("split-count", part(1, count=4), id="another count"),
        pytest.param("split-count", Raw([("split.no", "u16", 1)]), id="no count"),
        pytest.param("split-tensors", part(1, tensors=4), id="another sum of tensors"),
        pytest.param("split-tensors", Raw(part(1).pairs), id="a tensor less"),
        pytest.param("split-type", Raw([("split.no", "string", "1")]), id="no number"),
        pytest.param("duplicate-tensor", part(1, name="x0"), id="a tensor of another part"),
        pytest.param("magic", Raw(magic=b"GGML"), id="no GGUF"),
    ],
)
def test_a_part_that_does_not_belong_to_the_others(tmp_path, parts, rule, other):
    paths = write(tmp_path, [parts[0], other, parts[2]])
    error = rejected(paths[0])
    assert error.rule == rule
    if rule != "split-tensors":
        assert error.path == str(paths[1])


def test_all_parts_count_the_tensors_wrongly(tmp_path):
    assert rejected(write(tmp_path, [part(i, tensors=9) for i in range(COUNT)])[0]).rule == (
        "split-tensors"
    )


@pytest.mark.parametrize("count", [2**16 - 1, 2**31])
def test_a_count_out_of_all_bounds(tmp_path, count):
    raw = Raw([("split.count", "u64", count)])
    assert rejected(raw.write(tmp_path / "m-00001-of-00003.gguf")).rule == "split-name"
    if count < 99_999:
        path = raw.write(tmp_path / f"m-00001-of-{count:05d}.gguf")
        assert rejected(path, NotFound).rule == "missing-shard"


def test_no_part_is_left_open(tmp_path, parts):
    paths = write(tmp_path, [*parts[:2], part(2, tensors=4)])
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        rejected(path)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
