"""A model family: its names, its parameters and its rules, as a function of its config."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.aspects import Aspect, merge, same
from weighbridge.errors import Error, InvalidFile
from weighbridge.report import Report
from weighbridge.rules import Rule, Variables, countable, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.tensor import Lazy, Tensor

    Tensors = Mapping[str, Lazy]


@dataclass(frozen=True)
class Arch:
    """A model family. A relative is a `dataclasses.replace` of another, not a subclass.

    Attributes:
        name: GGUF's ``general.architecture``.
        classes: the ``architectures`` of config.json that it covers; the first is what a container
            that does not say becomes.
        model_type: the ``model_type`` that goes with the first class.
        aspects: what config and key-values both say, in the order in which they are written.
        rules: the tensors' names and shapes, for a config.
        variables: the values that the rules' variables take, for a config.
        dropped: templates of canonical tensors that the other dialect has no place for -> why.
    """

    name: str
    classes: tuple[str, ...]
    model_type: str
    aspects: tuple[Aspect, ...]
    rules: Callable[[Config], Sequence[Rule]]
    variables: Callable[[Config], Variables]
    dropped: Mapping[str, str] = field(default_factory=dict)

    def from_canonical(self, tensors: Tensors, config: Config, report: Report) -> dict[str, Lazy]:
        """Return the container's tensors: what the config makes, then the checkpoint's own."""
        translated: dict[str, Lazy] = {}
        for tensor in self._made(config, report):
            report.note("generated", tensor.name, "from config.json")
            translated[tensor.name] = tensor
        with report.collect():
            rules, variables = self.rules(config), self.variables(config)
            kept = self._without_dropped(tensors, variables, report)
            translated |= translate(kept, rules, variables, report)
        return translated

    def to_canonical(self, tensors: Tensors, config: Config, report: Report) -> dict[str, Lazy]:
        """Return the checkpoint's tensors under their canonical names."""
        made = {name for aspect in self.aspects for name in aspect.makes}
        kept = {name: tensor for name, tensor in tensors.items() if name not in made}
        translated: dict[str, Lazy] = {}
        with report.collect():
            rules = [rule.inverse for rule in self.rules(config)]
            translated.update(translate(kept, rules, self.variables(config), report))
        return translated

    def _made(self, config: Config, report: Report) -> list[Tensor]:
        made: list[Tensor] = []
        for aspect in self.aspects:
            with report.collect():
                made.extend(aspect.tensors(config))
        return made

    def _without_dropped(self, tensors: Tensors, variables: Variables, report: Report) -> Tensors:
        kept = dict(tensors)
        for text, why in self.dropped.items():
            entry = Rule((text,), (text,), optional=True)
            # `translate` tells of a count that is too large; here it must only not be listed.
            if not countable(entry, variables, len(tensors), Report()):
                continue
            for left, _ in entry.expand(variables):
                for name in left:
                    if kept.pop(name, None) is not None:
                        report.note("dropped", name, why)
        return kept

    def to_metadata(self, config: Config, report: Report) -> dict[str, Value]:
        """Return the key-values that the config says; what is wrong goes into the report."""
        metadata: dict[str, Value] = {}
        for aspect in self.aspects:
            with report.collect():
                metadata.update(aspect.to_metadata(config, report))
        return {key.replace("{arch}", self.name): value for key, value in metadata.items()}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Tensors, report: Report
    ) -> dict[str, Any]:
        """Return the config that the key-values and the tensors of a container say."""
        config: dict[str, Any] = {"architectures": [self.classes[0]], "model_type": self.model_type}
        generic = self._generic(metadata)
        understood = []
        for aspect in self.aspects:
            with self._collect(report):
                merge(config, aspect.to_config(generic, tensors))
                understood.append(aspect)
        self._check(config, generic, understood, report)
        return config

    def revise(
        self, config: Config, metadata: Mapping[str, Value], tensors: Tensors, report: Report
    ) -> dict[str, Any]:
        """Return `config` with what the key-values say where they no longer say what it does.

        A container may carry its config whole; its key-values may have been edited since.
        """
        revised = dict(config)
        generic = self._generic(metadata)
        understood = []
        for aspect in self.aspects:
            with self._collect(report):
                changed = _changed(aspect, revised, generic, tensors)
                if changed:
                    revised = aspect.revised(revised, generic, tensors)
                understood.append(aspect)
                for key in changed:
                    name = key.replace("{arch}", self.name)
                    report.note("warning", name, "was changed since config.json was kept: it wins")
        self._check(revised, generic, understood, report)
        return revised

    def _generic(self, metadata: Mapping[str, Value]) -> dict[str, Value]:
        prefix = f"{self.name}."
        return {
            f"{{arch}}.{key.removeprefix(prefix)}" if key.startswith(prefix) else key: value
            for key, value in metadata.items()
        }

    @contextmanager
    def _collect(self, report: Report) -> Iterator[None]:
        """Keep an error as `Report.collect` does, with the family's name for ``{arch}``."""
        try:
            yield
        except Error as error:
            error.problem = error.problem.replace("{arch}", self.name)
            report.problem(error)

    def _check(
        self,
        config: Config,
        metadata: Mapping[str, Value],
        understood: Iterable[Aspect],
        report: Report,
    ) -> None:
        """Tell which key-values the config, now complete, does not say or contradicts."""
        known = {key for aspect in self.aspects for key in aspect.keys}
        for key in metadata:
            if key.startswith("{arch}.") and key not in known:
                name = key.replace("{arch}", self.name)
                report.note("dropped", name, "no config entry of the family says it")
        for aspect in understood:
            said = _said(aspect, config)
            for key in said.keys() & set(aspect.keys) & metadata.keys():
                if not same(said[key], metadata[key]):
                    report.problem(
                        InvalidFile(
                            f"{key.replace('{arch}', self.name)} contradicts the others",
                            rule="contradiction",
                            got=metadata[key].plain(),
                            expected=said[key].plain(),
                        )
                    )


