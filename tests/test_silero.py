"""silero-vad's ONNX files, of several exporters, against the TorchScript file of the same model.

The package's safetensors are of another training: the same tensors in the same shapes, of which
the basis of the Fourier transform alone has the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.exported import named
from support.onnx_files import package_file

import weighbridge as wb

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from weighbridge.model import Model

FILES = {
    "silero_vad.onnx": {
        "_model.": "If_0_then_branch__Inline_0__",
        "_model_8k.": "If_0_else_branch__Inline_0__",
    },
    "silero_vad_op18_ifless.onnx": {"_model.": "model.", "_model_8k.": "model_8k."},
    "silero_vad_16k_op15.onnx": {"_model.": "model."},
    "silero_vad_openvino_16k.onnx": {"_model.": "If_0_then_branch__Inline_0__"},
}
"""What the names begin with in the TorchScript file -> and in an ONNX file. In the first they are
in the branches of an If, in the last in a function."""

OF_ANOTHER_TRAINING = {"silero_vad_op18_ifless.onnx": "model_8k."}
"""Tensors whose numbers are others than in the TorchScript file, but for their bases."""

ROLES = {
    "stft_conv": ("stft.forward_basis_buffer",),
    **{f"conv{n + 1}": (f"encoder.{n}.reparam_conv",) for n in range(4)},
    "lstm_cell": ("decoder.rnn",),
    "final_conv": ("decoder.decoder.2",),
}
"""What the safetensors file calls what the ONNX files call otherwise."""


@pytest.fixture(scope="module")
def scripted() -> dict[str, NDArray[np.float32]]:
    """Return the weights of the TorchScript file."""
    loaded = torch.jit.load(package_file("silero_vad", "silero_vad.jit"), map_location="cpu")
    return {name: value.numpy() for name, value in loaded.state_dict().items()}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*")
def test_every_weight_is_the_one_of_the_torchscript_file(
    file: str, scripted: dict[str, NDArray[np.float32]]
) -> None:
    with wb.open(package_file("silero_vad", file)) as model:
        found, report = named(model)
        assert not report.problems
        expected = {
            ours + name.removeprefix(theirs): value
            for theirs, ours in FILES[file].items()
            for name, value in scripted.items()
            if name.startswith(theirs)
        }
        assert found.tensors.keys() == expected.keys()
        other = OF_ANOTHER_TRAINING.get(file, "-")
        for name, tensor in found.tensors.items():
            if not name.startswith(other) or name.endswith("basis_buffer"):
                assert np.array_equal(tensor.values(), expected[name]), name


def _named_otherwise(model: Model, name: str) -> NDArray[np.float32]:
    layer, _, part = name.partition(".")
    (role,) = ROLES[layer]
    whole = f"model.{role}" if layer == "stft_conv" else f"model.{role}.{part}"
    return model.tensors[whole].values()


def test_the_safetensors_file_has_the_same_tensors() -> None:
    with (
        wb.open(package_file("silero_vad", "silero_vad_16k_op15.onnx")) as graph,
        wb.open(package_file("silero_vad", "silero_vad_16k.safetensors")) as weights,
    ):
        found, _ = named(graph)
        assert len(found.tensors) == len(weights.tensors)
        for name, tensor in weights.tensors.items():
            other = _named_otherwise(found, name)
            assert other.shape == tensor.shape
            assert np.array_equal(other, tensor.values()) == (name == "stft_conv.weight")


def test_weights_that_were_joined_and_turned_are_named() -> None:
    with wb.open(package_file("silero_vad", "silero_vad_16k_sequence.onnx")) as model:
        _, report = named(model)
    assert {problem.rule for problem in report.problems} == {"unresolved-initializer"}
    told = sorted(str(problem.tensor) for problem in report.problems)
    assert told == [f"onnx::LSTM_{number}" for number in (209, 210, 211)]


def test_it_becomes_safetensors(tmp_path: Path) -> None:
    source = package_file("silero_vad", "silero_vad.onnx")
    wb.convert(source, tmp_path / "vad.safetensors")
    with wb.open(source) as before, wb.open(tmp_path / "vad.safetensors") as after:
        found, _ = named(before)
        assert found.tensors.keys() == after.tensors.keys()
        for name, tensor in found.tensors.items():
            assert np.array_equal(tensor.values(), after.tensors[name].values())
