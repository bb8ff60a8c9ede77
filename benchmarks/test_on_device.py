"""The table of a device's speeds can be made; the CPU's own tensors stand in for a GPU's."""

from __future__ import annotations

import pytest

from weighbridge.benchmarks import encodings, on_device

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(("name", "encodes"), [("q8_0", True), ("q4_k", True), ("tq1_0", False)])
def test_measures_the_same_results(name: str, encodes: bool) -> None:
    speed = on_device.measure(name, torch.randn(2, 1024), rounds=1)
    assert speed.same
    assert speed.decode > 0
    assert speed.copy > 0
    assert (speed.encode is not None) == encodes


def test_makes_a_table() -> None:
    table = on_device.table_of(["q4_0", "mxfp4"], 2, 1, "cpu")
    assert table.row_count == 2
    assert list(table.columns[-1].cells) == ["same", "same"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    encodings.main(["q4_k"], device="cuda")
    assert capsys.readouterr().out == "no CUDA device here: nothing was measured\n"
