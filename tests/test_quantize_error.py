"""What encodings cost and spoil: recomputed from gguf's own code, and shown by the command."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import gguf
import libgguf
import ml_dtypes
import numpy as np
import pytest
from gguf import quants
from support.command import Done, called
from support.gguf_files import smollm2
from support.plans import listing

import weighbridge as wb
from weighbridge import candidates
from weighbridge.candidates import QuantizeErrors
from weighbridge.figures import Distance, distance

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.engine.progress import Event

Kind = gguf.GGMLQuantizationType
TENSORS = ("blk.0.attn_k.weight", "blk.0.ffn_down.weight")
PATTERN = r"^blk\.0\.(attn_k|ffn_down)\.weight"


@pytest.fixture(scope="module")
def real() -> dict[str, np.ndarray]:
    """Two matrices of SmolLM2, as gguf decodes them: 192x576 and 576x1536."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2()).tensors}
    return {
        name: quants.dequantize(tensors[name].data, tensors[name].tensor_type) for name in TENSORS
    }


def by_gguf(values: np.ndarray, kind: gguf.GGMLQuantizationType) -> tuple[int, float, float]:
    """Return bytes, relative RMS error and largest error, by the referees."""
    encode = libgguf.quantize_rows if kind is Kind.Q4_K else quants.quantize
    data = encode(values, kind)
    error = values.astype(np.float64) - quants.dequantize(data, kind)
    rms = np.sqrt(np.mean(error**2)) / np.sqrt(np.mean(values.astype(np.float64) ** 2))
    return data.nbytes, float(rms), float(np.abs(error).max())


def test_figures_are_those_of_gguf(real: dict[str, np.ndarray]) -> None:
    kinds = [Kind.Q4_0, Kind.Q8_0, Kind.Q5_1, Kind.BF16, Kind.F16]
    found = wb.quantize_error(smollm2(), [kind.name for kind in kinds], tensors=PATTERN)
    measured = {tensor.name: tensor for tensor in found.tensors}
    assert sorted(measured) == sorted(TENSORS)
    for name, values in real.items():
        assert measured[name].shape == values.shape
        assert str(measured[name].encoding) in ("Q4_1", "Q8_0")
        for kind, candidate in zip(kinds, measured[name].candidates, strict=True):
            nbytes, rms, worst = by_gguf(values, kind)
            assert (candidate.nbytes, candidate.max_error) == (nbytes, worst)
            assert candidate.relative_rms_error == pytest.approx(rms, rel=1e-9)
            assert candidate.bits_per_value == 8 * nbytes / values.size


def test_blocks_that_do_not_fit(real: dict[str, np.ndarray]) -> None:
    found = wb.quantize_error(smollm2(), ["Q4_K"], tensors=PATTERN)
    one = {tensor.name: tensor.candidates[0] for tensor in found.tensors}
    misfit, fit = (one[name] for name in TENSORS)
    assert (misfit.problem, misfit.tensors, misfit.nbytes) == ("does not fit", 0, 0)
    assert math.isnan(misfit.max_error)
    nbytes, rms, worst = by_gguf(real[TENSORS[1]], Kind.Q4_K)
    assert (fit.problem, fit.nbytes, fit.max_error) == (None, nbytes, worst)
    assert fit.relative_rms_error == pytest.approx(rms, rel=1e-9)
    (total,) = found.total
    assert (total.tensors, total.nbytes, total.max_error) == (1, nbytes, worst)


def test_the_sum_is_over_all_values(real: dict[str, np.ndarray]) -> None:
    found = wb.quantize_error(smollm2(), ["Q4_0"], tensors=PATTERN).total[0]
    # Blocks have 32 values, whichever tensor they are of.
    together = np.concatenate([values.reshape(-1, 32) for values in real.values()])
    nbytes, rms, worst = by_gguf(together, Kind.Q4_0)
    assert (found.tensors, found.nbytes, found.max_error) == (2, nbytes, worst)
    assert found.relative_rms_error == pytest.approx(rms, rel=1e-9)
    assert found.bits_per_value == 4.5


