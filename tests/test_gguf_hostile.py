"""Each file here breaks one rule, or is cut or bent somewhere; none may raise anything else."""

from __future__ import annotations

import contextlib
import gc
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
from support.gguf_files import Raw

from weighbridge.errors import Error, InvalidFile, NotFound
from weighbridge.formats.gguf import FORMAT
from weighbridge.formats.gguf.types import MAX_DEPTH, MAX_NESTED, MAX_STRINGS

F32, Q4_0, Q4_2, Q4_0_4_4 = 0, 2, 4, 31

GOOD = Raw(
    [
        ("general.architecture", "string", "llama"),
        ("general.alignment", "u32", 32),
        ("x.flag", "bool", True),
        ("x.tokens", "array", ("string", ["a", "", "ccc"])),
        ("x.scores", "array", ("f32", [0.5, -1])),
        ("x.nested", "array", ("array", [("u8", [1, 2]), ("bool", [False])])),
    ],
    [("a", [32, 2], Q4_0, 0), ("b", [3], F32, 64)],
    bytes(64 + 12),
)


def rejected(path):
    with pytest.raises(InvalidFile) as error:
        FORMAT.open(path)
    assert error.value.path == str(path)
    assert "\n" not in str(error.value)
    return error.value


def test_the_file_that_the_others_are_made_from_is_good(tmp_path):
    model = FORMAT.open(GOOD.write(tmp_path / "good"))
    assert list(model.tensors) == ["a", "b"]


def key_value(key, type, value):
    return replace(GOOD, pairs=[*GOOD.pairs, (key, type, value)])


def tensors(*infos, data=GOOD.data):
    return replace(GOOD, tensors=list(infos), data=data)


def info(content):
    """Return a file with one tensor, whose description begins with `content`."""
    return replace(GOOD, tensors=[], tensor_count=1, data=content + bytes(99), alignment=1)


