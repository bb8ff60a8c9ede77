"""ONNX files that break one rule each, and are refused by it."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.onnx_files import DATA_TYPES, model_of, opened, package_file

from weighbridge.errors import Error, InvalidFile
from weighbridge.formats.onnx import FORMAT, plain, walk
from weighbridge.formats.onnx.plain import Plain
from weighbridge.protobuf import bytes_field, number_field, varint
from weighbridge.testing import part_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOATS = numpy_helper.from_array(np.ones((2, 2), np.float32), "w").SerializeToString()
HEAD = number_field(2, 1) + bytes_field(8, "w")
"""The type FLOAT and a name."""


def tensor(content: bytes) -> bytes:
    """Return a model with one initialiser."""
    return model(bytes_field(2, "g") + bytes_field(5, content))


def model(graph: bytes, rest: bytes = b"") -> bytes:
    """Return a model with this graph and further fields."""
    return number_field(1, 10) + bytes_field(7, graph) + rest + bytes_field(8, number_field(2, 21))


def typed(name: str, values: Sequence[int], shape: Sequence[int] | None = None) -> bytes:
    """Return a model with an initialiser whose numbers are varints."""
    dtype = DATA_TYPES[name]
    numbers = {"int32_data": 5, "int64_data": 7, "uint64_data": 11}[dtype.field]
    dims = b"".join(number_field(1, n) for n in ([len(values)] if shape is None else shape))
    data = bytes_field(numbers, b"".join(map(varint, values)))
    return tensor(dims + number_field(2, dtype.number) + bytes_field(8, "w") + data)


def nested(depth: int) -> bytes:
    """Return graphs inside each other."""
    graph = b""
    for _ in range(depth):
        graph = bytes_field(1, bytes_field(2, "o") + bytes_field(5, bytes_field(6, graph)))
    return graph


def entry(key: str, value: str) -> bytes:
    return bytes_field(1, key) + bytes_field(2, value)


def raw(length: int) -> bytes:
    return bytes_field(9, bytes(length))


REJECTED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "ir-version"),
    "no graph": (number_field(1, 10), "no-graph"),
    "no IR version": (model(b"")[2:], "ir-version"),
    "IR version 0": (number_field(1, 0) + model(b"")[2:], "ir-version"),
    "IR version -1": (number_field(1, -1) + model(b"")[2:], "ir-version"),
    "IR version that is text": (bytes_field(1, "10"), "wire-type"),
    "no operator set": (number_field(1, 10) + bytes_field(7, b""), "no-opset"),
    "two versions of operators": (model(b"", bytes_field(8, number_field(2, 1))), "duplicate-key"),
    "two graphs": (model(b"", bytes_field(7, b"")), "duplicate-field"),
    "graph that is a number": (number_field(1, 10) + number_field(7, 1), "wire-type"),
    "group": (model(b"\x0b\x0c"), "wire-type"),
    "graph longer than the file": (number_field(1, 10) + b"\x3a\x7f", "truncated"),
    "initialiser longer than the graph": (model(b"\x2a\x7f"), "overrun"),
    "unnamed initialiser": (tensor(number_field(2, 1)), "empty-name"),
    "name that is no text": (tensor(bytes_field(8, b"\xff")), "utf-8"),
    "name twice in a tensor": (tensor(HEAD + bytes_field(8, "v")), "duplicate-field"),
    "type twice": (tensor(HEAD + number_field(2, 1)), "duplicate-field"),
    "raw data twice": (tensor(number_field(1, 1) + HEAD + raw(4) + raw(4)), "duplicate-field"),
    "two initialisers of one name": (model(bytes_field(5, FLOATS) * 2), "duplicate-name"),
    "two of one name, one sparse": (
        model(
            bytes_field(5, FLOATS)
            + bytes_field(15, bytes_field(1, FLOATS) + bytes_field(2, FLOATS))
        ),
        "duplicate-name",
    ),
    "two of one name in a branch": (
        model(
            bytes_field(1, bytes_field(5, bytes_field(6, bytes_field(5, FLOATS) * 2))),
        ),
        "duplicate-name",
    ),
    "sparse without indices": (model(bytes_field(15, bytes_field(1, FLOATS))), "sparse"),
    "no type": (tensor(bytes_field(8, "w")), "dtype"),
    "unknown type": (tensor(number_field(2, 99) + bytes_field(8, "w")), "dtype"),
    "negative type": (tensor(number_field(2, -1) + bytes_field(8, "w")), "dtype"),
    "segment": (tensor(HEAD + bytes_field(3, b"")), "segment"),
    "negative axis": (tensor(number_field(1, -1) + HEAD), "shape-overflow"),
    "two negative axes": (tensor(number_field(1, -2) * 2 + HEAD + raw(16)), "shape-overflow"),
    "axes that overflow": (tensor(number_field(1, 1 << 40) * 2 + HEAD), "shape-overflow"),
    "overflow that an empty axis hides": (
        tensor(number_field(1, 1 << 40) * 2 + number_field(1, 0) + HEAD),
        "shape-overflow",
    ),
    "65 axes": (tensor(number_field(1, 1) * 65 + HEAD + raw(4)), "rank"),
    "65 packed axes": (tensor(bytes_field(1, b"\x01" * 65) + HEAD + raw(4)), "rank"),
    "no data": (tensor(number_field(1, 1) + HEAD), "data-length"),
    "too little data": (tensor(number_field(1, 2) + HEAD + raw(7)), "data-length"),
    "too much data": (tensor(number_field(1, 2) + HEAD + raw(9)), "data-length"),
    "data of an empty tensor": (tensor(number_field(1, 0) + HEAD + raw(4)), "data-length"),
    "too few floats": (
        tensor(number_field(1, 2) + HEAD + bytes_field(4, bytes(4))),
        "data-length",
    ),
    "too few single floats": (
        tensor(number_field(1, 2) + HEAD + b"\x25" + bytes(4)),
        "data-length",
    ),
    "half a float": (tensor(number_field(1, 1) + HEAD + bytes_field(4, bytes(6))), "overrun"),
    "raw and typed data": (
        tensor(number_field(1, 1) + HEAD + raw(4) + bytes_field(4, bytes(4))),
        "two-payloads",
    ),
    "empty raw and typed data": (
        tensor(number_field(1, 1) + HEAD + raw(0) + bytes_field(4, bytes(4))),
        "two-payloads",
    ),
    "two typed data": (
        tensor(number_field(1, 1) + HEAD + bytes_field(4, bytes(4)) + bytes_field(5, b"\0")),
        "two-payloads",
    ),
    "raw and external data": (
        tensor(
            number_field(1, 1)
            + HEAD
            + raw(4)
            + bytes_field(13, entry("location", "x"))
            + number_field(14, 1)
        ),
        "two-payloads",
    ),
    "floats as integers": (
        tensor(number_field(1, 1) + HEAD + bytes_field(5, b"\0")),
        "wrong-field",
    ),
    "floats as text": (tensor(number_field(1, 1) + HEAD + bytes_field(6, "a")), "wrong-field"),
    "text as floats": (
        tensor(number_field(2, 8) + bytes_field(8, "w") + bytes_field(4, bytes(4))),
        "wrong-field",
    ),
    "raw text": (tensor(number_field(2, 8) + bytes_field(8, "w") + raw(4)), "wrong-field"),
    "too few texts": (
        tensor(number_field(1, 2) + number_field(2, 8) + bytes_field(8, "w") + bytes_field(6, "")),
        "data-length",
    ),
    "elsewhere, but not where": (tensor(HEAD + number_field(14, 1)), "data-location"),
    "not elsewhere, but where": (
        tensor(HEAD + bytes_field(13, entry("location", "x"))),
        "data-location",
    ),
    "location 2": (tensor(HEAD + number_field(14, 2)), "data-location"),
    "two locations": (
        tensor(HEAD + bytes_field(13, entry("location", "x")) * 2 + number_field(14, 1)),
        "duplicate-key",
    ),
    "int8 too large": (typed("INT8", [128]), "value-range"),
    "int8 too small": (typed("INT8", [-129]), "value-range"),
    "uint8 too large": (typed("UINT8", [256]), "value-range"),
    "uint8 negative": (typed("UINT8", [-1]), "value-range"),
    "uint16 too large": (typed("UINT16", [1 << 16]), "value-range"),
    "uint32 too large": (typed("UINT32", [1 << 32]), "value-range"),
    "bool 2": (typed("BOOL", [2]), "value-range"),
    "float16 of 17 bits": (typed("FLOAT16", [1 << 16]), "value-range"),
    "float8 of 9 bits": (typed("FLOAT8E5M2", [1 << 8]), "value-range"),
    "float6 of 7 bits": (typed("FLOAT6E2M3", [1 << 6]), "value-range"),
    "pair of nine bits": (typed("INT4", [1 << 8], [2]), "value-range"),
    "one pair too many": (typed("INT4", [1, 1], [2]), "data-length"),
    "one number too few": (typed("INT64", [1], [2]), "data-length"),
    "one number too many": (typed("INT64", [1, 2], [1]), "data-length"),
    "number of 65 bits": (
        tensor(
            number_field(1, 1)
            + number_field(2, 7)
            + bytes_field(8, "w")
            + bytes_field(7, b"\xff" * 9 + b"\x02")
        ),
        "varint",
    ),
    "branch of a node with a long name": (
        model(bytes_field(1, bytes_field(2, "o" * 3000) + bytes_field(5, bytes_field(6, b"")))),
        "name-length",
    ),
    "tensors of an attribute with a long name": (
        model(bytes_field(1, bytes_field(5, bytes_field(1, "a" * 3000) + bytes_field(10, b"")))),
        "name-length",
    ),
    "function with a long name": (
        model(b"", bytes_field(25, bytes_field(1, "f" * 3000))),
        "name-length",
    ),
    "graphs too deep": (model(nested(40)), "depth"),
    "property twice": (model(b"", bytes_field(14, entry("a", "b")) * 2), "duplicate-key"),
    "property that is a fact": (
        model(b"", bytes_field(14, entry("onnx.ir_version", "1"))),
        "duplicate-key",
    ),
    "property that is no text": (model(b"", bytes_field(14, bytes_field(1, b"\xff"))), "utf-8"),
    "bytes that are no base64": (
        model(b"", bytes_field(14, entry("weighbridge.base64.x", "&"))),
        "base64",
    ),
    "bytes that are no ASCII": (
        model(b"", bytes_field(14, entry("weighbridge.base64.x", "ä"))),
        "base64",
    ),
    "config that is no JSON": (
        model(b"", bytes_field(14, entry("weighbridge.file.config.json", "{"))),
        "json",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_file_that_breaks_a_rule_is_refused_by_it(case: str, tmp_path: Path) -> None:
    content, rule = REJECTED[case]
    with pytest.raises(Error) as caught:
        opened(tmp_path / "m.onnx", content)
    assert caught.value.rule == rule
    assert caught.value.path == str(tmp_path / "m.onnx")


ACCEPTED: dict[str, tuple[bytes, list[Any]]] = {
    "axes packed": (tensor(bytes_field(1, b"\x01\x02") + HEAD + raw(8)), [[0, 0]]),
    "fields backwards": (tensor(raw(8) + HEAD + number_field(1, 2)), [0, 0]),
    "operators named twice": (
        tensor(number_field(1, 1) + HEAD + raw(4)) + bytes_field(8, number_field(2, 21)),
        [0],
    ),
    "unknown fields": (tensor(number_field(1, 1) + HEAD + raw(4) + bytes_field(99, "")), [0]),
    "empty typed field": (tensor(number_field(1, 1) + HEAD + raw(4) + b"\x22\x00"), [0]),
    "32-bit negatives": (typed("INT32", [(1 << 32) - 5]), [-5]),
    "64-bit negatives": (typed("INT8", [-5]), [-5]),
    "float16 bits as a signed number": (typed("FLOAT16", [-(1 << 15)]), [-0.0]),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_protobuf_allows_is_read_as_protobuf_does(case: str, tmp_path: Path) -> None:
    content, expected = ACCEPTED[case]
    with opened(tmp_path / "m.onnx", content) as found:
        assert found.tensors["w"].values().tolist() == expected
    (reference,) = onnx.load_from_string(content).graph.initializer
    assert numpy_helper.to_array(reference).tolist() == expected


def test_deep_graphs_are_read_as_far_as_protobuf_reads_them(tmp_path: Path) -> None:
    content = model(nested(30))
    onnx.load_from_string(content)
    with opened(tmp_path / "m.onnx", content) as found:
        assert found.graph is not None
        assert found.graph.nodes == {"": 30}


def small() -> bytes:
    """Return a model with a little of everything, whose operator sets come last."""
    branch = helper.make_graph([], "b", [], [], [numpy_helper.from_array(np.arange(3), "i")])
    nodes = [
        helper.make_node("If", ["c"], ["o"], then_branch=branch),
        helper.make_node("Constant", [], ["k"], value_ints=[1, 300]),
    ]
    made = model_of(
        numpy_helper.from_array(np.ones((2, 2), np.float32), "w"),
        helper.make_tensor("t", TensorProto.FLOAT16, (3,), [1, 2, 3]),
        helper.make_tensor("s", TensorProto.STRING, (1,), ["text"]),
        nodes=nodes,
        producer_name="me",
    )
    opsets = b"".join(bytes_field(8, o.SerializeToString()) for o in made.opset_import)
    made.ClearField("opset_import")
    return made.SerializeToString() + opsets


def test_a_file_cut_short_at_any_byte_is_refused(tmp_path: Path) -> None:
    whole = small()
    path = tmp_path / "m.onnx"
    opened(path, whole).close()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidFile):
            FORMAT.open(path)


def look(path: Path) -> None:
    with FORMAT.open(path) as found:
        for value in found.metadata.values():
            value.plain()
        for one in found.tensors.values():
            part_bytes(one)


@given(st.integers(0, len(small()) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_an_error_or_a_model(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    content = bytearray(small())
    content[at] = byte
    path = tmp_path_factory.getbasetemp() / "changed.onnx"
    path.write_bytes(content)
    with suppress(Error):
        look(path)


@given(st.binary(max_size=200))
def test_noise_gives_an_error_or_a_model(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.onnx"
    path.write_bytes(model(noise))
    with suppress(Error):
        look(path)


def test_a_refused_model_leaves_no_file_open(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile):
        opened(tmp_path / "m.onnx", REJECTED["no data"][0])
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert str(tmp_path) not in " ".join(str(link.readlink()) for link in links if link.exists())


# Recognising


def sniffed(path: Path) -> bool:
    with path.open("rb") as file:
        return FORMAT.sniff(path, file.read(4096))


@pytest.mark.parametrize("suffix", [".onnx", ".bin", ""])
def test_a_model_is_recognised_whatever_it_is_called(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(small())
    assert sniffed(path)
    path.write_bytes(small()[:60])
    assert sniffed(path)


def test_a_long_description_may_come_before_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of(doc_string="x" * 10_000).SerializeToString())
    assert sniffed(path)


def test_other_orders_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    opset, graph = bytes_field(8, number_field(2, 21)), bytes_field(7, bytes_field(2, "g"))
    path.write_bytes(number_field(1, 10) + opset + bytes_field(2, "prost") + graph)
    assert sniffed(path)


OTHERS: dict[str, bytes] = {
    "saved_model.pb": number_field(1, 1) + bytes_field(2, bytes_field(1, "meta" * 2000)),
    "small saved_model.pb": number_field(1, 1) + bytes_field(2, bytes_field(1, "meta")),
    "Core ML": number_field(1, 4) + bytes_field(2, "description") + bytes_field(500, b"net"),
    "SentencePiece": bytes_field(1, bytes_field(1, "<unk>") + b"\x15" + bytes(4)) * 10,
    "a lone version": number_field(1, 10),
    "IR version 0": number_field(1, 0) + bytes_field(7, bytes_field(2, "g")),
    "IR version 1000": number_field(1, 1000) + bytes_field(7, bytes_field(2, "g")),
    "graph of other fields": number_field(1, 10) + bytes_field(7, bytes_field(3, "g")),
    "graph of numbers": number_field(1, 10) + bytes_field(7, number_field(1, 5)),
    "long producer": number_field(1, 10)
    + bytes_field(2, "x" * 2000)
    + bytes_field(7, bytes_field(2, "g")),
    "backspace and text": b"\x08 and so on, for a while" * 100,
    "many fields": number_field(1, 10) * 2000 + bytes_field(7, bytes_field(2, "g")),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_not_recognised(case: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(OTHERS[case])
    assert not sniffed(path)


def test_a_file_of_another_real_format_is_not_recognised() -> None:
    assert not sniffed(package_file("silero_vad", "silero_vad_16k.safetensors"))
    assert not sniffed(package_file("silero_vad", "silero_vad.jit"))


# Initialisers that are read by their form


def plain_models() -> list[bytes]:
    """Return models whose initialisers are as writers write them: inside, and beside."""
    inside = [
        number_field(1, 2) + number_field(2, kind) + bytes_field(8, name) + raw(length)
        for name, kind, length in (("a", 1, 8), ("w.0", 10, 4), ("é", 11, 16), ("w.1", 10, 4))
    ]
    text = number_field(1, 1) + number_field(2, 8) + bytes_field(8, "t") + bytes_field(6, "text")
    beside = [
        number_field(1, 2)
        + number_field(2, kind)
        + bytes_field(8, name)
        + bytes_field(13, entry("location", "d"))
        + bytes_field(13, entry("offset", str(offset)))
        + bytes_field(13, entry("length", str(length)))
        + number_field(14, 1)
        for name, kind, offset, length in (("a", 1, 0, 8), ("b.c", 10, 8, 4), ("é", 11, 0, 16))
    ]
    short = number_field(1, 1) + number_field(1, 2) + HEAD + raw(8)
    fields = [bytes_field(5, each) for each in (*beside, short)]
    others = bytes_field(2, "g") + bytes_field(5, text)
    return [
        model(b"".join(bytes_field(5, each) for each in inside) + others),
        model(b"".join(fields) + others),
        model(bytes_field(2, "g") + bytes_field(5, short) + bytes_field(1, bytes_field(2, "o"))),
    ]


PIECES = [b"", b"\x08", b"\x10", b"\x80", b"\xff", b"\x00", b"\x01", b"j", b"\n", b"0", b"9", b"d",
          b"../d", b"p\x01", b"\x4a\x08", b"\x42\x01w", b"\x08\x82\x00", b"-", b" "]  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    stop = start + chance.choice((0, 0, 1, 2))
    return content[:start] + chance.choice(PIECES) + content[stop:]


def seen(path: Path) -> Any:
    """Return what is read, or the rule that says no."""
    try:
        with FORMAT.open(path) as found:
            parts = {name: part_bytes(each) for name, each in found.tensors.items()}
            texts = {key: value.plain() for key, value in found.metadata.items()}
            return [(found.tensors[name], part) for name, part in parts.items()], texts
    except Error as error:
        return error.rule, str(error)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("chunk", [0, 1 << 14])
def test_what_is_read_by_its_form_is_what_is_read_field_by_field(
    number: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(number + chunk)
    monkeypatch.setattr(plain, "_CHUNK", chunk or plain._WINDOW)
    (tmp_path / "d").write_bytes(bytes(range(16)))
    path = tmp_path / "m.onnx"
    content = plain_models()[number]
    contents = [content, *(mutated(content, chance) for _ in range(800))]
    outcomes: list[list[Any]] = [[], []]
    for way in outcomes:
        for each in contents:
            path.write_bytes(each)
            way.append(seen(path))
        monkeypatch.setattr(Plain, "_read", lambda self, at, *_: ([], at))
    assert outcomes[0] == outcomes[1]


def test_plain_initialisers_are_read_by_their_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").write_bytes(bytes(16))
    monkeypatch.setattr(walk, "Content", None)
    values = [numpy_helper.from_array(np.ones((300, n), np.float32), f"w{n}") for n in range(1, 9)]
    onnx.save(model_of(*values), tmp_path / "m.onnx")
    onnx.save(model_of(*values), tmp_path / "e.onnx", save_as_external_data=True, size_threshold=0)
    for name in ("m.onnx", "e.onnx"):
        with FORMAT.open(tmp_path / name) as found:
            assert [each.shape for each in found.tensors.values()] == [
                (300, n) for n in range(1, 9)
            ]
