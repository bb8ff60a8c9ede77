"""Importing the package is cheap: no framework comes with it."""

from __future__ import annotations

import json

import pytest
from support.tree import modules, run_python

HEAVY = {
    "gguf",
    "matplotlib",
    "numba",
    "onnx",
    "onnxruntime",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "xllamacpp",
}

CODE = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def imported_by(*names: str) -> set[str]:
    """Import modules in a fresh interpreter and return every top-level name that came with them."""
    return set(json.loads(run_python(CODE, *names)))


@pytest.mark.parametrize("name", ["weighbridge", "weighbridge.cli"])
def test_the_door_brings_no_framework(name: str) -> None:
    assert not imported_by(name) & HEAVY


def test_the_package_does_not_import_the_command() -> None:
    assert not imported_by("weighbridge") & {"rich", "typer"}


def test_no_module_brings_a_framework() -> None:
    # Compiled kernels, pipelines and graphs are imported by who wants them, inside a function.
    pipelines = ("answering", "captioning", "embedding", "generating", "text_to_text")
    graphs = ("caches", "pooled", "recorded", "samples", "skeleton", "stages", "tasks")
    wanted = (
        ".kernels.simd",
        ".kernels.device",
        *(f".pipelines.{name}" for name in pipelines),
        *(f".graphs.{name}" for name in graphs),
    )
    names = {
        name
        for name in modules("core", "formats", "converters")
        if not any(part in name for part in wanted)
    }
    assert not imported_by(*names) & HEAVY
