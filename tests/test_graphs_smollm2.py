"""The real SmolLM2, out of its GGUF, in ONNX Runtime: decoded, and with its weights kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.gguf_files import smollm2
from transformers.exporters.base import ExportedModel

import weighbridge as wb

if TYPE_CHECKING:
    from pathlib import Path

    import torch

pytestmark = pytest.mark.long

PROMPT = "The three primary colours are"

NEW = 64


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("smollm2")
    for kept in ("exact", "none"):
        wb.convert(smollm2(), folder / kept, to="onnx", onnx_quantized=kept)
    return {"exact": folder / "exact", "none": folder / "none"}


@pytest.fixture(scope="module")
def reference() -> Any:
    return wb.transformers.from_pretrained(smollm2(), dtype="float32")


def _ids(reference: Any) -> torch.Tensor:
    return reference.tokenizer(PROMPT, return_tensors="pt").input_ids


def _generated(pipe: Any, ids: torch.Tensor) -> list[int]:
    made = pipe.model.generate(ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    return made[0].tolist()


@pytest.mark.parametrize("kept", ["exact", "none"])
def test_greedy_text_is_that_of_transformers(
    exports: dict[str, Path], reference: Any, kept: str
) -> None:
    ids = _ids(reference)
    expected = reference.model.generate(
        ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
    )
    assert _generated(wb.pipeline("text-generation", exports[kept]), ids) == expected[0].tolist()


def test_kept_weights_give_the_same_logits(exports: dict[str, Path], reference: Any) -> None:
    ids = _ids(reference)
    found, wanted = (
        wb.pipeline("text-generation", exports[kept]).model(ids).logits.numpy()
        for kept in ("exact", "none")
    )
    assert np.abs(found - wanted).max() < 1e-4 * max(1.0, np.abs(wanted).max())


def test_kept_weights_are_about_as_small_as_the_source(exports: dict[str, Path]) -> None:
    size = sum(path.stat().st_size for path in exports["exact"].glob("*.onnx*"))
    assert size <= 1.3 * smollm2().stat().st_size


def test_transformers_loads_both(exports: dict[str, Path]) -> None:
    for folder in exports.values():
        assert set(ExportedModel.from_pretrained(folder, device="cpu").components) == {"model"}
