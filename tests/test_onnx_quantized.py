"""Quantised weights in ONNX graphs, run by ONNX Runtime and judged by gguf-py's numbers."""

from __future__ import annotations

import pickle
import tracemalloc

import gguf
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import smollm2
from support.quantized_graphs import (
    F16,
    I64,
    Program,
    blocks,
    decoded,
    encoded,
    error,
    product,
    same_bytes,
    turned,
)

import weighbridge as wb
from weighbridge import region as regions
from weighbridge.converters.graphs.quantized import Aim, Choice, InBlocks, quantize
from weighbridge.converters.graphs.quantized.forms import FORMS
from weighbridge.converters.graphs.quantized.matrix import Matrix
from weighbridge.converters.graphs.quantized.sources import rounded, source_of
from weighbridge.encoding import DENSE
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.kernels.ggml.affine import AFFINE
from weighbridge.ops import Concat, Split, Stack, Transpose, apply
from weighbridge.parted import parted
from weighbridge.parts import scaled_encoding
from weighbridge.recode import recode
from weighbridge.steps import Route, route_of
from weighbridge.tensor import Lazy, from_array

TYPES = tuple(AFFINE)
EXACT = (Aim.EXACT, Aim.SMALL)
CLOSE = 1e-5
"""The largest error of what is called exact: of float32 sums over some hundred products."""

COARSE = 2e-2
"""The largest error where activations are rounded to 8 bits."""


