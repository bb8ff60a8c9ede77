"""The public face of the kernels: any encoding by name, in bytes, out numbers, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tree import run_python

from weighbridge import registry
from weighbridge.encoding import DENSE, Blocked, Scaled, blocked, scaled
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels import Codec, codec_for, decode, encode
from weighbridge.kernels.ggml import BLOCKED, GGML
from weighbridge.testing.encodings import EncodingContract

Q8_0 = BLOCKED["q8_0"]


def rule_of(call, *arguments) -> str:
    with pytest.raises((InvalidInput, Unsupported)) as raised:
        call(*arguments)
    return raised.value.rule


@pytest.mark.parametrize("wrap", [bytes, memoryview, np.frombuffer], ids=lambda w: w.__name__)
def test_dense_numbers_are_a_view(wrap) -> None:
    data = np.arange(6, dtype="<i2").tobytes()
    part = np.frombuffer(data, np.uint8) if wrap is np.frombuffer else wrap(data)
    numbers = decode(DENSE["i16"], {"data": part}, (2, 3), None)
    assert numbers.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(numbers, np.frombuffer(data, np.uint8))
    assert not numbers.flags.writeable


def test_parts_need_not_be_contiguous() -> None:
    data = np.arange(24, dtype=np.uint8).reshape(4, 6)[:, :2]
    assert decode(DENSE["u8"], {"data": data}, (4, 2), None).tolist() == data.tolist()


@pytest.mark.parametrize("target", ["f16", "float16", "half", DENSE["f16"]])
def test_decodes_to_the_type_that_is_asked_for(target) -> None:
    data = encode(Q8_0, np.linspace(-1, 1, 64, dtype=np.float32))
    got = decode(Q8_0, {"data": data}, (64,), target)
    assert got.dtype == np.float16
    assert np.array_equal(got, decode(Q8_0, {"data": data}, (64,)).astype(np.float16))


def test_refuses_a_number_out_of_the_target_s_range() -> None:
    data = encode(Q8_0, np.full((1, 32), 1e6, np.float32))
    assert rule_of(decode, Q8_0, {"data": data}, (32,), "f16") == "overflow"


def test_quantised_numbers_are_float32() -> None:
    assert decode(Q8_0, {"data": bytes(34)}, (32,), None).dtype == np.float32
    fp8 = scaled(DENSE["f8_e4m3"], DENSE["f32"], ())
    assert decode(fp8, {"data": bytes(3), "scale": bytes(4)}, (3,), None).dtype == np.float32


def test_encodes_numbers_of_any_type() -> None:
    values = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float16)
    expected = encode(Q8_0, values.astype(np.float32)).tobytes()
    for kind in (np.float16, np.float64):
        assert encode(Q8_0, values.astype(kind)).tobytes() == expected
    assert encode(Q8_0, np.asfortranarray(values)).tobytes() == expected
    assert (
        encode(Q8_0, np.ones((1, 32), np.int8)).tobytes()
        == encode(Q8_0, np.ones((1, 32), np.float32)).tobytes()
    )


def test_large_tensors_are_decoded_in_pieces() -> None:
    count = 3 * 256 * 1024 + 320
    data = np.random.default_rng(1).integers(0, 256, count // 32 * 18).astype(np.uint8)
    codec = codec_for("q4_0")
    whole = codec.decode(codec.blocks(data)).reshape(-1)
    got = decode(codec.encoding, {"data": data}, (count,))
    assert np.array_equal(got, whole, equal_nan=True)
    finite = np.nan_to_num(got).clip(-1e4, 1e4)
    again = encode(codec.encoding, finite)
    assert again.tobytes() == codec.encode(finite.reshape(-1, 32)).tobytes()


@pytest.mark.parametrize("parts", [{}, {"data": bytes(33)}, {"data": bytes(35)}])
def test_refuses_parts_of_another_size(parts) -> None:
    assert rule_of(decode, Q8_0, parts, (32,)) == "part-size"


@pytest.mark.parametrize("shape", [(33,), ()])
def test_refuses_rows_that_are_no_whole_blocks(shape) -> None:
    assert rule_of(decode, Q8_0, {"data": bytes(34)}, shape) == "block-size"
    assert rule_of(encode, Q8_0, np.zeros(shape, np.float32)) == "block-size"


def test_refuses_unknown_names() -> None:
    assert rule_of(codec_for, "q9_9") == "unknown-encoding"
    assert rule_of(decode, Q8_0, {"data": bytes(34)}, (32,), "f99") == "dtype"
    other = blocked("q8_0", 64, [("d", "<f2"), ("qs", "i1", (64,))], 66)
    assert rule_of(decode, other, {"data": bytes(66)}, (64,)) == "unknown-encoding"


def test_nothing_encodes_to_scaled_encodings() -> None:
    fp8 = scaled(DENSE["f8_e4m3"], DENSE["f32"], (128, 128))
    assert rule_of(encode, fp8, np.zeros((128, 128), np.float32)) == "no-encoder"


def expected_scaled(encoding: Scaled, element, scale, zero, shape) -> np.ndarray:
    """The formula, one value after the other."""
    values = np.empty(shape, np.float32)
    free = len(shape) - len(encoding.block)
    for index in np.ndindex(*shape):
        inner = (i // b for i, b in zip(index[free:], encoding.block, strict=True))
        at = (*index[:free], *inner) if encoding.block else ()
        shifted = np.float32(element[index]) - np.float32(0 if zero is None else zero[at])
        values[index] = shifted * np.float32(scale[at])
    return values


@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
    block=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    element=st.sampled_from(["u4", "i4", "i8", "u8", "f8_e4m3", "f4", "f32"]),
    scale=st.sampled_from(["f32", "f16", "bf16", "f8_e8m0"]),
    zero=st.sampled_from([None, "u4", "i8"]),
    seed=st.integers(0, 99),
)
def test_scaled_formula(shape, block, element, scale, zero, seed) -> None:
    encoding = scaled(DENSE[element], DENSE[scale], block[: len(shape)], zero and DENSE[zero])
    random = np.random.default_rng(seed)
    scales_shape = encoding.scales_shape(shape)
    numbers, parts = {}, {}
    for part, dense, extent in (
        ("data", encoding.element, shape),
        ("scale", encoding.scale, scales_shape),
        ("zero", encoding.zero, scales_shape),
    ):
        if dense is None:
            numbers[part] = None
            continue
        kind = np.int8 if dense.name in ("i4", "i8", "u4", "u8") else np.float32
        numbers[part] = 2 ** random.integers(0, 3, extent).astype(kind)
        parts[part] = encode(dense, numbers[part])
    expected = expected_scaled(encoding, *(numbers[p] for p in ("data", "scale", "zero")), shape)
    assert np.array_equal(decode(encoding, parts, shape), expected)


def test_scaled_numbers_do_not_change_their_source() -> None:
    data, scale = np.float32([1, 2]), np.float32([3, 3])
    encoding = scaled(DENSE["f32"], DENSE["f32"], (1,))
    parts = {"data": data.view(np.uint8), "scale": scale.view(np.uint8)}
    assert decode(encoding, parts, (2,)).tolist() == [3, 6]
    assert data.tolist() == [1, 2]


def test_scaled_tensors_may_be_empty() -> None:
    encoding = scaled(DENSE["f8_e4m3"], DENSE["f32"], (128, 128))
    assert decode(encoding, {"data": b"", "scale": b""}, (0, 128)).shape == (0, 128)


def test_importing_kernels_imports_no_tables() -> None:
    seen = run_python(
        "import sys, weighbridge.kernels as kernels\n"
        "print('weighbridge.kernels.ggml' in sys.modules)\n"
        "codec = kernels.codec_for('q4_k')\n"
        "codec.decode(codec.blocks(bytes(144)))\n"
        "print('weighbridge.kernels.ggml.grids' in sys.modules)\n"
    )
    assert seen.split() == ["False", "False"]


NF2 = blocked("nf2", 4, [("codes", "u1")], 1)


def decode_nf2(blocks):
    """Return two bits each."""
    return (blocks["codes"][:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3).astype(np.float32)


def test_codecs_of_other_distributions(monkeypatch) -> None:
    codec = Codec(NF2, decode_nf2)
    monkeypatch.setattr(registry, "encodings", lambda: {"nf2": codec, "q4_k": codec})
    assert decode(NF2, {"data": b"\x1b"}, (4,)).tolist() == [3, 2, 1, 0]
    assert codec_for("nf2") is codec
    assert codec_for("q4_k") is GGML["q4_k"]
    assert rule_of(encode, NF2, np.zeros((1, 4), np.float32)) == "no-encoder"


class TestNF2(EncodingContract):
    codec = Codec(NF2, decode_nf2)

    def reference_decode(self, blocks):
        fields = [[byte >> shift & 3 for shift in (0, 2, 4, 6)] for byte in blocks.tobytes()]
        return np.array(fields, np.float32)


def forgetful(values):
    """Return zeros, whatever the values are."""
    return np.zeros(len(values) + 1, NF2.dtype)


class Miscounted(Blocked):
    def nbytes(self, shape):
        return super().nbytes(shape) + 1


BROKEN = {
    "test_size_formula": Codec(Miscounted("x", 4, 1, NF2.dtype), decode_nf2),
    "test_block_is_as_large_as_the_encoding_says": Codec(Blocked("x", 4, 2, NF2.dtype), decode_nf2),
    "test_decodes_any_bytes": Codec(NF2, lambda blocks: decode_nf2(blocks).astype(np.float64)),
    "test_decodes_no_blocks": Codec(NF2, lambda blocks: decode_nf2(blocks)[:, : len(blocks)]),
    "test_decodes_a_block_without_its_neighbours": Codec(
        NF2, lambda blocks: decode_nf2(blocks) + len(blocks)
    ),
    "test_decodes_as_the_reference_does": Codec(NF2, lambda blocks: decode_nf2(blocks) + 1),
    "test_encodes_what_it_decoded": Codec(NF2, decode_nf2, forgetful),
    "test_encodes_a_block_without_its_neighbours": Codec(NF2, decode_nf2, forgetful),
    "test_is_documented": Codec(NF2, lambda blocks: decode_nf2(blocks)),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_contract_finds_broken_promises(promise: str) -> None:
    proof = TestNF2()
    getattr(proof, promise)()
    proof = type("Broken", (TestNF2,), {"codec": BROKEN[promise]})()
    with pytest.raises(AssertionError):
        getattr(proof, promise)()
