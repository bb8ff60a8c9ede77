"""Dense numbers: casts against exact arithmetic, packing against the onnx package."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx
import pytest
from support import ggml

from weighbridge.encoding import DENSE, Dense
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.kernels import cast, codec_for, encode, lossless, narrow_exactly
from weighbridge.kernels.dense import pack, unpack
from weighbridge.kernels.ranges import range_of
from weighbridge.testing.encodings import EncodingContract

SMALL = [dense for dense in DENSE.values() if dense.bits <= 16]
SMALL_FLOATS = [dense for dense in SMALL if dense.name[0] in "bf" and dense.name != "bool"]
REAL = [dense for dense in DENSE.values() if dense.name not in ("c64", "c128")]


def contract(dense: Dense) -> type[EncodingContract]:
    class Contract(EncodingContract):
        codec = codec_for(dense)

    Contract.__qualname__ = Contract.__name__ = f"Test{dense.name.upper()}"
    return Contract


for _dense in REAL[1:]:  # Random f64 are no float32, which is what a codec gives.
    globals()[f"Test{_dense.name.upper()}"] = contract(_dense)


def every_number(dense: Dense) -> np.ndarray:
    """All the numbers of an encoding of at most 16 bits, in the order of their codes."""
    codes = np.arange(1 << (1 if dense.name == "bool" else dense.bits))
    return codes.astype(np.uint8 if dense.bits <= 8 else np.uint16).view(dense.dtype)


def as_doubles(numbers: np.ndarray) -> np.ndarray:
    """The same numbers in the widest type, by the libraries' own casts."""
    with np.errstate(all="ignore"):
        plain = numbers if numbers.dtype.isbuiltin == 1 else numbers.astype(np.float32)
        return plain.astype(np.float64)


def identities(numbers: np.ndarray) -> set[int]:
    """The numbers as bits, which tell the zeros apart; there is but one "not a number"."""
    doubles = as_doubles(numbers)
    doubles[np.isnan(doubles)] = np.nan
    return set(doubles.view(np.uint64).tolist())


def holds(target: Dense, doubles: np.ndarray) -> bool:
    """Tell, for a wide encoding, whether it holds all of these numbers."""
    finite = doubles[np.isfinite(doubles)]
    if target.dtype.kind in "fc":
        return target.bits > 32 or bool((finite.astype(np.float32) == finite).all())
    limits = np.iinfo(target.dtype)
    inside = (finite >= limits.min) & (finite <= limits.max) & (finite == np.floor(finite))
    signed_zeros = (finite == 0) & np.signbit(finite)
    return finite.size == doubles.size and bool((inside & ~signed_zeros).all())


@pytest.mark.parametrize("source", SMALL, ids=lambda dense: dense.name)
def test_lossless_says_what_is_so(source: Dense) -> None:
    numbers = every_number(source)
    for target in DENSE.values():
        if target.bits <= 16:
            expected = identities(numbers) <= identities(every_number(target))
        else:
            expected = holds(target, as_doubles(numbers))
        assert lossless(source, target) == expected, target.name


def test_lossless_between_wide_types() -> None:
    wide = [dense for dense in DENSE.values() if dense.bits > 16]
    pairs = {(a.name, b.name) for a, b in itertools.product(wide, wide) if lossless(a, b)}
    assert pairs == {(dense.name, dense.name) for dense in wide} | {
        ("f32", "f64"), ("f32", "c64"), ("f32", "c128"), ("f64", "c128"), ("c64", "c128"),
        ("i32", "i64"), ("i32", "f64"), ("i32", "c128"),
        ("u32", "u64"), ("u32", "i64"), ("u32", "f64"), ("u32", "c128"),
    }  # fmt: skip


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("source", SMALL, ids=lambda dense: dense.name)
def test_lossless_casts_change_nothing(source: Dense) -> None:
    numbers = every_number(source)
    for target in REAL:
        if lossless(source, target):
            got = cast(numbers, target)
            assert got.dtype == target.dtype
            assert identities(got) == identities(numbers)
            assert np.array_equal(as_doubles(got), as_doubles(numbers), equal_nan=True)


def test_lossless_casts_to_complex_numbers() -> None:
    assert cast(np.float32([1.5, -2]), DENSE["c64"]).tolist() == [1.5, -2]
    assert cast(np.complex64([1.5j]), DENSE["c128"]).tolist() == [1.5j]