def activations(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def odd_blocks(type: str, rows: int, columns: int) -> wb.Tensor:
    """Return blocks of any codes; some of the scales are 0, some negative, minima likewise."""
    encoding, rng = BLOCKED[type], np.random.default_rng(3)
    count = rows * columns // encoding.grain
    made = np.frombuffer(rng.bytes(count * encoding.grain_bytes), encoding.dtype).copy()
    factors = rng.choice(np.float16([0, -0.25, 0.5, 1.5]), count)
    for field in {"d", "dmin", "m"} & set(encoding.dtype.names):
        made[field] = (
            rng.permutation(factors) if type != "nvfp4" else rng.integers(0, 64, (count, 4))
        )
    if type == "mxfp4":
        made["e"] = rng.integers(120, 125, count)
    if type == "iq1_m":
        nibbles = factors.view(np.uint16)[:, None] << np.array([12, 8, 4, 0], np.uint16)
        made["scales"] = made["scales"] & 0x0FFF | nibbles & 0xF000
    return blocks(type, made.view(np.uint8).reshape(rows, -1))


@pytest.mark.parametrize("aim", Aim)
@pytest.mark.parametrize("type", TYPES)
def test_products_of_every_type(type, aim):
    tensor = encoded(type, 72, 768)
    program = product(tensor).quantized(quantize, Choice(aim))
    assert "w" not in program.initializers
    assert "MatMulNBits" in program.ops
    for rows in (1, 5):
        x = activations(2, rows, 768)
        (found,) = program.run(x)
        assert error(found, x @ decoded(tensor).T) < (CLOSE if aim in EXACT else COARSE)


def read_back(matrix: Matrix) -> np.ndarray:
    """Return the numbers that a matrix's parts stand for, by the operators' documentation alone."""
    bits, split, group = matrix.form.bits, matrix.form.split, matrix.source.group
    shifts = np.arange(0, 8, bits)

    def unpacked(packed: np.ndarray) -> np.ndarray:
        return (packed[:, :, None] >> shifts & (1 << bits) - 1).reshape(len(packed), -1)

    scales = matrix.scales.values().astype(np.float64)
    zeros = np.full(scales.shape, 1 << bits - 1)
    if matrix.has_zeros:
        zeros = unpacked(matrix.zeros.values())[:, : scales.shape[1]]
    cells = unpacked(matrix.codes.values()).reshape(*scales.shape, group)
    numbers = (cells - zeros[:, :, None]) * scales[:, :, None]
    if split:
        numbers = numbers[:, : matrix.source.groups] + numbers[:, matrix.source.groups :]
    if matrix.has_offsets:
        numbers += matrix.offsets.values()[:, :, None]
    return numbers.reshape(len(scales), -1)


@pytest.mark.parametrize("make", [encoded, odd_blocks])
@pytest.mark.parametrize("type", TYPES)
def test_parts_hold_the_very_numbers(type, make):
    """No bit of what gguf-py decodes is lost in any form but that of float zero points."""
    tensor = make(type, 16, 1024)
    for form in set(FORMS[type]):
        if not form.floating:
            found = read_back(Matrix(source_of(tensor), form)).astype(np.float32)
            np.testing.assert_array_equal(found, decoded(tensor).astype(np.float32))


@pytest.mark.parametrize("aim", EXACT)
@pytest.mark.parametrize("type", TYPES)
def test_scales_of_zero_and_negative_ones(type, aim):
    tensor = odd_blocks(type, 40, 512)
    x = activations(1, 4, 512)
    (found,) = product(tensor).quantized(quantize, Choice(aim)).run(x)
    assert error(found, x @ decoded(tensor).T) < CLOSE


@pytest.mark.parametrize("type", ["q8_0", "q5_k", "q4_0"])
def test_long_rows(type):
    """Errors do not grow with the length of a row beyond what is called exact."""
    tensor = encoded(type, 16, 14336)
    x = activations(1, 3, 14336)
    (found,) = product(tensor).quantized(quantize).run(x)
    assert error(found, x @ decoded(tensor).T) < CLOSE


def test_real_weights_in_one_graph():
    """A layer's products share what they need of the activations, and rows may have moved."""
    tensors = wb.open(smollm2()).tensors
    names = [f"blk.0.{name}.weight" for name in ("ffn_gate", "ffn_up", "ffn_down")]
    program, x = Program(), activations(1, 6, 576)
    given = program.input(["batch", "rows", 576])
    moved = apply(Concat(0, (1000, 536)), apply(Split(0, (536, 1000)), [tensors[names[1]]])[::-1])
    gate = program.node("MatMul", given, program.weight("gate", turned(tensors[names[0]])), axes=3)
    up = program.node("MatMul", given, program.weight("up", turned(moved[0])), axes=3)
    both = program.node("Mul", gate, up, axes=3)
    down = program.node("MatMul", both, program.weight("down", turned(tensors[names[2]])), axes=3)
    program.output(down).quantized(quantize)
    assert program.ops.count("MatMulNBits") == 3
    assert program.ops.count("ReduceSum") == 2
    assert {route_of(tensor) for tensor in program.weights.values()} == {Route.REPACK}

    real = {t.name: t for t in gguf.GGUFReader(smollm2()).tensors if t.name in names}
    first, second, third = (
        gguf.quants.dequantize(real[name].data, real[name].tensor_type).astype(np.float64)
        for name in names
    )
    right = ((x @ first.T) * (x @ np.roll(second, -536, axis=0).T)) @ third.T
    assert error(program.run(x)[0], right) < CLOSE


def looked_up(tensor: wb.Tensor, axes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return some rows as a graph and as gguf-py has them."""
    program = Program()
    ids = program.input(None if axes is None else ["n"] * axes, I64)
    program.output(program.node("Gather", program.weight("w", tensor), ids))
    program.quantized(quantize)
    assert "GatherBlockQuantized" in program.ops
    asked = np.array([3, 49, 0, -1]).reshape((1,) * ((axes or 2) - 1) + (4,))
    return program.run(asked)[0], decoded(tensor)[asked].astype(np.float32)


@pytest.mark.parametrize("type", TYPES)
def test_embeddings_of_every_type(type):
    """Rows are what gguf-py decodes; with minima, but for the last bits."""
    found, right = looked_up(encoded(type, 50, 256), 2)
    if AFFINE[type].least:
        assert error(found, right) < 3e-7
    else:
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("axes", [1, 3, None])
@pytest.mark.parametrize("type", ["q8_0", "q4_k"])
def test_ids_of_any_rank(type, axes):
    found, right = looked_up(encoded(type, 50, 256), axes)
    assert found.shape == right.shape
    assert error(found, right) < 3e-7


@pytest.mark.parametrize("aim", Aim)
@pytest.mark.parametrize("type", TYPES)
def test_a_tied_weight_is_stored_once(type, aim):
    tensor = encoded(type, 64, 256)
    program = Program()
    ids = program.input(["n", "m"], I64)
    rows = program.node("Gather", program.weight("embedding", tensor), ids, axes=3)
    head = program.weight("head", turned(tensor))
    program.output(program.node("MatMul", rows, head, axes=3)).quantized(quantize, Choice(aim))
    alone = product(tensor).quantized(quantize, Choice(aim))
    form = FORMS[type][list(Aim).index(aim)]
    if not form.floating:
        assert same_bytes(program.weights) == same_bytes(alone.weights)
        codes = [t for t in program.weights.values() if isinstance(t, InBlocks)]
        assert codes[0].inner in program.weights.values()
    asked = np.arange(-3, 3).reshape(2, 3)
    values = decoded(tensor)
    (found,) = program.run(asked)
    assert error(found, values[asked] @ values.T) < (CLOSE if aim in EXACT else COARSE)


def test_a_real_tied_embedding():
    """The bytes that a look-up and a product read are one lazy tensor."""
    tensor = wb.open(smollm2()).tensors["token_embd.weight"]
    part = apply(Split(0, (300, tensor.shape[0] - 300)), [tensor])[0]
    program = Program()
    ids = program.input(["n"], I64)
    rows = program.node("Gather", program.weight("embedding", part), ids, axes=2)
    head = program.node("MatMul", rows, program.weight("head", turned(part)), axes=2)
    program.output(rows, head).quantized(quantize)
    values = part.values()
    found, logits = program.run(np.arange(7))
    np.testing.assert_array_equal(found, values[:7])
    assert error(logits, values[:7].astype(np.float64) @ values.T) < CLOSE


def test_one_weight_of_several_products():
    tensor = encoded("q4_k", 256, 256)
    program = Program()
    x = program.input(["rows", 256])
    weight = program.weight("w", turned(tensor))
    first = program.node("MatMul", x, weight, axes=2)
    second = program.node("MatMul", first, weight, axes=2)
    third = program.node("MatMul", x, weight, axes=2)
    program.output(second, third).quantized(quantize)
    assert len(program.weights) == 3
    assert program.ops.count("MatMulNBits") == 3
    x = activations(5, 256)
    values = decoded(tensor)
    twice, once = program.run(x)
    assert error(once, x @ values.T) < CLOSE
    assert error(twice, x @ values.T @ values.T) < CLOSE


@pytest.mark.parametrize("transposed", [False, True])
def test_a_linear_layer_with_a_bias(transposed):
    tensor = encoded("q5_1", 48, 256)
    bias = activations(48, seed=5)
    program = Program()
    x = program.input(["rows", 256])
    weight = program.weight("w", tensor if transposed else turned(tensor))
    added = program.weight("b", from_array("b", bias))
    program.output(program.node("Gemm", x, weight, added, transB=int(transposed), axes=2))
    program.quantized(quantize)
    assert "Gemm" not in program.ops
    x = activations(3, 256)
    assert error(program.run(x)[0], x @ decoded(tensor).T + bias) < CLOSE


def test_a_transpose_in_the_graph():
    """As exporters leave it where a head shares the table of embeddings."""
    tensor = encoded("q6_k", 64, 256)
    program = Program()
    weight = program.weight("w", tensor)
    rows = program.node("Gather", weight, program.input(["n"], I64), axes=2)
    program.output(program.node("MatMul", rows, program.node("Transpose", weight), axes=2))
    program.quantized(quantize)
    assert "w" not in program.initializers
    assert "Transpose" not in program.ops
    asked = np.arange(9)
    values = decoded(tensor)
    assert error(program.run(asked)[0], values[asked] @ values.T) < CLOSE


def test_a_scaled_product_is_left_alone():
    tensor = encoded("q8_0", 48, 256)
    program = Program()
    x = program.input(["rows", 256])
    bias = program.weight("b", from_array("b", np.zeros(48, np.float32)))
    weight = program.weight("w", tensor)
    program.output(program.node("Gemm", x, weight, bias, transB=1, alpha=0.5, axes=2))
    program.quantized(quantize)
    assert program.ops == ["Gemm"]
    assert [note.kind for note in program.report.notes] == ["decoded"]
    x = activations(3, 256)
    assert error(program.run(x)[0], x @ decoded(tensor).T / 2) < CLOSE


@pytest.mark.parametrize("type", ["q4_0", "q4_k", "q8_0", "q6_k"])
def test_graphs_of_float16(type):
    """Scales keep their digits: only activations and results are of float16."""
    tensor = encoded(type, 64, 256)
    program = Program(F16)
    ids = program.input(["n", "m"], I64)
    rows = program.node("Gather", program.weight("embedding", tensor), ids, axes=3)
    head = program.weight("head", turned(tensor))
    program.output(rows, program.node("MatMul", rows, head, axes=3)).quantized(quantize)
    asked = np.arange(6).reshape(2, 3)
    values = decoded(tensor)
    found, logits = program.run(asked)
    assert found.dtype == logits.dtype == np.float16
    np.testing.assert_allclose(found, values[asked], rtol=2**-10, atol=1e-6)
    right = found.astype(np.float64) @ values.T
    np.testing.assert_allclose(logits, right, rtol=2**-10, atol=1e-4)


@pytest.mark.parametrize("aim", EXACT)
def test_activations_of_unknown_rank(aim):
    tensor = encoded("q5_k", 24, 256)
    program = Program()
    x = program.input(None)
    program.output(program.node("MatMul", x, program.weight("w", turned(tensor))))
    program.quantized(quantize, Choice(aim))
    x = activations(2, 1, 3, 256)
    assert error(program.run(x)[0], x @ decoded(tensor).T) < CLOSE


def test_joined_weights_of_different_types():
    """Queries, keys and values as one product, of which one is stored otherwise (Q4_K_M does)."""
    parts = [encoded(type, 64, 256, n, type) for n, type in enumerate(("q4_k", "q4_k", "q6_k"))]
    joined = apply(Concat(1, (64, 64, 64)), [turned(part) for part in parts])[0]
    program = Program()
    x = program.input(["rows", 256])
    program.output(program.node("MatMul", x, program.weight("qkv", joined), axes=2))
    program.quantized(quantize)
    assert program.ops.count("MatMulNBits") == 3
    x = activations(4, 256)
    right = np.concatenate([x @ decoded(part).T for part in parts], axis=1)
    assert error(program.run(x)[0], right) < CLOSE


def test_joined_weights_of_one_type():
    parts = [encoded("q4_k", 64, 256, n, f"w{n}") for n in range(3)]
    joined = apply(Concat(1, (64, 64, 64)), [turned(part) for part in parts])[0]
    program = Program()
    x = program.input(["rows", 256])
    program.output(program.node("MatMul", x, program.weight("qkv", joined), axes=2))
    program.quantized(quantize)
    assert program.ops.count("MatMulNBits") == 1
    x = activations(4, 256)
    right = np.concatenate([x @ decoded(part).T for part in parts], axis=1)
    assert error(program.run(x)[0], right) < CLOSE


def test_what_has_no_exact_form_is_decoded():
    """As stacked experts, of which ONNX Runtime's products have no form."""
    tensor = encoded("q4_0", 64, 96)
    experts = apply(Stack(2), apply(Split(0, (32, 32)), [tensor]))[0]
    program = Program()
    x = program.input([2, "rows", 96])
    weight = program.weight("w", apply(Transpose((0, 2, 1)), [experts])[0])
    program.output(program.node("MatMul", x, weight, axes=3)).quantized(quantize)
    assert program.ops == ["MatMul"]
    assert program.weights["w"].encoding == DENSE["f32"]
    (note,) = program.report.notes
    assert (note.kind, note.subject) == ("decoded", "w")
    assert "Q4_0" in note.text
    x = activations(2, 3, 96)
    right = x @ decoded(tensor).reshape(2, 32, 96).transpose(0, 2, 1)
    assert error(program.run(x)[0], right) < CLOSE


def test_scales_beyond_float32_are_refused():
    tensor = blocks("mxfp4", np.full((1, 17), 254, np.uint8))
    program = product(tensor).quantized(quantize)
    with pytest.raises(wb.InvalidInput) as caught:
        program.weights["w.scales"].values()
    assert caught.value.rule == "overflow"
    assert product(tensor).quantized(quantize, Choice(Aim.SMALL)).weights["w.scales"].values().size


def test_fp8_is_decoded_or_rounded_anew():
    """Its codes are floats: no form has steps that are not equal."""
    values = activations(32, 128)
    parts = wb.encode_parts(values, "fp8_row")
    tensor = parted(
        (1, 128), data=from_array("q", parts["data"]), scale=from_array("s", parts["scale"])
    )
    program = product(tensor).quantized(quantize)
    assert program.ops == ["MatMul"]
    assert ["F8_E4M3" in note.text for note in program.report.notes] == [True]
    assert product(tensor).quantized(quantize, Choice.of("int8")).ops == ["Concat", "MatMulNBits"]


def test_a_product_in_a_branch():
    """A subgraph reads the initialisers of the graph around it."""
    tensor = encoded("q4_0", 16, 64)
    program = Program()
    x = program.input(["n", 64])
    condition = program.input([], ir.DataType.BOOL)
    weight = program.weight("w", turned(tensor))
    branches = []
    for op, inputs in (("MatMul", (x, weight)), ("ReduceMax", (x,))):
        node = ir.node(op, inputs)
        node.outputs[0].name = f"of_{op}"
        branches.append(ir.Graph([], node.outputs, nodes=[node], name=op))
    chosen = program.node("If", condition, then_branch=branches[0], else_branch=branches[1], axes=2)
    program.output(chosen).quantized(quantize)
    assert [node.op_type for node in branches[0]] == ["MatMulNBits"]
    x = activations(2, 64)
    assert error(program.run(x, np.array(True))[0], x @ decoded(tensor).T) < CLOSE


def test_floats_are_left_alone():
    program = product(from_array("w", activations(32, 100)))
    program.quantized(quantize)
    assert program.ops == ["MatMul"]
    assert not program.report.notes
    assert not program.model.opset_imports.get("com.microsoft")


def plainly(values: np.ndarray, bits: int, group: int, asymmetric: bool) -> np.ndarray:
    """Return numbers rounded to integers in groups, by the formulas alone."""
    count = -(-values.shape[1] // group)
    padded = np.pad(values, ((0, 0), (0, count * group - values.shape[1])))
    cells = padded.reshape(len(values), count, group)
    if asymmetric:
        low = np.minimum(cells.min(axis=2, keepdims=True), np.float32(0))
        high = np.maximum(cells.max(axis=2, keepdims=True), np.float32(0))
        scale = (high - low) / np.float32(2**bits - 1)
        zero = np.rint(-low / scale)
        codes = np.clip(np.rint(cells / scale) + zero, 0, 2**bits - 1)
    else:
        scale = np.abs(cells).max(axis=2, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
        zero = np.float32(0)
        codes = np.rint(cells / scale)
    numbers = (codes.astype(np.float64) - zero) * scale
    return numbers.reshape(padded.shape)[:, : values.shape[1]]


@pytest.mark.parametrize("aim", Aim)
@pytest.mark.parametrize("columns", [100, 256])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 128), (8, 32), (8, 64)])
def test_float_weights_are_rounded(bits, group, asymmetric, columns, aim):
    """Also where rows are no whole number of blocks."""
    name = f"int{bits}{f'_g{group}' if group != 32 else ''}{'_asym' * asymmetric}"
    values = activations(40, columns, seed=7)
    program = product(from_array("w", values)).quantized(quantize, Choice.of(name, aim))
    assert {note.kind for note in program.report.notes} == {"rounded"}
    assert {route_of(program.weights[f"w.{part}"]) for part in ("codes", "scales")} == {
        Route.DECODE
    }
    x = activations(1, 3, columns)
    right = x @ plainly(values, bits, group, asymmetric).T
    assert error(program.run(x)[0], right) < (CLOSE if aim in EXACT else COARSE)


def test_blocks_that_are_made_on_the_way_are_called_rounded():
    made = recode(from_array("w", activations(32, 64)), BLOCKED["q4_0"])
    program = product(made).quantized(quantize)
    assert [note.kind for note in program.report.notes] == ["rounded"]
    assert {route_of(tensor) for tensor in program.weights.values()} == {Route.DECODE}
    x = activations(1, 2, 64)
    assert error(program.run(x)[0], x @ made.values().astype(np.float64).T) < CLOSE


def test_what_rounding_leaves_alone():
    """Embeddings stay floats, unless a product that is rounded uses them as well."""
    table, tied = (from_array(name, activations(64, 96, seed=2)) for name in ("table", "tied"))
    program = Program()
    ids = program.input(["n"], I64)
    alone = program.node("Gather", program.weight("alone", table), ids, axes=2)
    shared = program.node("Gather", program.weight("shared", tied), ids, axes=2)
    head = program.node("MatMul", alone, program.weight("head", turned(tied)), axes=2)
    program.output(alone, shared, head).quantized(quantize, Choice.of("int4"))
    assert program.ops.count("GatherBlockQuantized") == program.ops.count("Gather") == 1
    first, second, logits = program.run(np.arange(5))
    right = plainly(table.values(), 4, 32, asymmetric=False)
    np.testing.assert_array_equal(first, table.values()[:5])
    assert error(second, right[:5]) < CLOSE
    assert error(logits, first.astype(np.float64) @ right.T) < CLOSE


@pytest.mark.parametrize("aim", EXACT)
@pytest.mark.parametrize("group", [96, 128, 256])
def test_a_checkpoint_of_integers_stays_as_it_is(group, aim):
    """As GPTQ and AWQ store them; blocks that MatMulNBits does not take are cut into smaller."""
    rng = np.random.default_rng(8)
    codes = rng.integers(0, 16, (40, 768), np.uint8)
    zeros = rng.integers(0, 16, (40, 768 // group), np.uint8)
    scales = rng.uniform(0.5, 1, zeros.shape).astype(np.float16)
    tensor = parted((1, group), data=Fours(codes), scale=from_array("s", scales), zero=Fours(zeros))
    program = product(tensor).quantized(quantize, Choice(aim))
    assert {route_of(t) for t in program.weights.values()} == {Route.REPACK}
    spread = [part.astype(np.float64).repeat(group, axis=1) for part in (zeros, scales)]
    x = activations(1, 3, 768)
    right = x @ ((codes - spread[0]) * spread[1]).T
    assert error(program.run(x)[0], right) < CLOSE


def test_a_checkpoint_of_mxfp4_stays_as_it_is():
    values = activations(24, 128)
    encoding = scaled_encoding("mxfp4", values.shape)
    parts = wb.encode_parts(values, "mxfp4")
    octets = {name: part.reshape(-1).view(np.uint8) for name, part in parts.items()}
    program = product(wb.Tensor("w", values.shape, encoding, octets)).quantized(quantize)
    assert {route_of(t) for t in program.weights.values()} == {Route.REPACK}
    x = activations(1, 3, 128)
    assert (
        error(program.run(x)[0], x @ wb.decode_parts(parts, "mxfp4").T.astype(np.float64)) < CLOSE
    )


class Fours(Lazy):
    """Numbers of four bits in memory, one to an item."""

    encoding = DENSE["u4"]

    def __init__(self, numbers):
        self.numbers, self.shape = numbers.astype(self.encoding.dtype), numbers.shape

    def grains(self, region):
        raise NotImplementedError

    def compute(self, region):
        return self.numbers[regions.slices(region)]

    def leaves(self):
        return iter(())


class Endless(Lazy):
    """Blocks that are made when they are asked for."""

    def __init__(self, type, shape):
        self.encoding, self.shape = BLOCKED[type], shape

    def grains(self, region):
        shape = regions.extent(region)
        raw = np.zeros((*shape, self.encoding.grain_bytes), np.uint8)
        raw[..., 0] = np.arange(region[0][0], region[0][1])[:, None]
        return raw.view((np.void, self.encoding.grain_bytes))[..., 0]

    def compute(self, region):
        raise NotImplementedError

    def leaves(self):
        return iter(())


@pytest.mark.parametrize("aim", EXACT)
@pytest.mark.parametrize("type", ["q4_k", "q8_0", "q2_k"])
def test_memory_is_bounded_by_the_region(type, aim):
    tensor = Endless(type, (100_000, 4096))
    matrix = Matrix(source_of(tensor), getattr(FORMS[type], aim))
    made = [InBlocks(matrix.codes, matrix.blocks), matrix.codes, matrix.scales]
    made += [matrix.zeros] if matrix.has_zeros else []
    made += [matrix.offsets] if matrix.has_offsets else []
    tracemalloc.start()
    for part in made:
        for start in range(0, 2048, 512):
            part.grains(((start, start + 512), *regions.whole(part.shape[1:])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


@given(data=st.data(), type=st.sampled_from([*TYPES, "int4", "int8"]), aim=st.sampled_from(Aim))
def test_any_region_is_that_of_the_whole(data, type, aim):
    if type in TYPES:
        source = source_of(odd_blocks(type, 7, 512))
    else:
        values = from_array("w", activations(7, 100))
        source = rounded(values, Choice.of(f"{type}_asym").floats)
    matrix = Matrix(source, getattr(FORMS[type], aim))
    parts = [matrix.codes, InBlocks(matrix.codes, matrix.blocks), matrix.scales]
    parts += [matrix.zeros] if matrix.has_zeros else []
    parts += [matrix.offsets] if matrix.has_offsets else []
    part = pickle.loads(pickle.dumps(data.draw(st.sampled_from(parts))))
    region = []
    for length in part.shape:
        start = data.draw(st.integers(0, length - 1))
        region.append((start, data.draw(st.integers(start + 1, length))))
    whole = part.values()
    assert whole.shape == part.shape
    assert whole.dtype == part.encoding.dtype
    np.testing.assert_array_equal(part.compute(tuple(region)), whole[regions.slices(tuple(region))])


@pytest.mark.parametrize("name", ["int5", "int4_g24", "int4_g256", "q4_k", "int4_asym_g32", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(wb.InvalidInput) as caught:
        Choice.of(name, "exact") if name else Choice.of(None, "swift")
    assert caught.value.rule == "quantize"
    assert "int4" in str(caught.value)


def test_rounding_refuses_what_is_not_finite():
    values = activations(8, 64)
    values[3, 5] = np.inf
    program = product(from_array("w", values)).quantized(quantize, Choice.of("int8"))
    with pytest.raises(wb.InvalidInput) as caught:
        program.weights["w.codes"].values()
    assert caught.value.rule == "not-finite"
