"""The device's kernels, on tensors of the CPU: the same bits as the NumPy code, the same refusals.

Where there is a GPU, the same again on it.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.rows import distributions

import weighbridge as wb
from weighbridge import coding, kernels, placing
from weighbridge.encoding import DENSE, Encoding, scaled
from weighbridge.kernels import codec_for, device, lanes
from weighbridge.kernels.device import encoders, numbers, packers
from weighbridge.kernels.device import lanes as device_lanes
from weighbridge.kernels.device.decoders import DECODERS
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.kernels.target import BODIES

if TYPE_CHECKING:
    from collections.abc import Callable

GRIDS = ("iq1_m", "iq2_s", "iq3_xxs", "iq3_s")
ENCODED = sorted({*BODIES, *packers.PACKERS})
SLOW = (*GRIDS, "iq4_xs", "q5_k")
"""What has the search of another in the list, or takes a minute."""

FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def some_bytes(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, count, np.uint8)


def array_of(values: torch.Tensor, encoding: Encoding) -> np.ndarray:
    octets = values.cpu().contiguous().reshape(-1).view(torch.uint8)
    return octets.numpy().view(encoding.dtype).reshape(values.shape)


def assert_same_numbers(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype
    bits = f"u{got.itemsize}"
    same = got.view(bits) == expected.view(bits)
    assert (same | (np.isnan(got) & np.isnan(expected))).all()


def decoded(name: str, place: str, count: int = 203) -> torch.Tensor:
    encoding = BLOCKED[name]
    data = torch.from_numpy(some_bytes(count * encoding.grain_bytes)).to(place)
    return device.decode(encoding, {"data": data}, (count, encoding.grain))


def decoded_by_numpy(name: str, count: int = 203) -> np.ndarray:
    codec = codec_for(name)
    return codec.decode(codec.blocks(some_bytes(count * codec.encoding.grain_bytes)))


@pytest.mark.parametrize("name", BLOCKED)
def test_decodes_as_numpy_does(name: str) -> None:
    assert_same_numbers(decoded(name, "cpu").numpy(), decoded_by_numpy(name))


def test_decodes_every_scale_of_the_microscaling_types() -> None:
    for name, field in (("mxfp4", "e"), ("nvfp4", "d")):
        blocks = np.zeros(256, BLOCKED[name].dtype)
        blocks[field].T[:] = np.arange(256)
        blocks["qs"] = np.arange(blocks["qs"].shape[1]) * 0x11 & 255
        data = torch.from_numpy(blocks.view(np.uint8))
        got = device.decode(BLOCKED[name], {"data": data}, (256, BLOCKED[name].grain))
        assert_same_numbers(got.numpy(), codec_for(name).decode(blocks))


@pytest.mark.parametrize("to", ["f32", "bf16", "f16", "f8_e4m3", "f8_e5m2"])
@pytest.mark.parametrize("name", ["q4_k", "q8_0", "q8_k", "mxfp4", "iq3_s"])
def test_results_of_other_types_are_those_of_the_cpu(monkeypatch, name: str, to: str) -> None:
    monkeypatch.setattr(device, "CHUNK", 1000)
    encoding = BLOCKED[name]
    blocks = some_bytes(60 * encoding.grain_bytes).view(encoding.dtype)
    for field, scale in (("d", 0.01), ("dmin", 0.02), ("e", 125)):
        if field in encoding.dtype.names:
            blocks[field] = scale
    data, shape = blocks.view(np.uint8), (60 * encoding.grain,)
    got = device.decode(encoding, {"data": torch.from_numpy(data)}, shape, DENSE[to])
    expected = kernels.decode(encoding, {"data": data}, shape, to)
    assert array_of(got, DENSE[to]).tobytes() == expected.tobytes()


def refused(call: Callable[[], object]) -> wb.Error:
    with pytest.raises(wb.Error) as raised:
        call()
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize(("name", "to"), [("mxfp4", "f16"), ("q8_k", "bf16"), ("q6_k", "f16")])
def test_refuses_numbers_that_have_no_place(name: str, to: str) -> None:
    block = np.zeros(1, BLOCKED[name].dtype)
    if name == "q8_k":
        block["d"] = np.float32(3.4e38)
        block["qs"][0, 0] = 1
    elif name == "mxfp4":
        block["e"], block["qs"][0, 0] = 150, 0x11
    else:
        block["d"], block["scales"][0, 0] = 60000, 127
    data, shape = block.view(np.uint8), (BLOCKED[name].grain,)
    parts = {"data": torch.from_numpy(data)}
    error = refused(lambda: device.decode(BLOCKED[name], parts, shape, DENSE[to]))
    expected = refused(lambda: kernels.decode(BLOCKED[name], {"data": data}, shape, to))
    assert (error.rule, error.problem) == (expected.rule, expected.problem)


@pytest.mark.parametrize("name", [name for name in DENSE if numbers.readable(DENSE[name])])
def test_dense_numbers(name: str) -> None:
    encoding = DENSE[name]
    data = some_bytes(encoding.nbytes((7, 64)))
    got = device.decode(encoding, {"data": torch.from_numpy(data)}, (7, 64)).numpy()
    assert_same_numbers(got, kernels.decode(encoding, {"data": data}, (7, 64)))


def test_bytes_need_not_be_aligned() -> None:
    data = torch.from_numpy(some_bytes(1 + 4 * 36))[1:].clone()
    shifted = torch.cat((data[:1], data))[1:]
    for encoding in (DENSE["f32"], DENSE["bf16"], BLOCKED["q4_0"], BLOCKED["q8_1"]):
        shape = (data.numel() // encoding.grain_bytes * encoding.grain,)
        expected = device.decode(encoding, {"data": data}, shape)
        got = device.decode(encoding, {"data": shifted}, shape)
        assert torch.equal(got.view(torch.int32), expected.view(torch.int32))


SCALED = [
    scaled(DENSE["f8_e4m3"], DENSE["f32"], (16, 16)),
    scaled(DENSE["f8_e4m3"], DENSE["f32"], ()),
    scaled(DENSE["f4"], DENSE["f8_e8m0"], (32,)),
    scaled(DENSE["u4"], DENSE["f16"], (1, 32), DENSE["u4"]),
    scaled(DENSE["i8"], DENSE["bf16"], (8, 1), DENSE["i8"]),
    scaled(DENSE["f4"], DENSE["f8_e4m3"], (16,), None, DENSE["f32"]),
    scaled(DENSE["f4"], DENSE["f8_e4m3"], (16,), None, DENSE["f32"], divides=True),
]


@pytest.mark.parametrize("encoding", SCALED, ids=str)
def test_separate_scales(encoding: Encoding) -> None:
    shape = (40, 70)
    parts = {part: some_bytes(size) for part, size in encoding.sizes(shape).items()}
    held = {part: torch.from_numpy(data) for part, data in parts.items()}
    assert device.decodes(encoding, DENSE["f32"])
    got = device.decode(encoding, held, shape).numpy()
    assert_same_numbers(got, kernels.decode(encoding, parts, shape))


def test_decodes_into_memory_that_is_there() -> None:
    packed, memory = torch.zeros(144 * 3, dtype=torch.uint8), torch.ones(4, 256)
    device.decode_into(BLOCKED["q4_k"], packed, memory[1:])
    assert memory[0].all()
    assert not memory[1:].any()


@pytest.mark.parametrize(
    ("packed", "out"),
    [
        (torch.zeros(144, dtype=torch.uint8), torch.empty(255)),
        (torch.zeros(145, dtype=torch.uint8), torch.empty(256)),
        (torch.zeros(144, dtype=torch.int8), torch.empty(256)),
        (torch.zeros(144, dtype=torch.uint8), torch.empty(256, dtype=torch.int32)),
        (torch.zeros(144, dtype=torch.uint8), torch.empty(512)[::2]),
        (torch.zeros(144, dtype=torch.uint8), torch.empty(256, device="meta")),
    ],
)
def test_refuses_memory_that_does_not_fit(packed: torch.Tensor, out: torch.Tensor) -> None:
    assert refused(lambda: device.decode_into(BLOCKED["q4_k"], packed, out)).rule == "fill"


@functools.cache
def rows_of(name: str) -> np.ndarray:
    kinds = distributions()
    if name in GRIDS:
        del kinds["any bits"], kinds["huge"], kinds["squares overflow"], kinds["largest"]
        del kinds["powers of two"]
    # A search takes as long for some blocks as for many, and half a minute with a grid.
    return np.concatenate([rows[: 8 if name in GRIDS else 50] for rows in kinds.values()])


def assert_encoded_as_on_the_cpu(name: str, place: str) -> None:
    rows = rows_of(name)
    expected = wb.encode(rows, name)
    got = device.encode(BLOCKED[name], torch.from_numpy(rows).to(place))
    differ = (got.cpu().numpy() != expected).any(axis=1)
    assert not differ.any(), np.flatnonzero(differ)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in ENCODED],
)
def test_encodes_as_the_cpu_does(name: str) -> None:
    assert_encoded_as_on_the_cpu(name, "cpu")


@pytest.mark.parametrize("name", ["q4_k", "q4_0"])
def test_pieces_give_the_same(monkeypatch, name: str) -> None:
    rows = torch.from_numpy(rows_of(name)[:9])
    expected = device.encode(BLOCKED[name], rows)
    monkeypatch.setattr(encoders, "CHUNK", 1000)
    assert torch.equal(device.encode(BLOCKED[name], rows), expected)


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "q8_0"])
def test_numbers_of_other_types_are_encoded(name: str, source: str) -> None:
    values = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 64))).to(FLOATS[source])
    encoding = DENSE.get(name) or BLOCKED[name]
    assert device.encodes(encoding, values.dtype)
    assert np.array_equal(device.encode(encoding, values).numpy(), wb.encode(values, name))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("q4_k", np.nan),
        ("q8_0", -np.inf),
        ("f16", 1e5),
        ("f8_e4m3", np.inf),
        ("bf16", 3.4e38),
        pytest.param("iq3_s", 1e30, marks=pytest.mark.long),
    ],
)
def test_refuses_what_the_cpu_refuses(name: str, bad: float) -> None:
    values = np.random.default_rng(0).standard_normal((2, 256)).astype(np.float32)
    values[1, 7] = bad
    encoding = DENSE.get(name) or BLOCKED[name]
    error = refused(lambda: wb.encode(values, name))
    there = refused(lambda: device.encode(encoding, torch.from_numpy(values)))
    assert (there.rule, there.problem) == (error.rule, error.problem)


def test_every_word_of_the_searches_is_there() -> None:
    words = {
        name
        for name, word in inspect.getmembers(lanes, inspect.isfunction)
        if word.__module__ == lanes.__name__
    }
    assert words == {word.__name__ for word in device_lanes.WORDS}


def test_every_body_is_known() -> None:
    assert set(DECODERS) == set(BLOCKED)
    assert {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "nvfp4"} <= set(ENCODED)


# The face: where there is no GPU, tensors of the CPU stand in for its own.


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a device that `wb.encode` and `wb.decode` take for a GPU."""
    known = placing.place_of

    def place_of(data: object, given: object) -> torch.device | None:
        return torch.device("cpu") if given == "here" else known(data, None)

    monkeypatch.setattr(coding, "place_of", place_of)
    return "here"


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "BF16", "MXFP4", "TQ1_0", "I8"])
def test_tensors_come_back(here: str, name: str) -> None:
    values = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 256))).float()
    expected = wb.encode(values.numpy(), name)
    backwards = np.ascontiguousarray(values.numpy()[::-1])[::-1]
    for given in (values, values.numpy(), backwards, values.double()):
        packed = wb.encode(given, name, device=here)
        assert isinstance(packed, torch.Tensor)
        assert np.array_equal(packed.numpy(), expected)
    for held in (packed, expected, expected.tobytes()):
        shape = values.shape if isinstance(held, bytes) else None
        got = wb.decode(held, name, shape, device=here)
        assert got.shape == values.shape
        assert np.array_equal(got.numpy(), wb.decode(expected, name))
    half = wb.decode(packed, name, dtype="bfloat16", device=here)
    assert half.dtype == torch.bfloat16