MODEL = {
    "a.weight": np.linspace(-1, 1, 4 * 256, dtype=np.float32).reshape(4, 256),
    "b.weight": np.linspace(-2, 2, 6 * 64, dtype=np.float32).reshape(2, 3, 64),
    "bf16.weight": np.ones((2, 64), ml_dtypes.bfloat16),
    "bias": np.ones(256, np.float32),
    "ids": np.ones((4, 256), np.int32),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    wb.save_file(MODEL, path)
    return path


def one(values: np.ndarray, encoding: str, tmp_path: Path) -> candidates.Candidate:
    path = tmp_path / "one.safetensors"
    wb.save_file({"x": values}, path)
    return wb.quantize_error(path, [encoding]).total[0]


def test_only_matrices_of_floats_are_measured(model: Path) -> None:
    found = wb.quantize_error(model, ["BF16"])
    assert [tensor.name for tensor in found.tensors] == ["a.weight", "b.weight", "bf16.weight"]
    assert found.tensors[1].shape == (2, 3, 64)


def test_what_a_tensor_is_stored_in_changes_nothing(real: dict[str, np.ndarray]) -> None:
    # To encode Q4_1 anew would: a conversion copies it instead.
    found = wb.quantize_error(smollm2(), ["Q4_1", "F32"], tensors=r"^blk\.0\.attn_k\.weight")
    for candidate in found.tensors[0].candidates:
        assert (candidate.relative_rms_error, candidate.max_error) == (0.0, 0.0)
    assert found.total[0].nbytes == 192 * 576 // 32 * 20


@pytest.mark.parametrize("threads", [1, 3])
def test_neither_pieces_nor_threads_change_figures(
    monkeypatch: pytest.MonkeyPatch, model: Path, threads: int
) -> None:
    types = ["Q8_0", "Q4_K", "F16"]
    whole = wb.quantize_error(model, types, threads=1)
    monkeypatch.setattr(candidates, "JOB", 300)
    monkeypatch.setattr(candidates, "PIECE", 64)
    pieces = wb.quantize_error(model, types, threads=threads)
    again = wb.quantize_error(model, types, threads=threads)
    assert pieces == again
    for a, b in zip(whole.total, pieces.total, strict=True):
        assert (a.tensors, a.nbytes, a.max_error) == (b.tensors, b.nbytes, b.max_error)
        assert a.relative_rms_error == pytest.approx(b.relative_rms_error, rel=1e-9)


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(candidates, "JOB", 256)
    told: list[Event] = []
    wb.quantize_error(model, ["F16"], threads=1, progress=told.append)
    assert len(told) == 4 + 2 + 1
    assert [event.done for event in told] == sorted(event.done for event in told)
    assert told[-1].done == told[-1].total == 4 * (1024 + 384 + 128)


def test_memory_is_bounded(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "large.safetensors"
    wb.save_file({"x": np.ones((1 << 12, 1 << 12), np.float32)}, path)
    wb.quantize_error(path, ["Q8_0"], threads=1)
    tracemalloc.start()
    try:
        wb.quantize_error(path, ["Q8_0", "Q4_0", "F16"], threads=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < candidates.PIECE * candidates.BYTES_PER_VALUE + (4 << 20)


def test_a_model_that_is_open_stays_open(model: Path) -> None:
    with wb.open(model) as opened:
        found = wb.quantize_error(opened, ["F16"], tensors="^a")
        assert found == wb.quantize_error(model, ["F16"], tensors="^a")
        assert opened.tensors["a.weight"].values().shape == (4, 256)


@pytest.mark.parametrize(
    ("bad", "encoding", "problem"),
    [
        (math.nan, "Q4_K", "not finite"),
        (math.inf, "Q8_0", "not finite"),
        (1e5, "F16", "out of range"),
        (1e25, "IQ3_S", "out of range"),
    ],
)
def test_numbers_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float, encoding: str, problem: str
) -> None:
    monkeypatch.setattr(candidates, "JOB", 512)
    monkeypatch.setattr(candidates, "PIECE", 256)
    values = MODEL["a.weight"].copy()
    values[2, 5] = bad
    path = tmp_path / "bad.safetensors"
    wb.save_file({"a": MODEL["a.weight"], "bad": values}, path)
    found = wb.quantize_error(path, [encoding, "BF16"])
    assert [tensor.candidates[0].problem for tensor in found.tensors] == [None, problem]
    assert found.total[0] == found.tensors[0].candidates[0]
    assert found.total[1].tensors == 2


def test_zeros_are_kept(tmp_path: Path) -> None:
    found = one(np.zeros((2, 64), np.float32), "Q8_0", tmp_path)
    assert (found.relative_rms_error, found.max_error, found.bits_per_value) == (0.0, 0.0, 8.5)


def test_no_values(tmp_path: Path) -> None:
    found = one(np.zeros((0, 64), np.float32), "Q8_0", tmp_path)
    assert (found.tensors, found.nbytes, found.max_error) == (1, 0, 0.0)
    assert math.isnan(found.bits_per_value)


def test_double_precision_is_measured(tmp_path: Path) -> None:
    values = np.full((1, 32), 1 / 3)
    found = one(values, "F32", tmp_path)
    assert found.max_error == abs(1 / 3 - float(np.float32(1 / 3)))
    assert one(values, "F64", tmp_path).max_error == 0


def test_distances() -> None:
    assert distance(np.float32([1]), np.float32([0])).relative == 1
    assert distance(np.float32([0]), np.float32([1])).relative == math.inf
    assert math.isnan((Distance(math.nan) + Distance(2.0)).worst)
    assert math.isnan((Distance(2.0) + Distance(math.nan)).worst)
    assert Distance().rms == Distance().relative == 0


@pytest.mark.parametrize(
    ("types", "options", "rule"),
    [
        ([], {}, "types"),
        ("Q4_K", {}, "types"),
        (["Q4_K_M"], {}, "unknown-encoding"),
        (["Q8_0", "IQ2_XXS"], {}, "importance"),
        (["Q8_0", "Q8_K"], {}, "no-encoder"),
        (["I8"], {}, "encoding"),
        (["F16"], {"tensors": "nothing"}, "no-matrix"),
        (["F16"], {"tensors": "bias"}, "no-matrix"),
        (["F16"], {"tensors": "("}, "pattern"),
        (["F16"], {"threads": 0}, "threads"),
    ],
)
def test_what_makes_no_sense_is_refused(
    model: Path, types: list[str], options: dict, rule: str
) -> None:
    with pytest.raises(wb.Error) as raised:
        wb.quantize_error(model, types, **options)
    assert raised.value.rule == rule


def test_an_encoding_is_tried_once(model: Path) -> None:
    found = wb.quantize_error(model, ["f16", "Q8_0", "float16", "F16"])
    assert [str(total.encoding) for total in found.total] == ["F16", "Q8_0"]
    assert QuantizeErrors(()).total == ()


TABLE = """\
tensor       shape   type          size  bits/value  relative RMS  max error
a.weight     4x256   Q8_0        1.1 kB         8.5       0.00235    0.00385
                     Q4_K         576 B         4.5        0.0134     0.0305
b.weight     2x3x64  Q8_0         408 B         8.5       0.00223    0.00705
                     Q4_K  does not fit
bf16.weight  2x64    Q8_0         136 B         8.5       6.1e-05    6.1e-05
                     Q4_K  does not fit

type  matrices    size  bits/value  relative RMS  max error
Q8_0       3/3  1.6 kB         8.5       0.00213    0.00705
Q4_K       1/3   576 B         4.5        0.0134     0.0305
"""


def test_the_table(model: Path) -> None:
    before = listing(model.parent)
    assert called("quantize-error", model, "--types", "Q8_0, q4_k") == Done(0, TABLE, "")
    assert listing(model.parent) == before


def test_the_table_of_some_tensors(model: Path) -> None:
    done = called("quantize-error", model, "--types", "F16", "--tensor", "^[ab]", "--threads", "1")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["a.weight", "b.weight"]
    assert lines[-1].split()[:2] == ["F16", "3/3"]


def test_in_json(model: Path) -> None:
    document = called("quantize-error", model, "--types", "F32,Q4_K", "--json").json
    kept = {"encoding": "f32", "bits_per_value": 32, "relative_rms_error": 0, "max_error": 0}
    none = {"bits_per_value": None, "relative_rms_error": None, "max_error": None}
    assert document["tensors"][1] == {
        "name": "b.weight",
        "shape": [2, 3, 64],
        "encoding": "f32",
        "weighted": False,
        "candidates": [
            {**kept, "values": 384, "bytes": 1536, "problem": None},
            {"encoding": "q4_k", "values": 0, "bytes": 0, **none, "problem": "does not fit"},
        ],
    }
    assert document["total"][0] == {**kept, "values": 1536, "bytes": 6144, "tensors": 3}
    assert document["total"][1]["tensors"] == 1


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ([], "usage"),
        (["--types", ","], "types"),
        (["--types", "Q9"], "unknown-encoding"),
        (["--types", "F16", "--tensor", "z"], "no-matrix"),
    ],
    ids=str,
)
def test_bad_input_ends_with_2(model: Path, arguments: list[str], rule: str) -> None:
    done = called("quantize-error", model, *arguments)
    assert (done.code, done.out, done.rules) == (2, "", [rule])
