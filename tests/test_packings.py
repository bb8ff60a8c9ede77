"""Quantised checkpoints are read as what their own libraries say that they are, number for number.

Referees: compressed-tensors (``BaseCompressor.decompress``, ``AutoAWQConverter``), transformers
(``Fp8Dequantize``, ``convert_moe_packed_tensors``), and what AutoGPTQ once gave
(``data/autogptq.json``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support import command, tiny
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import weighbridge as wb
from weighbridge import registry
from weighbridge.canonical import canonical
from weighbridge.engine.budget import BYTES_PER_VALUE
from weighbridge.engine.torch_types import from_torch
from weighbridge.report import Report
from weighbridge.transformers import from_pretrained

GOLDEN = json.loads((Path(__file__).parent / "data" / "autogptq.json").read_text())

Settings = dict[str, Any]


def weights(tensors: dict[str, torch.Tensor], settings: Settings) -> tuple[dict[str, Any], Report]:
    """Return the unpacked weights and what was said about them."""
    report = Report()
    lazy = {name: from_torch(name, values) for name, values in tensors.items()}
    packing = registry.packings()[settings["quant_method"]]
    with report.collect():
        return dict(packing.unpacked(lazy, settings, report)), report
    return {}, report


def weight(tensors: dict[str, torch.Tensor], settings: Settings) -> np.ndarray:
    """Return the numbers of the one weight, which the pieces of it agree with."""
    found, report = weights(tensors, settings)
    assert not report.problems, report.problems
    ((_, lazy),) = found.items()
    whole = lazy.values()
    rng = np.random.default_rng(0)
    for _ in range(20):
        cut = [sorted(rng.integers(0, length + 1, 2)) for length in lazy.shape]
        index = tuple(slice(int(start), int(stop)) for start, stop in cut)
        np.testing.assert_array_equal(lazy[index], whole[index])
    return whole


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- compressed-tensors ---


def compressed(args: Settings, stored: str, shape: tuple[int, int] = (40, 96)) -> Any:
    """Return a weight as compressed-tensors packs it, its settings, and what it unpacks."""
    weights = QuantizationArgs(**args)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    values = random(*shape)
    cells = blocks(values, weights)
    outer = None
    if args.get("strategy") == "tensor_group":
        outer = torch.tensor([448.0 * 6.0 / values.abs().max()])
    scale, zero = calculate_qparams(cells.amin((1, 3)), cells.amax((1, 3)), weights, outer)
    scale = scale.to(torch.float32)
    if stored == "mxfp4-pack-quantized":
        scale = 2.0 ** torch.floor(torch.log2(scale))
    state = {"weight": values, "weight_scale": scale}
    if outer is not None:
        state["weight_global_scale"] = outer
    if not weights.symmetric:
        state["weight_zero_point"] = zero.to(torch.int8)
    compressor = BaseCompressor.get_value_from_registry(stored)
    packed = compressor.compress(state, scheme)
    settings = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": json.loads(weights.model_dump_json())}},
    }
    expected = unpacked(compressor, packed, scheme)
    return {f"layer.{name}": part for name, part in packed.items()}, settings, expected


def unpacked(compressor: Any, packed: dict[str, torch.Tensor], scheme: Any) -> torch.Tensor:
    """Return what the compressor makes of a packed weight; NVFP4 in float32, not in bfloat16."""
    if "weight_global_scale" not in packed:
        return compressor.decompress(packed, scheme)["weight"]
    rows, columns = packed["weight_packed"].shape
    codes = unpack_fp4_from_uint8(packed["weight_packed"], rows, 2 * columns).float()
    scale, outer = packed["weight_scale"].float(), packed["weight_global_scale"]
    return dequantize(codes, scale, args=scheme.weights, dtype=torch.float32, global_scale=outer)


def blocks(values: torch.Tensor, weights: QuantizationArgs) -> torch.Tensor:
    """Return a matrix as blocks, whose second and fourth axis are within a block."""
    rows, columns = values.shape
    high, wide = {
        "tensor": (rows, columns), "channel": (1, columns), "block": weights.block_structure,
    }.get(weights.strategy, (1, weights.group_size))  # fmt: skip
    return values.reshape(rows // high, high, columns // wide, wide)


INT4: Settings = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
FLOAT8: Settings = {"num_bits": 8, "type": "float"}


@pytest.mark.parametrize(
    ("stored", "args"),
    [
        ("pack-quantized", INT4),
        ("pack-quantized", {**INT4, "symmetric": False}),
        ("pack-quantized", {**INT4, "num_bits": 8}),
        ("pack-quantized", {**INT4, "num_bits": 2, "group_size": 16}),
        ("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "channel"}),
        ("float-quantized", {**FLOAT8, "strategy": "tensor"}),
        ("float-quantized", {**FLOAT8, "strategy": "channel"}),
        ("float-quantized", {**FLOAT8, "strategy": "block", "block_structure": [8, 32]}),
        ("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}),
        ("int-quantized", {**INT4, "num_bits": 8, "group_size": 16}),
        ("nvfp4-pack-quantized", {"num_bits": 4, "type": "float", "strategy": "tensor_group",
                                  "group_size": 16, "scale_dtype": "torch.float8_e4m3fn"}),
        ("mxfp4-pack-quantized", {"num_bits": 4, "type": "float", "strategy": "group",
                                  "group_size": 32}),
    ],
)  # fmt: skip
def test_compressed_tensors(stored, args):
    tensors, settings, expected = compressed(args, stored)
    if args["strategy"] == "block":
        settings["config_groups"]["group_0"]["weights"]["block_structure"] = [8, 32]
    found = weight(tensors, settings)
    np.testing.assert_array_equal(found, expected.float().numpy())


def test_awq_as_compressed_tensors_converts_it():
    rng = torch.Generator().manual_seed(1)
    words = lambda *shape: torch.randint(-(1 << 31), 1 << 31, shape, generator=rng).int()  # noqa: E731
    tensors = {
        "layer.qweight": words(128, 8), "layer.qzeros": words(4, 8),
        "layer.scales": random(4, 64).half(),
    }  # fmt: skip
    converter = AutoAWQConverter(group_size=32, ignore=())
    converted = converter.process(dict(tensors))
    args = QuantizationArgs(**{**INT4, "symmetric": False})
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    parts = {name.removeprefix("layer."): part for name, part in converted.items()}
    parts["weight_scale"] = parts["weight_scale"].float()
    expected = BaseCompressor.get_value_from_registry("pack-quantized").decompress(parts, scheme)
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
    np.testing.assert_array_equal(weight(tensors, settings), expected["weight"].numpy())


# --- GPTQ ---


def gptq(number: int) -> tuple[dict[str, torch.Tensor], Settings, str]:
    """Return a layer that AutoGPTQ packed, its settings, and the hash of what it unpacked."""
    layer = GOLDEN["layers"][number]
    parts = {
        f"layer.{name}": torch.from_numpy(
            np.frombuffer(base64.b64decode(data), dtype).reshape(shape).copy()
        )
        for name, (dtype, shape, data) in layer["parts"].items()
    }
    return parts, layer["settings"], layer["sha256"]


@pytest.mark.parametrize("number", range(len(GOLDEN["layers"])))
def test_gptq(number):
    tensors, settings, expected = gptq(number)
    found = weight(tensors, settings)
    assert hashlib.sha256(np.ascontiguousarray(found).tobytes()).hexdigest() == expected


def test_gptq_with_inputs_out_of_order():
    """The groups of inputs change places, and so does what they are scaled by."""
    tensors, settings, _ = gptq(0)
    plain = weight(tensors, settings)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    codes = np.stack([tensors["layer.qweight"].numpy() >> s & 15 for s in range(0, 32, 4)], 1)
    mixed = codes.reshape(64, -1)[order.numpy()].reshape(8, 8, -1).astype(np.uint32)
    words = np.bitwise_or.reduce(mixed << np.arange(0, 32, 4, dtype=np.uint32)[:, None], 1)
    tensors["layer.qweight"] = torch.from_numpy(words.view(np.int32))
    tensors["layer.g_idx"] = tensors["layer.g_idx"][order]
    found = weight(tensors, settings | {"desc_act": True})
    np.testing.assert_array_equal(found, plain[:, order.numpy()])


def test_gptq_that_does_not_tell_of_its_order():
    tensors, settings, _ = gptq(0)
    tensors["layer.g_idx"] = tensors["layer.g_idx"].flip(0)
    found, _ = weights(tensors, settings)
    with pytest.raises(wb.InvalidFile, match="desc_act") as caught:
        found["layer.weight"].values()
    assert caught.value.rule == "group-index"


def test_gptq_zero_points_of_the_second_format():
    tensors, settings, _ = gptq(1)
    plain = weight(tensors, settings)
    words = tensors["layer.qzeros"].numpy().view(np.uint32)
    tensors["layer.qzeros"] = torch.from_numpy((words + np.uint32(0x11111111)).view(np.int32))
    np.testing.assert_array_equal(
        weight(tensors, settings | {"checkpoint_format": "gptq_v2"}), plain
    )


# --- FP8 and MXFP4 of transformers, ModelOpt ---


FP8: Settings = {"quant_method": "fp8", "weight_block_size": [16, 32]}


def fp8(values: torch.Tensor, name: str, scale_fmt: str = "float") -> dict[str, torch.Tensor]:
    """Return a weight as transformers quantises it."""
    config = SimpleNamespace(weight_block_size=FP8["weight_block_size"], scale_fmt=scale_fmt)
    return Fp8Quantize(SimpleNamespace(quantization_config=config)).convert({name: values})


def plain_fp8(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Return what transformers makes of it."""
    quantised, scale = tensors[name], tensors[f"{name}_scale_inv"]
    return Fp8Dequantize(None)._dequantize_one(quantised, scale, torch.float32)