CASES = {
    "magic": {
        "another format": replace(GOOD, magic=b"PK\3\4"),
        "GGML": replace(GOOD, magic=b"lmgg"),
        "GGJT": replace(GOOD, magic=b"tjgg"),
        "swapped": replace(GOOD, magic=b"FUGG"),
    },
    "version": {
        "0": replace(GOOD, version=0),
        "1": replace(GOOD, version=1),
        "1, big-endian": replace(GOOD, version=1, order=">"),
        "4": replace(GOOD, version=4),
        "4, big-endian": replace(GOOD, version=4, order=">"),
    },
    "count": {
        "tensors": replace(GOOD, tensor_count=1 << 63),
        "tensors, nearly": replace(GOOD, tensor_count=len(GOOD.content()) // 24 + 1),
        "pairs": replace(GOOD, pair_count=(1 << 64) - 1),
        "key": key_value("x", 8, b""),
        "string": key_value("x", 8, struct.pack("<Q", 1 << 62)),
        "numbers": key_value("x", 9, struct.pack("<IQ", 4, 1 << 61)),
        "strings": key_value("x", 9, struct.pack("<IQ", 8, 1 << 61)),
        "arrays": key_value("x", 9, struct.pack("<IQ", 9, 1 << 61)),
        "string in an array": key_value("x", 9, struct.pack("<IQQ", 8, 1, 1 << 62)),
        "name": info(struct.pack("<Q", 1 << 40)),
    },
    "utf-8": {
        "key": key_value(b"\xff", "u8", 0),
        "name": tensors((b"\xc0\x80", [1], F32, 0)),
    },
    "key-length": {
        "empty": key_value("", "u8", 0),
        "long": key_value("x" * 65536, "u8", 0),
    },
    "duplicate-key": {
        "beside": key_value("x.nested", "u8", 0),
        "architecture": key_value("general.architecture", "string", "llama"),
    },
    "unknown-value-type": {
        "scalar": key_value("x", 13, b""),
        "array": key_value("x", "array", (13, [])),
        "nested": key_value("x", "array", ("array", [(99, [])])),
        "negative": key_value("x", 2**32 - 1, b""),
    },
    "bool": {
        "scalar": key_value("x", "bool", b"\2"),
        "array": key_value("x", "array", ("bool", [b"\1", b"\xff"])),
    },
    "nesting": {
        "deep": key_value("x", 9, struct.pack("<IQ", 9, 1) * MAX_DEPTH + struct.pack("<IQ", 0, 0)),
        "very deep": key_value("x", 9, struct.pack("<IQ", 9, 1) * 100_000),
        "wide": key_value("x", "array", ("array", [("u8", [])] * (MAX_NESTED + 1))),
    },
    "alignment": {
        "zero": replace(GOOD, pairs=[("general.alignment", "u32", 0)]),
        "four": replace(GOOD, pairs=[("general.alignment", "u32", 4)]),
        "no power of two": replace(GOOD, pairs=[("general.alignment", "u32", 24)]),
        "of another type": replace(GOOD, pairs=[("general.alignment", "u64", 32)]),
        "text": replace(GOOD, pairs=[("general.alignment", "string", "32")]),
        "list": replace(GOOD, pairs=[("general.alignment", "array", ("u32", [32]))]),
    },
    "dimensions": {
        "five": tensors(("a", [1] * 5, F32, 0)),
        "many": info(struct.pack("<QI", 0, 2**32 - 1)),
    },
    "zero-dimension": {
        "only": tensors(("a", [0], F32, 0)),
        "first": tensors(("a", [0, 3], F32, 0)),
        "last": tensors(("a", [32, 0], Q4_0, 0)),
    },
    "shape-overflow": {
        "one axis": tensors(("a", [1 << 63], F32, 0)),
        "negative": tensors(("a", [(1 << 64) - 1], F32, 0)),
        "product": tensors(("a", [1 << 32, 1 << 32], F32, 0)),
        "four axes": tensors(("a", [1 << 62, 4, 1, 1], F32, 0)),
    },
    "unknown-type": {
        "removed": tensors(("a", [32], Q4_2, 0)),
        "repacked": tensors(("a", [32], Q4_0_4_4, 0)),
        "new": tensors(("a", [32], 43, 0)),
        "negative": tensors(("a", [32], 2**32 - 1, 0)),
    },
    "block-size": {
        "half a block": tensors(("a", [16, 4], Q4_0, 0)),
        "no axes": tensors(("a", [], Q4_0, 0)),
    },
    "offset-alignment": {
        "odd": tensors(("a", [1], F32, 33)),
        "four": tensors(("a", [1], F32, 4)),
    },
    "overlap": {
        "same place": tensors(("a", [1], F32, 0), ("b", [1], F32, 0)),
        "partly": tensors(("b", [3], F32, 32), ("a", [16], F32, 0)),
    },
    "outside-file": {
        "by one": replace(GOOD, data=GOOD.data[:-1]),
        "no data": replace(GOOD, data=b""),
        "offset": tensors(("a", [1], F32, 1 << 40)),
        "largest offset": tensors(("a", [1], F32, (1 << 64) - 32)),
        "length": tensors(("a", [1 << 40], F32, 0)),
        "largest length": tensors(("a", [(1 << 63) - 1], F32, 0)),
    },
    "duplicate-tensor": {
        "two": tensors(("a", [1], F32, 0), ("a", [1], F32, 32)),
    },
}  # fmt: skip

PARAMETERS = [
    pytest.param(rule, raw, id=f"{rule}: {name}")
    for rule, cases in CASES.items()
    for name, raw in cases.items()
]


@pytest.mark.parametrize(("rule", "raw"), PARAMETERS)
def test_a_broken_rule_is_named(tmp_path, rule, raw):
    path = raw.write(tmp_path / "bad.gguf")
    assert rejected(path).rule == rule
    assert FORMAT.sniff(path, raw.content()[:4096]) == (raw.magic in (b"GGUF", b"lmgg", b"tjgg"))


def of_rules(*rules):
    return [parameter for parameter in PARAMETERS if parameter.values[0] in rules]


@pytest.mark.parametrize(
    ("rule", "raw"),
    of_rules("magic", "version", "unknown-value-type", "bool", "alignment", "unknown-type")
    + of_rules("overlap", "block-size", "zero-dimension", "shape-overflow", "outside-file"),
)
def test_it_is_the_same_rule_in_a_big_endian_file(tmp_path, rule, raw):
    assert rejected(replace(raw, order=">").write(tmp_path / "bad.gguf")).rule == rule


@pytest.mark.parametrize(
    ("rule", "raw"),
    of_rules("zero-dimension", "shape-overflow", "unknown-type", "block-size", "overlap")
    + of_rules("outside-file", "offset-alignment", "duplicate-tensor"),
)
def test_the_tensor_is_named(tmp_path, rule, raw):
    assert rejected(raw.write(tmp_path / "bad.gguf")).tensor in ("a", "b")


def test_removed_types_are_refused_by_name(tmp_path):
    error = rejected(tensors(("a", [32], Q4_0_4_4, 0)).write(tmp_path / "a"))
    assert "Q4_0_4_4" in str(error)


def test_former_formats_are_refused_by_name(tmp_path):
    assert "GGJT" in str(rejected(replace(GOOD, magic=b"tjgg").write(tmp_path / "a")))


ORDERS = [pytest.param("<", id="little"), pytest.param(">", id="big")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("version", [2, 3])
def test_cut_at_every_byte(tmp_path, version, order):
    content = replace(GOOD, version=version, order=order).content()
    path = tmp_path / "cut.gguf"
    rules = set()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        rules.add(rejected(path).rule)
    assert rules == {"truncated", "count", "outside-file"}


@pytest.mark.parametrize("order", ORDERS)
def test_long_arrays_cut_anywhere(tmp_path, order):
    raw = Raw([("x", "array", ("string", [f"{i}" for i in range(400)]))], order=order)
    content = raw.header()
    path = tmp_path / "cut.gguf"
    for length in range(24, len(content), 7):
        path.write_bytes(content[:length])
        assert rejected(path).rule in ("truncated", "count")


@pytest.mark.parametrize("order", ORDERS)
def test_bent_at_every_byte(tmp_path, order):
    """A file with a wrong byte opens or is refused; no other error comes of it."""
    content = bytearray(replace(GOOD, order=order).content())
    path = tmp_path / "bent.gguf"
    for place in range(len(content) - len(GOOD.data)):
        for flipped in (0x01, 0x80, 0xFF):
            content[place] ^= flipped
            path.write_bytes(content)
            with contextlib.suppress(Error):
                FORMAT.open(path)
            content[place] ^= flipped


def test_random_headers(tmp_path):
    random = np.random.default_rng(1)
    path = tmp_path / "random.gguf"
    for _ in range(300):
        path.write_bytes(b"GGUF\3\0\0\0" + bytes([1, *[0] * 7] * 2) + random.bytes(200))
        rejected(path)


def test_a_sparse_file_costs_no_memory(tmp_path):
    """Counts that a large file allows, though there is nothing in it."""
    head = Raw(pair_count=1).header()
    path = tmp_path / "sparse.gguf"
    for value in (
        struct.pack("<IIQ", 9, 8, MAX_STRINGS + 1),
        struct.pack("<IIQ", 9, 7, 1 << 31),
        struct.pack("<IIQ", 9, 9, MAX_NESTED + 1),
        struct.pack("<IIQ", 9, 4, 1 << 35),
    ):
        path.write_bytes(head + struct.pack("<Qc", 1, b"x") + value)
        os.truncate(path, 1 << 40)
        assert rejected(path).rule in ("count", "nesting")


def test_no_file(tmp_path):
    with pytest.raises(NotFound) as error:
        FORMAT.open(tmp_path / "none.gguf")
    assert error.value.rule == "not-found"


def test_a_refused_file_is_not_held_open(tmp_path):
    path = replace(GOOD, data=b"").write(tmp_path / "a.gguf")
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        rejected(path)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