def test_importance_counts(here: str) -> None:
    values = torch.from_numpy(np.random.default_rng(3).standard_normal((4, 256))).float()
    weights = np.arange(256, dtype=np.float32)
    packed = wb.encode(values, "Q4_K", weights, device=here)
    assert np.array_equal(packed.numpy(), wb.encode(values, "Q4_K", weights))
    assert refused(lambda: wb.encode(values, "Q4_K", -weights, device=here)).rule == "importance"


def test_the_types_own_dtype(here: str) -> None:
    packed = wb.encode(np.int8([[1, -2]]), "I8")
    assert wb.decode(packed, "I8", dtype=None, device=here).dtype == torch.int8
    assert refused(lambda: wb.decode(packed, "I4", dtype=None, device=here)).rule == "torch-dtype"


@pytest.mark.parametrize(
    ("values", "name", "rule"),
    [
        (torch.zeros(2, 33), "Q8_0", "block-size"),
        (torch.zeros(()), "Q8_0", "shape"),
        (torch.full((1, 32), torch.nan), "Q8_0", "not-finite"),
        (torch.zeros(1, 32), "Q4_X", "unknown-encoding"),
        ([[1.0] * 32], "Q8_0", "dtype"),
    ],
)
def test_what_cannot_be_encoded_is_refused(here, values: object, name: str, rule: str) -> None:
    assert refused(lambda: wb.encode(values, name, device=here)).rule == rule


