"""Shortcuts through the exporters change no graph, and are missed where they are not there."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any

import onnx_ir.schemas
import pytest
import torch.fx.config
from onnxscript.rewriter import _matcher
from support.graph_cases import make

import weighbridge as wb
from weighbridge.converters.graphs import seams, shortcuts
from weighbridge.errors import Unsupported

if TYPE_CHECKING:
    from pathlib import Path

PLACES = [
    (onnx_ir.schemas.OpSignature, shortcuts.SIGNATURE),
    (_matcher.SimplePatternMatcher, shortcuts.MATCH),
    (torch.fx.config, shortcuts.NO_STACKS),
]


def graph_of(source: Path) -> bytes:
    return wb.plan(source, source / "out", to="onnx").model.components[0].graph


def test_graphs_are_the_same_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("llama-tied").save_pretrained(tmp_path)
    short = graph_of(tmp_path)
    monkeypatch.setattr(shortcuts, "shortcuts", contextlib.nullcontext)
    assert graph_of(tmp_path) == short


def test_all_is_as_it_was_afterwards() -> None:
    before = [vars(owner)[name] for owner, name in PLACES]
    frozen = gc.get_freeze_count()
    with shortcuts.shortcuts():
        assert [vars(owner)[name] for owner, name in PLACES] != before
    assert [vars(owner)[name] for owner, name in PLACES] == before
    assert gc.get_freeze_count() == frozen


@pytest.mark.parametrize(
    ("owner", "name"), PLACES, ids=lambda part: getattr(part, "__name__", part)
)
def test_what_is_not_there_is_missed(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seams.check_installed()
    monkeypatch.delattr(owner, name)
    with pytest.raises(Unsupported) as error:
        seams.check_installed()
    assert error.value.rule == "exporter-version"