@pytest.mark.parametrize("scale_fmt", ["float", "ue8m0"])
@pytest.mark.parametrize("shape", [(48, 64), (3, 32, 64)])
def test_fine_grained_fp8(scale_fmt, shape):
    tensors = fp8(random(*shape), "experts.gate_up_proj", scale_fmt)
    expected = plain_fp8(tensors, "experts.gate_up_proj").numpy()
    np.testing.assert_array_equal(weight(tensors, FP8), expected)


def test_blocks_that_a_matrix_does_not_fill():
    """DeepSeek's matrices end inside a block; its own kernel masks what is beyond."""
    values = random(40, 70).to(torch.float8_e4m3fn)
    scale = random(3, 3).abs()
    spread = scale.repeat_interleave(16, 0)[:40].repeat_interleave(32, 1)[:, :70]
    tensors = {"x.weight": values, "x.weight_scale_inv": scale}
    np.testing.assert_array_equal(weight(tensors, FP8), (values.float() * spread).numpy())


@pytest.mark.parametrize("shape", [(40, 1), (40,)])
def test_fbgemm_rows(shape):
    values, scale = random(40, 64).to(torch.float8_e4m3fn), random(40, 1).abs()
    tensors = {"x.weight": values, "x.weight_scale": scale.reshape(shape)}
    found = weight(tensors, {"quant_method": "fbgemm_fp8"})
    np.testing.assert_array_equal(found, (values.float() * scale).numpy())


