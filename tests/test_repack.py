"""Parts and ggml's blocks hold the same numbers: by ggml's decoders, there and back, in files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support import tiny

import weighbridge as wb
from weighbridge.encoding import DENSE, scaled
from weighbridge.kernels.repack import PAIRS

NVFP4 = scaled(DENSE["f4"], DENSE["f8_e4m3"], (1, 16))
CASES = [
    ("mxfp4", "MXFP4"), ("int4_g32", "Q4_0"), ("int4_g96", "Q4_0"), ("int8_g32", "Q8_0"),
    ("int8_g64", "Q8_0"), (NVFP4, "NVFP4"),
]  # fmt: skip


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("encoding", "blocks"), CASES, ids=str)
def test_ggml_reads_the_same_numbers(encoding, blocks):
    values = normal(2, 5, 192)
    values[0, 1] = 0
    parts = wb.encode_parts(values, encoding)
    packed = wb.parts_to_blocks(parts, encoding, blocks)
    plain = wb.decode_parts(parts, encoding)
    theirs = dequantize(packed.reshape(10, -1), GGMLQuantizationType[blocks])
    np.testing.assert_array_equal(theirs.reshape(values.shape), plain)
    np.testing.assert_array_equal(wb.decode(packed, blocks), plain)


@given(data=st.data(), blocks=st.sampled_from(["MXFP4", "Q4_0", "Q8_0", "NVFP4"]))
def test_any_blocks_come_back(data, blocks):
    """Every byte, but for scales that are no numbers, and the sign of NVFP4's, which is moot."""
    pair = next(pair for pair in PAIRS if str(pair.blocked) == blocks)
    size = pair.blocked.grain_bytes
    raw = data.draw(st.binary(min_size=2 * size, max_size=2 * size))
    rows = np.frombuffer(raw, np.uint8).reshape(2, size).copy()
    if blocks == "MXFP4":
        rows[:, 0] = np.minimum(rows[:, 0], 254)
    if blocks == "NVFP4":
        rows[:, :4] = np.minimum(rows[:, :4] & 127, 126)
    parts = wb.blocks_to_parts(rows, blocks)
    np.testing.assert_array_equal(wb.parts_to_blocks(parts, pair.scaled, blocks), rows)
    with np.errstate(all="ignore"):
        decoded = wb.decode_parts(parts, pair.scaled)
    np.testing.assert_array_equal(decoded, wb.decode(rows, blocks))


def test_q4_1_where_its_minimum_is_exact():
    parts = wb.encode_parts(normal(4, 64), "uint4_g32")
    parts["scale"] = np.float16([[0.25, 0.5]] * 4)
    packed = wb.parts_to_blocks(parts, "uint4_g32", "Q4_1")
    np.testing.assert_array_equal(
        dequantize(packed, GGMLQuantizationType.Q4_1), wb.decode_parts(parts, "uint4_g32")
    )
    back = wb.blocks_to_parts(packed, "Q4_1")
    assert all(np.array_equal(back[part], parts[part]) for part in parts)


def q4_1_block(scale: float, least: float) -> np.ndarray:
    head = np.array([scale, least], np.float16).view(np.uint8)
    return np.concatenate([head, np.zeros(16, np.uint8)])[None]


def test_what_would_change_is_refused():
    parts = wb.encode_parts(normal(4, 64), "uint4_g32")
    parts["scale"] = np.full((4, 2), 0.333, np.float16)
    nan = wb.encode_parts(normal(1, 32), "mxfp4")
    nan["scale"] = np.full((1, 1), 255, np.uint8).view(nan["scale"].dtype)
    for made in (
        lambda: wb.parts_to_blocks(parts, "uint4_g32", "Q4_1"),
        lambda: wb.parts_to_blocks(nan, "mxfp4", "MXFP4"),
        lambda: wb.blocks_to_parts(q4_1_block(1.0, 0.3), "Q4_1"),
        lambda: wb.blocks_to_parts(q4_1_block(1.0, 2.0), "Q4_1"),
        lambda: wb.blocks_to_parts(np.full((1, 17), 255, np.uint8), "MXFP4"),
    ):
        with pytest.raises(wb.InvalidInput) as caught:
            made()
        assert caught.value.rule == "inexact"


@pytest.mark.parametrize(
    ("encoding", "blocks", "shape", "rule"),
    [
        ("int4_g16", "Q4_0", (2, 64), "no-repack"),
        ("fp8_row", "Q8_0", (2, 64), "no-repack"),
        ("nvfp4", "NVFP4", (2, 64), "no-repack"),
        ("int4_g32", "Q4_K", (2, 256), "no-repack"),
        ("int4_g32", "Q4_0", (2, 40), "block-size"),
    ],
)
def test_what_is_no_pair(encoding, blocks, shape, rule):
    parts = wb.encode_parts(normal(*shape), encoding)
    with pytest.raises(wb.Unsupported) as caught:
        wb.parts_to_blocks(parts, encoding, blocks)
    assert caught.value.rule == rule


def mxfp4(values: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
    parts = wb.encode_parts(values, "mxfp4")
    scale = torch.from_numpy(parts["scale"].view(np.uint8))
    return {f"{name}_packed": torch.from_numpy(parts["data"]), f"{name}_scale": scale}


def int4(values: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
    parts = wb.encode_parts(values, "int4_g32")
    words = torch.from_numpy(parts["data"] ^ 0x88).view(torch.int32)
    shape = torch.tensor(values.shape)
    scale = torch.from_numpy(parts["scale"])
    return {f"{name}_packed": words, f"{name}_scale": scale, f"{name}_shape": shape}


def int8(values: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
    parts = wb.encode_parts(values, "int8_g32")
    return {
        name: torch.from_numpy(parts["data"]),
        f"{name}_scale": torch.from_numpy(parts["scale"]),
    }


@pytest.mark.parametrize(
    ("pack", "weights", "blocks"),
    [
        (mxfp4, {"num_bits": 4, "type": "float", "group_size": 32}, "MXFP4"),
        (int4, {"num_bits": 4, "type": "int", "group_size": 32}, "Q4_0"),
        (int8, {"num_bits": 8, "type": "int", "group_size": 32}, "Q8_0"),
    ],
    ids=["mxfp4", "int4", "int8"],
)
def test_a_checkpoint_is_repacked(tmp_path, pack, weights, blocks):
    """Rows of queries and keys change places, experts aside, and no number changes."""
    source = tiny.checkpoint(
        tmp_path / "source", dtype="bfloat16", intermediate_size=64,
        tokenizer=tiny.small_tokenizer(),
    )  # fmt: skip
    stored: dict[str, torch.Tensor] = {}
    for name, values in load_file(source / "model.safetensors").items():
        stored |= pack(values, name) if ".layers." in name and values.ndim == 2 else {name: values}
    save_file(stored, source / "model.safetensors", {"format": "pt"})
    settings = {
        "quant_method": "compressed-tensors",
        "config_groups": {"all": {"weights": weights}},
    }
    tiny.edit_json(source / "config.json", lambda c: c.update(quantization_config=settings))

    plan = wb.plan(source, tmp_path / "x.gguf")
    routes = {route for route, _, to, _, _ in plan.routes() if to == blocks}
    assert routes == {"repack"}
    plan.run()
    types = {t.tensor_type.name for t in GGUFReader(tmp_path / "x.gguf").tensors if "blk" in t.name}
    assert types == {blocks, "F32"}
    here, there = wb.load(source), wb.load(tmp_path / "x.gguf")
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name].float(), there[name].float()) for name in here)
