"""Encoding and decoding arrays: ggml's bytes for any shape and dtype, in any number of threads."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING

import gguf
import libgguf
import ml_dtypes
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, quants
from support.gguf_files import smollm2
from support.tree import run_python

import weighbridge as wb
from weighbridge import coding
from weighbridge.encoding import DENSE, scaled
from weighbridge.kernels.ggml import BLOCKED, GGML

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = {kind.name: kind for kind, (grain, _) in GGML_QUANT_SIZES.items() if grain > 1}
BY_C = ["Q4_K", "Q6_K", "IQ4_XS", "MXFP4", "NVFP4"]
BY_PYTHON = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"]
ENCODERS = [name.upper() for name, codec in GGML.items() if codec.encode]
UNWEIGHTED = [name.upper() for name, codec in GGML.items() if not codec.encode]


def random_rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@functools.cache
def real_rows() -> np.ndarray:
    tensors = gguf.GGUFReader(smollm2()).tensors
    found = next(tensor for tensor in tensors if tensor.name == "blk.3.ffn_down.weight")
    return quants.dequantize(found.data[:40], found.tensor_type)


ROWS: dict[str, Callable[[], np.ndarray]] = {
    "random": lambda: random_rows(40, 512),
    "SmolLM2": real_rows,
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", BY_C)
def test_encodes_as_c_does(name: str, rows: str) -> None:
    values = ROWS[rows]()
    packed = wb.encode(values, name)
    assert packed.dtype == np.uint8
    assert np.array_equal(packed, libgguf.quantize_rows(values, TYPES[name]))
    assert np.array_equal(wb.decode(packed, name), quants.dequantize(packed, TYPES[name]))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", BY_PYTHON)
def test_encodes_as_gguf_does(name: str, rows: str) -> None:
    values = ROWS[rows]()
    packed = wb.encode(values, name)
    assert np.array_equal(packed, quants.quantize(values, TYPES[name]))
    assert np.array_equal(wb.decode(packed, name), quants.dequantize(packed, TYPES[name]))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_casts_as_gguf_does(name: str) -> None:
    values = random_rows(3, 5, 7)
    expected = quants.quantize(values, gguf.GGMLQuantizationType[name]).view(np.uint8)
    packed = wb.encode(values, name)
    assert np.array_equal(packed, expected)
    assert packed.shape == (3, 5, 7 * packed.itemsize * DENSE[name.lower()].bits // 8)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("F8_E4M3", torch.float8_e4m3fn),
        ("F8_E5M2", torch.float8_e5m2),
        ("bfloat16", torch.bfloat16),
    ],
)
def test_casts_as_torch_does(name: str, theirs: torch.dtype) -> None:
    values = torch.from_numpy(random_rows(9, 33))
    packed = wb.encode(values, name)
    assert np.array_equal(packed, values.to(theirs).view(torch.uint8).numpy())
    assert np.array_equal(wb.decode(packed, name), values.to(theirs).float().numpy())


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_takes_any_shape(name: str) -> None:
    values = random_rows(3, 2, 256)
    packed = wb.encode(values, name)
    encoding = BLOCKED[name.lower()]
    assert packed.shape == (3, 2, 256 // encoding.grain * encoding.grain_bytes)
    assert np.array_equal(packed[1, 1], wb.encode(values[1, 1], name))
    decoded = wb.decode(packed, name)
    assert decoded.shape == values.shape
    assert np.array_equal(decoded[2], wb.decode(packed[2].tobytes(), name, (2, 256)))
    assert np.array_equal(decoded, wb.decode(packed.reshape(-1), name, values.shape))


@pytest.mark.parametrize("name", ["Q8_1", "Q8_K", "IQ1_M"])
def test_decodes_what_nothing_encodes(name: str) -> None:
    data = np.zeros((2, BLOCKED[name.lower()].grain_bytes), np.uint8)
    assert not wb.decode(data, name).any()


@pytest.mark.parametrize("name", ["F64", "F16", "F6_E2M3", "F4", "I8", "I4", "U2", "I64", "BOOL"])
def test_dense_numbers_come_back(name: str) -> None:
    values = np.array([[0, 1, 1, 0], [1, 1, 0, 0]], np.float32)
    packed = wb.encode(values, name)
    assert packed.shape == (2, 4 * DENSE[name.lower()].bits // 8)
    own = wb.decode(packed, name, dtype=None)
    assert own.dtype == DENSE[name.lower()].dtype
    assert np.array_equal(wb.encode(own, name), packed)
    assert np.array_equal(wb.decode(packed, name), values)


def test_numbers_of_less_than_a_byte_need_no_whole_rows_to_be_decoded() -> None:
    assert wb.decode(bytes([0x21, 0x03]), "I4", (1, 3)).tolist() == [[1, 2, 3]]


DTYPES = [np.float64, np.float16, ml_dtypes.bfloat16, np.int16, ">f4", ">f8"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "F16"])
def test_other_dtypes_are_rounded_to_float32_first(name: str, dtype: np.dtype) -> None:
    values = (random_rows(4, 256) * 100).astype(dtype)
    assert np.array_equal(wb.encode(values, name), wb.encode(values.astype(np.float32), name))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_torch_tensors(dtype: torch.dtype) -> None:
    values = torch.from_numpy(random_rows(256, 4)).to(dtype).requires_grad_().T
    expected = wb.encode(values.detach().float().numpy(), "Q6_K")
    packed = wb.encode(values, "Q6_K")
    assert np.array_equal(packed, expected)
    assert np.array_equal(wb.decode(torch.from_numpy(packed), "Q6_K"), wb.decode(packed, "Q6_K"))


def test_arrays_need_not_be_contiguous() -> None:
    values = random_rows(512, 12)
    packed = wb.encode(values.T, "Q5_K")
    assert np.array_equal(packed, wb.encode(np.ascontiguousarray(values.T), "Q5_K"))
    wide = np.zeros((12, 2 * packed.shape[1]), np.uint8)
    wide[:, ::2] = packed
    assert np.array_equal(wb.decode(wide[:, ::2], "Q5_K"), wb.decode(packed, "Q5_K"))


@pytest.mark.parametrize(
    "dtype", ["float16", "bf16", torch.bfloat16, np.float16, ml_dtypes.bfloat16], ids=str
)
def test_the_dtype_of_the_result(dtype: object) -> None:
    packed = wb.encode(random_rows(2, 256), "Q4_K")
    found = wb.decode(packed, "Q4_K", dtype=dtype)
    assert np.array_equal(found, wb.decode(packed, "Q4_K").astype(found.dtype))
    assert found.dtype.itemsize == 2
    assert wb.decode(packed, "Q4_K", dtype=None).dtype == np.float32


@pytest.mark.parametrize("shape", [(0, 256), (3, 0), (0,), (2, 0, 32)])
@pytest.mark.parametrize("name", ["Q8_0", "BF16"])
def test_nothing(shape: tuple[int, ...], name: str) -> None:
    packed = wb.encode(np.zeros(shape, np.float32), name)
    assert packed.size == 0
    assert wb.decode(packed, name).shape == shape
    assert wb.decode(b"", name, shape).shape == shape


@pytest.mark.parametrize("shape", [(50, 512), (1, 25600), (25600,), (800, 32), (2, 5, 2560)])
@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_threads_give_the_same(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], threads: int | None
) -> None:
    values = random_rows(*shape)
    expected = wb.encode(values, "Q5_1")
    monkeypatch.setattr(coding, "PIECE", 1000)
    assert np.array_equal(wb.encode(values, "Q5_1", threads=threads), expected)
    decoded = wb.decode(expected, "Q5_1", threads=threads)
    assert np.array_equal(decoded, quants.dequantize(expected, TYPES["Q5_1"]))


def test_a_scalar_is_decoded() -> None:
    assert wb.decode(bytes.fromhex("803f"), "BF16", ()).tolist() == 1.0


def refused(call: Callable[[], object]) -> wb.Error:
    with pytest.raises(wb.Error) as raised:
        call()
    assert "\n" not in str(raised.value)
    return raised.value


def with_one(bad: float, at: int = 300) -> np.ndarray:
    values = random_rows(64, 256).astype(np.float64)
    values.flat[at] = bad
    return values


REFUSED: dict[str, tuple[object, str, str]] = {
    "a recipe": (random_rows(2, 256), "Q4_K_M", "unknown-encoding"),
    "no name": (random_rows(2, 256), "", "unknown-encoding"),
    "rows of 576": (random_rows(2, 576), "Q4_K", "block-size"),
    "rows of 33": (random_rows(2, 33), "Q8_0", "block-size"),
    "half a byte": (random_rows(2, 3), "I4", "block-size"),
    "no rows": (np.float32(1), "F16", "shape"),
    "NaN in Q4_K": (with_one(math.nan), "Q4_K", "not-finite"),
    "infinity in Q8_0": (with_one(math.inf), "Q8_0", "not-finite"),
    "NaN in F4": (with_one(math.nan), "F4", "overflow"),
    "NaN in I8": (with_one(math.nan), "I8", "overflow"),
    "no float32, in Q4_K": (with_one(1e39), "Q4_K", "overflow"),
    "no float32": (with_one(1e39), "F32", "overflow"),
    "too large for F16": (with_one(70000), "F16", "overflow"),
    "too large for F8_E4M3": (with_one(500), "F8_E4M3", "overflow"),
    "too large for I8": (with_one(300), "I8", "overflow"),
    "too large for a grid": (with_one(1e25), "IQ3_S", "overflow"),
    "complex": (random_rows(2, 256).astype(np.complex64), "Q4_K", "dtype"),
    "text": (np.array(["a"]), "F16", "dtype"),
    "a list": ([[1.0] * 32], "Q8_0", "dtype"),
    "a meta tensor": (torch.empty(2, 256, device="meta"), "Q4_K", "storage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_encoded_is_refused(case: str) -> None:
    values, name, rule = REFUSED[case]
    assert refused(lambda: wb.encode(values, name)).rule == rule


@pytest.mark.parametrize("name", UNWEIGHTED)
def test_what_is_not_encoded_without_weights_is_refused_by_name(name: str) -> None:
    error = refused(lambda: wb.encode(random_rows(1, 256), name))
    assert error.rule == ("importance" if GGML[name.lower()].weighted else "no-encoder")
    assert error.problem.startswith(f"{name} ")


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_any_thread_is_raised(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(coding, "PIECE", 1000)
    values = with_one(math.nan, at=-1)
    assert refused(lambda: wb.encode(values, "Q4_K", threads=threads)).rule == "not-finite"


def test_an_error_says_what_would_fit() -> None:
    fitting = re.findall(r"\w+", refused(lambda: wb.encode(random_rows(1, 576), "Q4_K")).hint or "")
    assert {"Q8_0", "Q4_0", "IQ4_NL", "MXFP4", "F16"} < set(fitting)
    assert not {"Q4_K", "Q6_K", "IQ4_XS", "Q8_1"} & set(fitting)
    for name in fitting[2:]:
        wb.encode(random_rows(1, 576), name)
    nothing = refused(lambda: wb.encode(random_rows(1, 7), "Q4_K"))
    assert nothing.hint == "what fits: F16"


def test_an_error_says_which_name_is_like_it() -> None:
    error = refused(lambda: wb.encode(random_rows(1, 256), "Q4_K_M"))
    assert (error.got, error.hint) == ("Q4_K_M", "is Q4_K meant?")


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((bytes(143), "Q4_K"), "part-size"),
        ((np.zeros((2, 145), np.uint8), "Q4_K"), "part-size"),
        ((bytes(144), "Q4_K", (2, 256)), "part-size"),
        ((bytes(144), "Q4_K", (8, 32)), "block-size"),
        ((bytes(3), "BF16"), "part-size"),
        ((bytes(2), "I4", (3, 1)), None),
        ((bytes(144), "Q4_X"), "unknown-encoding"),
        ((bytes(144), "Q4_K", None, "float31"), "encoding"),
        ((bytes(144), "Q4_K", (-1, 256)), "shape"),
        ((np.zeros(144, np.float32), "Q4_K"), "dtype"),
        ((torch.zeros(144), "Q4_K"), "dtype"),
        ((bytes(4), scaled(DENSE["f8_e4m3"], DENSE["f32"], (2,))), "unknown-encoding"),
        ((np.float32([1e30]).tobytes(), "F32", None, "f16"), "overflow"),
    ],
)
def test_what_cannot_be_decoded_is_refused(arguments: tuple, rule: str | None) -> None:
    if rule is None:
        assert wb.decode(*arguments).shape == (3, 1)
    else:
        assert refused(lambda: wb.decode(*arguments)).rule == rule


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_one_or_more(threads: int) -> None:
    assert refused(lambda: wb.encode(random_rows(1, 32), "Q8_0", threads=threads)).rule == "threads"


def test_no_framework_is_needed() -> None:
    code = """
import sys
import numpy as np
import weighbridge as wb
assert wb.decode(wb.encode(np.ones((2, 32), np.float32), "Q8_0"), "q8_0").all()
print(sorted({"torch", "numba", "gguf", "typer"} & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"