def test_gpt_oss():
    rng = torch.Generator().manual_seed(3)
    packed = torch.randint(0, 256, (2, 24, 3, 16), generator=rng, dtype=torch.uint8)
    scales = torch.randint(110, 130, (2, 24, 3), generator=rng, dtype=torch.uint8)
    expected = convert_moe_packed_tensors(packed, scales, dtype=torch.float32)
    tensors = {"mlp.experts.down_proj_blocks": packed, "mlp.experts.down_proj_scales": scales}
    np.testing.assert_array_equal(weight(tensors, {"quant_method": "mxfp4"}), expected.numpy())


def test_modelopt():
    """The scale of scales multiplies, where that of compressed-tensors divides."""
    args = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16,
            "scale_dtype": "torch.float8_e4m3fn"}  # fmt: skip
    tensors, _, _ = compressed(args, "nvfp4-pack-quantized")
    scale, outer = tensors["layer.weight_scale"], torch.tensor(0.37)
    parts = {"layer.weight": tensors["layer.weight_packed"], "layer.weight_scale": scale,
             "layer.weight_scale_2": outer, "layer.input_scale": torch.tensor(1.0)}  # fmt: skip
    table = np.float32([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    codes = np.stack([parts["layer.weight"].numpy() & 15, parts["layer.weight"].numpy() >> 4], -1)
    codes = codes.reshape(40, 96)
    plain = np.where(codes & 8, -table[codes & 7], table[codes & 7])
    spread = (scale.float() * outer).numpy().repeat(16, 1)
    np.testing.assert_array_equal(weight(parts, {"quant_method": "modelopt"}), plain * spread)
    assert "input_scale" in str(weights(parts, {"quant_method": "modelopt"})[1].notes[0])


# --- what is wrong is told ---

SOURCES = [
    gptq(0)[:2],
    compressed(INT4, "pack-quantized")[:2],
    (fp8(random(48, 64), "x.weight"), FP8),
]

BROKEN: dict[str, tuple[str, Any, str]] = {
    "no zero points": ("layer.qzeros", None, "missing-part"),
    "few zero points": ("layer.qzeros", lambda part: part[:1], "part-shape"),
    "floats": ("layer.qweight", lambda part: part.float(), "part-dtype"),
    "flat": ("layer.qweight", lambda part: part.reshape(-1), "part-shape"),
    "half": ("layer.qweight", lambda part: part[:4], "part-shape"),
    "no scales": ("x.weight_scale_inv", None, "missing-part"),
    "few scales": ("x.weight_scale_inv", lambda part: part[:1], "part-shape"),
    "turned scales": ("x.weight_scale_inv", lambda part: part.T.contiguous(), "part-shape"),
    "whole scales": ("x.weight_scale_inv", lambda part: part.long(), "part-dtype"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_parts_that_do_not_fit(case):
    name, change, rule = BROKEN[case]
    fine = (fp8(random(48, 64), "x.weight"), FP8) if name.startswith("x.") else gptq(0)
    tensors, settings = dict(fine[0]), fine[1]
    part = tensors.pop(name)
    if change is not None:
        tensors[name] = change(part)
    _, report = weights(tensors, settings)
    assert [problem.rule for problem in report.problems] == [rule]
    assert "\n" not in str(report.problems[0])


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"bits": 3}, "packing-setting"),
        ({"bits": "4"}, "config-type"),
        ({"group_size": 0}, "config-type"),
        ({"group_size": 16}, "part-shape"),
        ({"checkpoint_format": "marlin"}, "packing-setting"),
    ],
)
def test_settings_of_gptq_that_are_not_read(settings, rule):
    tensors, known, _ = gptq(0)
    _, report = weights(tensors, known | settings)
    assert {problem.rule for problem in report.problems} == {rule}


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 40) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@given(data=st.data())
def test_no_settings_break_it(data):
    """Whatever they say, it is told as an error of ours or not at all."""
    tensors, known = data.draw(st.sampled_from(SOURCES))
    keys = st.sampled_from([*known, "version", "group_size", "checkpoint_format", "bits"])
    settings = known | data.draw(st.dictionaries(keys, ANY, max_size=3))
    settings["quant_method"] = known["quant_method"]
    if data.draw(st.booleans()) and "config_groups" in known:
        inner = data.draw(st.dictionaries(st.sampled_from(["num_bits", "group_size"]), ANY))
        settings["config_groups"] = {"x": {"weights": inner}}
    parts = {n: t for n, t in tensors.items() if data.draw(st.integers(0, 9))}
    _, report = weights(parts, settings)
    assert all(problem.rule for problem in report.problems)