def _said(aspect: Aspect, config: Config) -> Mapping[str, Value]:
    """Return what an aspect says of a config, nothing where that is wrong: others tell why."""
    try:
        return aspect.to_metadata(config, Report())
    except Error:
        return {}


def _changed(
    aspect: Aspect, config: Config, metadata: Mapping[str, Value], tensors: Tensors
) -> list[str]:
    """Return the keys and made tensors of a container that `config` does not give."""
    said = _said(aspect, config)
    made: dict[str, Tensor] = {}
    with suppress(Error):
        made = {tensor.name: tensor for tensor in aspect.tensors(config)}
    keys = [
        key for key in aspect.keys if key in metadata and not _agree(said.get(key), metadata[key])
    ]
    both = [name for name in aspect.makes if name in tensors or name in made]
    return keys + [name for name in both if not _equal(made.get(name), tensors.get(name))]


def _agree(said: Value | None, found: Value) -> bool:
    return said is not None and same(said, found)


def _equal(made: Lazy | None, found: Lazy | None) -> bool:
    if made is None or found is None or made.shape != found.shape:
        return False
    return bool(np.array_equal(made.values("f32"), found.values("f32")))


def find(architectures: Iterable[Arch], config: Config) -> Arch:
    """Return the family of a config by its ``architectures``, or by its ``model_type``.

    Raises:
        Error: (rule ``unknown-family``) when none covers it.
    """
    known = list(architectures)
    wanted = config.get("architectures") or []
    classes = [str(name) for name in wanted] if isinstance(wanted, list) else [str(wanted)]
    for arch in known:
        if any(name in arch.classes for name in classes):
            return arch
    for arch in known:
        if not classes and config.get("model_type") == arch.model_type:
            return arch
    raise unknown(", ".join(classes) or config.get("model_type"), (a.classes for a in known))


def find_by_name(architectures: Iterable[Arch], name: object) -> Arch:
    """Return the family that GGUF's ``general.architecture`` names.

    Raises:
        Error: (rule ``unknown-family``) when none has that name.
    """
    known = list(architectures)
    for arch in known:
        if arch.name == name:
            return arch
    raise unknown(name, ((arch.name,) for arch in known))


def unknown(got: object, known: Iterable[Sequence[str]]) -> Error:
    """Return the error of a family that no rule is known for."""
    return Error(
        "no rule is known for this model family",
        rule="unknown-family",
        got=got,
        expected=f"one of {', '.join(sorted(name for names in known for name in names))}",
        hint="--weights-only moves tensors under their own names",
    )