def nearest(values: np.ndarray, target: Dense) -> np.ndarray:
    """Round float64 `values` in range to `target`, by comparing with the exact midpoints."""
    numbers = every_number(target)
    doubles = as_doubles(numbers)
    magnitudes = np.unique(np.abs(doubles[np.isfinite(doubles)]))
    above = np.searchsorted(magnitudes, np.abs(values)).clip(1, len(magnitudes) - 1)
    low, high = magnitudes[above - 1], magnitudes[above]
    middle = (low + high) / 2
    # Codes of magnitudes count up from zero, so that every other one is even.
    up = (np.abs(values) > middle) | ((np.abs(values) == middle) & (above % 2 == 0))
    return np.copysign(np.where(up, high, low), values)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize(
    "target", [t for t in SMALL_FLOATS if t.name != "f8_e8m0"], ids=lambda dense: dense.name
)
def test_rounds_once_to_nearest_even(target: Dense, kind: type) -> None:
    doubles = as_doubles(every_number(target))
    magnitudes = np.unique(np.abs(doubles[np.isfinite(doubles)]))
    middles = (magnitudes[:-1] + magnitudes[1:]) / 2
    around = [magnitudes, middles, np.nextafter(middles, 0), np.nextafter(middles, np.inf)]
    around += [np.random.default_rng(1).uniform(0, magnitudes[-1], 20_000)]
    values = np.concatenate(around).astype(kind)
    values = np.concatenate([values, -values])
    got = as_doubles(cast(values, target))
    assert np.array_equal(got, nearest(values.astype(np.float64), target))
    signs = np.signbit(got) == np.signbit(values)
    assert signs.all() or not range_of(target).minus_zero


def test_rounds_powers_of_two() -> None:
    values = np.float32([1, 1.4, 1.6, 3.1, 2**-127, 2**127])
    assert cast(values, DENSE["f8_e8m0"]).astype(float).tolist() == [1, 1, 2, 4, 2**-127, 2**127]


@pytest.mark.usefixtures("kernels")
def test_bf16_is_ggml_s() -> None:
    bits = np.random.default_rng(2).integers(0, 1 << 32, 200_000).astype(np.uint32)
    nan = np.uint32([0x7F800001, 0xFF812345, 0x7FFFFFFF, 0x7FC00000])
    values = np.concatenate([bits, nan]).view(np.float32)
    values = values[~(np.abs(values) > 3.38e38)]
    assert np.isnan(values).any()
    assert np.array_equal(cast(values, DENSE["bf16"]).view(np.uint16), ggml.to_bf16(values))


@pytest.mark.usefixtures("kernels")
def test_f16_widens_as_numpy_does() -> None:
    halves = every_number(DENSE["f16"]).reshape(256, 256)[::-1, ::2]
    with np.errstate(all="ignore"):
        assert np.array_equal(cast(halves, DENSE["f32"]), halves.astype(np.float32), equal_nan=True)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["f16", "bf16", "f8_e5m2"])
def test_infinities_and_nan_stay(name: str) -> None:
    got = cast(np.float32([np.inf, -np.inf, np.nan, -0.0] * 5), DENSE[name]).astype(np.float32)
    assert got[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(got[2])
    assert np.signbit(got[3])


OUT_OF_RANGE = [
    (np.float32, 65520, "f16"),
    (np.float32, -65520, "f16"),
    (np.float32, 3.4e38, "bf16"),
    (np.float64, 3.5e38, "f32"),
    (np.float32, 464.1, "f8_e4m3"),
    (np.float32, np.inf, "f8_e4m3"),
    (np.float32, -np.inf, "f8_e5m2fnuz"),
    (np.float32, 61440, "f8_e5m2"),
    (np.float32, 7, "f4"),
    (np.float32, np.nan, "f4"),
    (np.float32, np.inf, "f6_e3m2"),
    (np.float32, 0, "f8_e8m0"),
    (np.float32, -1, "f8_e8m0"),
    (np.float32, 127.5, "i8"),
    (np.float32, -0.6, "u8"),
    (np.float32, np.nan, "i32"),
    (np.float32, 2.0**63, "i64"),
    (np.int64, 2**31, "i32"),
    (np.int64, -1, "u64"),
    (np.uint64, 2**63, "i64"),
    (np.int32, 8, "i4"),
    (np.int32, 70000, "f16"),
    (np.int8, 2, "bool"),
]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("kind", "bad", "target"), OUT_OF_RANGE)
def test_refuses_what_is_out_of_range(kind: type, bad: float, target: str) -> None:
    values = np.ones(21, kind)
    values[3] = bad
    with pytest.raises(InvalidInput) as raised:
        encode(DENSE[target], values)
    assert raised.value.rule == "overflow"
    assert raised.value.got == values[3] or math.isnan(bad)