def test_an_unknown_method_is_named(tmp_path):
    source = tiny.checkpoint(tmp_path / "x", tokenizer=tiny.small_tokenizer())
    bnb = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    tiny.edit_json(source / "config.json", lambda config: config.update(quantization_config=bnb))
    with pytest.raises(wb.InvalidPlan) as caught:
        wb.convert(source, tmp_path / "x.gguf")
    assert [problem.rule for problem in caught.value.problems] == ["quantized-checkpoint"]


# --- whole checkpoints ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny Llama in FP8, as transformers quantises it."""
    source = tiny.checkpoint(
        tmp_path_factory.mktemp("fp8") / "model",
        dtype="bfloat16", tokenizer=tiny.small_tokenizer(), intermediate_size=64,
    )  # fmt: skip
    stored: dict[str, torch.Tensor] = {}
    for name, values in load_file(source / "model.safetensors").items():
        inside = values.ndim == 2 and ".layers." in name
        stored |= fp8(values, name) if inside else {name: values}
    save_file(stored, source / "model.safetensors", {"format": "pt"})
    tiny.edit_json(source / "config.json", lambda config: config.update(quantization_config=FP8))
    return source


def expected_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the weights as transformers dequantises them, in bfloat16."""
    stored = load_file(checkpoint / "model.safetensors")
    return {
        name: plain_fp8(stored, name).bfloat16() if f"{name}_scale_inv" in stored else values
        for name, values in stored.items()
        if not name.endswith("_scale_inv")
    }


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name].bfloat16(), expected[name]) for name in expected
    )


def test_a_checkpoint_becomes_plain(checkpoint, tmp_path):
    wb.convert(checkpoint, tmp_path / "plain", dtype="bfloat16")
    expected = expected_weights(checkpoint)
    assert same(load_file(tmp_path / "plain" / "model.safetensors"), expected)
    assert "quantization_config" not in json.loads((tmp_path / "plain/config.json").read_text())
    assert same(wb.load(checkpoint), expected)


def test_a_checkpoint_becomes_gguf(checkpoint, tmp_path):
    plan = wb.plan(checkpoint, tmp_path / "x.gguf")
    assert any(note.kind == "unpacked" and "16X32" in note.text for note in plan.notes)
    plan.run()
    assert same(wb.load(tmp_path / "x.gguf"), expected_weights(checkpoint))
    with wb.open(tmp_path / "x.gguf") as model:
        kinds = {str(tensor.encoding) for tensor in model.tensors.values()}
    assert kinds == {"BF16", "F32"}


def test_a_checkpoint_that_stays_is_copied(checkpoint, tmp_path):
    wb.convert(checkpoint, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert config["quantization_config"] == FP8
    copied, stored = (load_file(d / "model.safetensors") for d in (tmp_path / "copy", checkpoint))
    assert copied.keys() == stored.keys()
    assert all(
        torch.equal(copied[n].view(torch.uint8), stored[n].view(torch.uint8)) for n in stored
    )


def test_a_checkpoint_runs(checkpoint, tmp_path):
    bare = tiny.copied(checkpoint, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    model, _ = from_pretrained(bare)
    state = model.state_dict()
    assert all(torch.equal(state[n].bfloat16(), v) for n, v in expected_weights(checkpoint).items())


def test_a_slice_reads_what_it_needs(tmp_path):
    """Of a matrix of 64 MB, 16 rows take no more memory than a few times 16 rows."""
    values = torch.full((8192, 8192), 0x38, dtype=torch.uint8).view(torch.float8_e4m3fn)
    parts = {"x.weight": values, "x.weight_scale_inv": torch.full((512, 256), 0.5)}
    save_file(parts, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": FP8}))
    with wb.open(tmp_path) as model:
        lazy = canonical(model, Report()).tensors["x.weight"]
        assert lazy[:1, :2].tolist() == [[0.5, 0.5]]
        tracemalloc.start()
        rows = lazy[4000:4016]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (rows == 0.5).all()
    assert peak < BYTES_PER_VALUE * rows.size


def test_inspect_names_the_method(checkpoint):
    assert "quantised:\n  fp8" in command.run("inspect", checkpoint).out
