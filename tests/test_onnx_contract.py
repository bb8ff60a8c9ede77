"""ONNX keeps what every container format has to keep, in one file and with external data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE
from weighbridge.formats.onnx import FORMAT
from weighbridge.layout import Layout, LayoutOptions
from weighbridge.testing import FormatContract, tensor_of

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.model import Model


class TestTheContract(FormatContract):
    format = FORMAT


class TestTheContractWithExternalData(FormatContract):
    format = FORMAT
    flips = 200

    def sample(self) -> Model:
        large = {
            f"large.{name}": tensor_of(f"large.{name}", DENSE[name], (8, 512), 1)
            for name in ("f32", "f16", "i8", "u4", "f6_e2m3")
        }
        model = super().sample()
        return replace(model, tensors={**model.tensors, **large})

    def laid_out(self, model: Model) -> Layout:
        return FORMAT.layout(model, self.target_name, LayoutOptions(external=True))

    def written(
        self,
        model: Model,
        folder: Path,
        options: LayoutOptions | None = None,
        *,
        weights: bool = True,
    ) -> tuple[Path, Layout]:
        options = replace(options or LayoutOptions(), external=True)
        return super().written(model, folder, options, weights=weights)