@pytest.mark.parametrize(
    ("data", "shape", "rule"),
    [
        (torch.zeros(33, dtype=torch.uint8), None, "part-size"),
        (torch.zeros(34, dtype=torch.uint8), (2, 32), "part-size"),
        (torch.zeros(34), None, "dtype"),
    ],
)
def test_what_cannot_be_decoded_is_refused(here, data: object, shape: object, rule: str) -> None:
    assert refused(lambda: wb.decode(data, "Q8_0", shape, device=here)).rule == rule


@pytest.mark.parametrize("name", ["cuda:99", "meta", "mps", "gpu", "", "cuda:x"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    rows = np.zeros((1, 32), np.float32)
    assert refused(lambda: wb.encode(rows, "Q8_0", device=name)).rule == "device"
    assert refused(lambda: wb.decode(bytes(34), "Q8_0", device=name)).rule == "device"


def test_the_cpu_may_be_asked_for() -> None:
    packed = wb.encode(torch.ones(1, 32), "Q8_0", device="cpu")
    assert isinstance(packed, np.ndarray)
    assert isinstance(wb.decode(packed, "Q8_0", device=torch.device("cpu")), np.ndarray)


# On a GPU.

NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS_GPU) for name in BLOCKED])
def test_cuda_decodes_as_numpy_does(name: str) -> None:
    assert_same_numbers(decoded(name, "cuda").cpu().numpy(), decoded_by_numpy(name))


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS_GPU) for name in BLOCKED])
def test_cuda_decodes_to_bfloat16_as_the_cpu_does(name: str) -> None:
    data = some_bytes(203 * BLOCKED[name].grain_bytes)
    try:
        expected = wb.decode(data, name, dtype="bfloat16")
    except wb.Error as error:
        rule = error.rule
        assert refused(lambda: wb.decode(data, name, dtype="bfloat16", device="cuda")).rule == rule
    else:
        got = wb.decode(data, name, dtype="bfloat16", device="cuda")
        assert_same_numbers(array_of(got, DENSE["bf16"]), expected)


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS_GPU) for name in ENCODED])
def test_cuda_encodes_as_the_cpu_does(name: str) -> None:
    assert_encoded_as_on_the_cpu(name, "cuda")


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS_GPU) for name in ("Q4_K", "F16")])
def test_cuda_tensors_stay_there(name: str) -> None:
    packed = wb.encode(torch.ones(3, 256, device="cuda"), name)
    assert packed.is_cuda
    assert wb.decode(packed, name).is_cuda
