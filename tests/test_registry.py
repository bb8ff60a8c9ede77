"""Plugins: found by entry points, loaded when needed, and refused by name."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pytest

from weighbridge import registry
from weighbridge.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GROUP = "weighbridge.formats"
BROKEN = {
    "absent": None,
    "raises": "1 / 0",
    "exits": "raise ValueError('no')",
    "wrong": "syntax error",
    "empty": "",
}


@pytest.fixture
def plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, list[EntryPoint]]]:
    """Let a test say what is installed."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [p for p in points if p.group == group]
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, code in BROKEN.items():
        if code is not None:
            (tmp_path / f"plugin_{name}.py").write_text(code)
    registry.found.cache_clear()
    registry.load.cache_clear()
    yield points
    registry.found.cache_clear()
    registry.load.cache_clear()


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def rule_of(load: object, *arguments: str) -> str:
    with pytest.raises(Error) as caught:
        load(*arguments)
    return caught.value.rule


def test_what_is_built_in_is_found() -> None:
    assert {"gguf", "huggingface", "onnx", "safetensors"} <= set(registry.formats())
    assert "llama" in registry.architectures()
    assert registry.dialect("huggingface").name == "huggingface"


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Error, match=r"there is no format 'nix'.*gguf, huggingface") as caught:
        registry.load("formats", "nix")
    assert caught.value.rule == "unknown-plugin"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_refused_by_name(plugins: list[EntryPoint], name: str) -> None:
    plugins.append(point("mine", f"plugin_{name}:FORMAT"))
    assert rule_of(registry.load, "formats", "mine") == "broken-plugin"


def test_two_plugins_of_one_name_are_refused(plugins: list[EntryPoint]) -> None:
    plugins += [point("mine", "sys:path"), point("mine", "sys:argv")]
    assert rule_of(registry.formats) == "duplicate-plugin"


def test_one_plugin_that_is_found_twice_is_one(plugins: list[EntryPoint]) -> None:
    plugins += [point("mine", "sys:path"), point("mine", "sys:path")]
    assert registry.formats() == {"mine": sys.path}


def test_nothing_is_imported_before_it_is_asked_for(plugins: list[EntryPoint]) -> None:
    plugins += [point("mine", "plugin_raises:FORMAT"), point("theirs", "sys:path")]
    assert registry.load("formats", "theirs") is sys.path
    assert "plugin_raises" not in sys.modules
