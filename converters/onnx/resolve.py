"""The checkpoint's tensors out of a model's graphs: every component is asked, and answers joined.

What cannot be told is a problem by name; nothing is guessed. Tensors of the graph's own, such as
shapes and masks, are left out with a note.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.converters.onnx import expressions, quantized, torch_export, torch_script
from weighbridge.converters.onnx.claims import Claim, Findings, Scene
from weighbridge.converters.onnx.expected import expected_names
from weighbridge.converters.onnx.halves import whole_names
from weighbridge.converters.onnx.ties import untied
from weighbridge.errors import InvalidFile, InvalidInput
from weighbridge.graph import PROPERTY
from weighbridge.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.graph import Program
    from weighbridge.model import Model
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

SHOWN = 3
"""Constants that are named one by one."""

HINT = "--weights-only moves tensors under their own names"


def resolved(model: Model, report: Report) -> dict[str, Lazy]:
    """Return the tensors of the checkpoint that a model's graphs were made from.

    Reports what is unresolved (rule ``unresolved-initializer``), lost (``missing-tensor``) or there
    twice (``duplicate-name``, ``which-component``), and what is wrong with a graph's own account.
    """
    programs = model.graph.programs if model.graph else ()
    required, expected = expected_names(model.config, len(model.tensors) + 1)
    told: dict[str, Findings] = {}
    for program in programs:
        with report.collect():
            told[program.name] = _findings(program, model, required, expected)
    choice = Choice(model, report)
    for program in programs:
        if program.name in told:
            choice.add(program, whole_names(program.name, told, model.config or {}))
    lost = {name: why for found in told.values() for name, why in found.lost.items()}
    claims = untied(choice.claims, expected | lost.keys(), model.config or {}, report)
    missing = {name: why for name, why in lost.items() if name not in claims}
    whole = not missing and bool(required) and required <= claims.keys()
    _report(told, missing, report, whole=whole)
    return {name: claim.tensor for name, claim in claims.items()}


def _findings(
    program: Program, model: Model, required: frozenset[str], expected: frozenset[str]
) -> Findings:
    tensors = {name: model.tensors[key] for name, key in program.tensors.items()}
    scene = Scene(program, tensors, required, expected)
    if PROPERTY in program.properties:
        found = expressions.findings(scene)
    else:
        found = torch_export.findings(scene) or torch_script.findings(scene)
    quantized.add(scene, found)
    return found


class Choice:
    """One claim for each name: the first component's, and one of an original before one of a copy.

    Attributes:
        claims: the chosen ones by name; their sources have the names that they have in the model.
    """

    def __init__(self, model: Model, report: Report) -> None:
        """Start with the tensors that are in no graph: they have the checkpoint's names."""
        programs = model.graph.programs if model.graph else ()
        inside = {key for program in programs for key in program.tensors.values()}
        self.claims = {
            name: Claim(name, tensor, name)
            for name, tensor in model.tensors.items()
            if name not in inside
        }
        self._owner: dict[str, str] = {}
        self._report = report

    def add(self, program: Program, claims: Sequence[Claim]) -> None:
        """Add the claims of a component."""
        again = 0
        for claim in sorted(claims, key=lambda claim: claim.copied):
            moved = replace(claim, source=program.tensors[claim.source])
            known = self.claims.setdefault(claim.name, moved)
            owner = self._owner.setdefault(claim.name, program.name)
            if known.source == moved.source:
                looked_up = known.looked_up or moved.looked_up
                self.claims[claim.name] = replace(known, looked_up=looked_up)
            else:
                with self._report.collect(claim.name):
                    _check_alike(known, moved, same=owner == program.name)
                again += owner != program.name
        if again:
            text = f"{counted(again, 'tensor')} that other components have as well"
            self._report.note("dropped", program.name, text)


def _check_alike(known: Claim, other: Claim, *, same: bool) -> None:
    """Refuse two tensors that are said to be one and differ, or that one graph has both.

    Args:
        known: what was found first.
        other: what is found again.
        same: whether both are in one graph.

    Raises:
        InvalidFile: (rules ``duplicate-name``, ``tensor-shape``).
        InvalidInput: (rule ``which-component``) when components have it in different encodings.
    """
    sources = f"{known.source} and {other.source}"
    if same and not other.copied:
        raise InvalidFile("two tensors of the graph are it", rule="duplicate-name", got=sources)
    if known.tensor.shape != other.tensor.shape:
        raise InvalidFile(
            f"{sources} are it, in different shapes",
            rule="tensor-shape",
            got=list(other.tensor.shape),
            expected=list(known.tensor.shape),
        )
    if not same and known.tensor.encoding != other.tensor.encoding:
        raise InvalidInput(
            "two components have it in different encodings",
            rule="which-component",
            got=f"{known.tensor.encoding} and {other.tensor.encoding}",
            hint="open one of the ONNX files by its own name",
        )


def _report(
    told: Mapping[str, Findings], missing: Mapping[str, str], report: Report, *, whole: bool
) -> None:
    """Tell what is not known, and what is left out.

    Args:
        told: what is known, by component.
        missing: tensors of the checkpoint that no component has -> why.
        report: is told.
        whole: whether the model has every tensor that its family wants.
    """
    for component, found in told.items():
        label = f"{component}: " if len(told) > 1 else ""
        for name in dict.fromkeys(found.decoded):
            report.note("decoded", name, "stored as integers in blocks: its numbers as float32")
        left = sorted(found.constants) + (sorted(found.unresolved) if whole else [])
        if left:
            text = f"{label}{counted(len(left), 'tensor')} of the graph's own: {_some(left)}"
            report.note("dropped", "constants", text)
        for name, why in () if whole else sorted(found.unresolved.items()):
            report.problem(
                InvalidFile(f"{label}{why}", rule="unresolved-initializer", tensor=name, hint=HINT)
            )
    for name, why in sorted(missing.items()):
        report.problem(InvalidFile(f"is missing: {why}", rule="missing-tensor", tensor=name))


def _some(names: Sequence[str]) -> str:
    """Return a few names as text."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