def test_holds_what_is_just_in_range() -> None:
    assert cast(np.float32([65519.996]), DENSE["f16"]).tolist() == [65504]
    assert cast(np.float32([464]), DENSE["f8_e4m3"]).astype(float).tolist() == [448]
    assert cast(np.float64([127.49, -128.5, 2.5]), DENSE["i8"]).tolist() == [127, -128, 2]
    assert cast(np.uint64([2**63 - 1]), DENSE["i64"]).tolist() == [2**63 - 1]
    assert cast(np.int64([2**63 - 1]), DENSE["u64"]).tolist() == [2**63 - 1]
    assert cast(np.float32([0, 1]), DENSE["bool"]).tolist() == [False, True]
    assert cast(np.int64([-(2**40) - 1]), DENSE["bf16"]).astype(float).tolist() == [-(2.0**40)]


def test_casts_16_bits_to_16_bits() -> None:
    halves = np.float16([1.5, 65504, -0.0, 2**-24])
    assert cast(halves, DENSE["bf16"]).astype(float).tolist() == [1.5, 65536, -0.0, 2**-24]
    with pytest.raises(InvalidInput):
        cast(np.float32([65520]).astype(DENSE["bf16"].dtype), DENSE["f16"])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["bf16", "f16"])
def test_narrow_exactly(name: str) -> None:
    exact = every_number(DENSE[name]).astype(np.float32)
    narrow = narrow_exactly(exact, DENSE[name])
    assert np.array_equal(narrow.astype(np.float32), exact, equal_nan=True)
    with pytest.raises(InvalidInput) as raised:
        narrow_exactly(np.float32([1, 1.0001]), DENSE[name])
    assert raised.value.rule == "inexact"
    assert raised.value.got == np.float32(1.0001)


def test_refuses_to_round_integers_twice() -> None:
    with pytest.raises(InvalidInput) as raised:
        cast(np.int64([2**53 + 2**45 + 1]), DENSE["bf16"])
    assert raised.value.rule == "inexact"


@pytest.mark.parametrize("values", [np.ones(1, np.complex64), np.ones(1, ">f4"), np.ones(1, "S1")])
def test_refuses_other_types(values: np.ndarray) -> None:
    with pytest.raises(Unsupported) as raised:
        cast(values, DENSE["f32"])
    assert raised.value.rule == "dtype"


def test_any_byte_but_zero_is_true() -> None:
    booleans = np.uint8([0, 1, 2, 255]).view(np.bool_)
    assert cast(booleans, DENSE["f32"]).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 31, 32, 33])
@pytest.mark.parametrize("name", ["i4", "u4", "i2", "u2", "f4"])
def test_packs_as_onnx_does(name: str, count: int) -> None:
    dense = DENSE[name]
    numbers = np.resize(every_number(dense)[::-1], count)
    packed = pack(numbers, dense)
    assert packed.tobytes() == onnx.numpy_helper.from_array(numbers).raw_data
    assert packed.size == dense.nbytes((count,))
    assert packed.flags.c_contiguous
    assert np.array_equal(unpack(packed, dense, count), numbers)


@pytest.mark.parametrize("name", ["f6_e2m3", "f6_e3m2"])
def test_packs_four_numbers_in_three_bytes(name: str) -> None:
    dense = DENSE[name]
    numbers = np.uint8([0b000001, 0b100000, 0b111111, 0b000011, 0b101010]).view(dense.dtype)
    packed = pack(numbers, dense)
    assert packed.tolist() == [0b00_000001, 0b1111_1000, 0b000011_11, 0b00_101010]
    assert np.array_equal(unpack(packed, dense, 5), numbers)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3)])
def test_small_and_empty_arrays(shape: tuple[int, ...]) -> None:
    for source, target in itertools.product(("f64", "bf16", "i8", "u4"), ("f16", "i4", "f8_e5m2")):
        assert cast(np.ones(shape, DENSE[source].dtype), DENSE[target]).shape == shape
