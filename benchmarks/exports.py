"""The cases of ONNX graphs: making them, and running them. They are measured when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.benchmarks.case import FASTEST, OURS, Case, Goal
from weighbridge.benchmarks.contender import Call, Role
from weighbridge.benchmarks.contenders import exporters, generating

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.benchmarks.contender import Prepare

GROUP = "Export"

PEERS = ("onnx", "onnxscript", "torch", "transformers")
PATIENCE = 100.0
"""Seconds that an export may take and still be measured again."""

MOBIUS = ("mobius-onnx", "onnx-shape-inference", *PEERS)


@dataclass(frozen=True)
class Way:
    """A way to make graphs of a model.

    Attributes:
        name: the contender that makes them, and the one that runs them.
        how: the call.
        prepare: imports, and returns the call.
        options: what `prepare` is given.
        needs: the distributions that must be installed.
        compared: whether the tokens must be those of the others.
    """

    name: str
    how: str
    prepare: Prepare
    options: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = PEERS
    compared: bool = True

    @property
    def kind(self) -> str:
        """What the graphs are called as an input."""
        return f"exported-{self.name.replace(', ', '-').replace(' ', '-')}"

    @property
    def role(self) -> Role:
        """Whose it is."""
        return Role.OURS if self.name.startswith(OURS) else Role.PEER


CHECKPOINT = (
    Way(OURS, "weighbridge.convert(dir, out, to='onnx')", exporters.weighbridge),
    Way(
        f"{OURS}, fused",
        "weighbridge.convert(dir, out, to='onnx', fuse='cpu')",
        exporters.weighbridge,
        {"fuse": "cpu"},
    ),
    Way(
        "transformers",
        "OnnxExporter().export_for_generation(model, inputs, OnnxConfig(dynamic=True)), "
        "save_pretrained(out)",
        exporters.generation,
    ),
    Way(
        "transformers, fused",
        "the same with ort_fusions='cpu'",
        exporters.generation,
        {"ort_fusions": "cpu"},
    ),
    Way("mobius", "mobius.build(dir, dtype='f32').save(out)", exporters.mobius, {}, MOBIUS),
    Way(
        "mobius, fused",
        "mobius.build(dir, dtype='f32', execution_provider='cpu').save(out)",
        exporters.mobius,
        {"provider": "cpu"},
        MOBIUS,
    ),
)
"""How graphs are made of a checkpoint, in float32."""

NO_CACHE = Way(
    "transformers, no cache",
    "OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True)), save_pretrained(out)",
    exporters.whole,
)


def _kept(kept: str, *, compared: bool = True) -> Way:
    return Way(
        f"{OURS}, {'float32' if kept == 'none' else kept}",
        f"weighbridge.convert(gguf, out, to='onnx', onnx_quantized='{kept}')",
        exporters.weighbridge,
        {"onnx_quantized": kept},
        compared=compared,
    )


GGUF = (
    _kept("exact"),
    _kept("small"),
    _kept("fast", compared=False),
    _kept("none"),
    Way("mobius, float32", "mobius.build_from_gguf(gguf).save(out)", exporters.mobius_gguf, {},
        (*MOBIUS, "gguf")),
    Way("mobius, quantised", "mobius.build_from_gguf(gguf, keep_quantized=True).save(out)",
        exporters.mobius_gguf, {"kept": "yes"}, (*MOBIUS, "gguf"), compared=False),
)  # fmt: skip
"""How graphs are made of a quantised GGUF."""

SOURCES = {"smollm2": "smollm2"}
"""Real models that are exported -> the input that they are."""

WAYS: Mapping[str, Way] = {way.kind: way for way in (*CHECKPOINT, *GGUF)}
"""The graphs that are run, by what they are called as an input."""


def _making(name: str, title: str, source: str, ways: Sequence[Way], goals: Sequence[Goal]) -> Case:
    calls = [
        Call(way.name, way.how, way.needs, role=way.role, prepare=way.prepare, options=way.options)
        for way in ways
    ]
    subject = calls[0].name
    return Case(name, GROUP, title, source, calls, subject, goals, patience=PATIENCE)


def _running(name: str, title: str, source: str, folder: str, ways: Sequence[Way]) -> Case:
    calls = [
        Call(
            way.name,
            f"{way.how}; ONNX Runtime",
            (*way.needs, "onnxruntime"),
            f"{folder}/{way.kind}",
            way.role,
            generating.generate,
            {"compared": "yes" if way.compared else ""},
        )
        for way in ways
    ]
    return Case(name, GROUP, title, source, calls, calls[0].name, again=True, made=generating.COUNT)


EXPORTS = (
    _making(
        "export-llama",
        "Export a Llama checkpoint ({size}) to ONNX in float32",
        "small/checkpoint",
        (*(way for way in CHECKPOINT if "fused" not in way.name), NO_CACHE),
        (Goal("transformers", 1), Goal(NO_CACHE.name, 1, "peak"), Goal(FASTEST, 1)),
    ),
    _running(
        "export-llama-run",
        f"{generating.COUNT} tokens of the exported Llama ({{size}}) in ONNX Runtime",
        "small/checkpoint",
        "small",
        CHECKPOINT,
    ),
    _making("export-smollm2", "Export SmolLM2-135M in GGUF ({size}) to ONNX", "smollm2", GGUF, ()),
    _running(
        "export-smollm2-run",
        f"{generating.COUNT} tokens of the exported SmolLM2-135M in ONNX Runtime",
        "smollm2",
        "smollm2",
        GGUF,
    ),
)
"""In the order in which they are run and shown."""
