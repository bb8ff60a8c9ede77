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
from weighbridge.tensor_names import Naming, model_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from weighbridge.metadata import Metadata, Value
    from weighbridge.model import Config
    from weighbridge.tensor import Lazy, Tensor

    Files = Mapping[str, bytes]
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
        dropped: templates of canonical tensors that the other dialect has no place for -> why; one
            that a rule has for some configs is dropped for the others.
        lacking: classes whose checkpoints lack something after the way back -> what that means.
        naming: how checkpoints' names may differ from those in `rules`.
        marks: tells a container of this family from those of others with the same `name`; the
            family that has none is what is left.
        defaults: what transformers takes for entries that a config lacks, where that is no other
            entry's value; aspects and rules see it as the config's own.
    """

    name: str
    classes: tuple[str, ...]
    model_type: str
    aspects: tuple[Aspect, ...]
    rules: Callable[[Config], Sequence[Rule]]
    variables: Callable[[Config], Variables]
    dropped: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)
    naming: Naming = Naming()  # noqa: RUF009
    marks: Callable[[Metadata, Tensors], bool] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def from_canonical(self, tensors: Tensors, config: Config, report: Report) -> dict[str, Lazy]:
        """Return the container's tensors: what the config makes, then the checkpoint's own."""
        config = self._completed(config)
        translated: dict[str, Lazy] = {}
        for tensor in self._made(config, report):
            report.note("generated", tensor.name, "from config.json")
            translated[tensor.name] = tensor
        with report.collect():
            rules, variables = self.rules(config), self.variables(config)
            names = self.naming.modern(tensors, model_class(config), report)
            named = {modern: tensors[name] for modern, name in names.items()}
            told = Report()
            kept = self._without_dropped(named, rules, variables, told)
            translated |= translate(kept, rules, variables, told)
            report.add(told, names)
        return translated

    def to_canonical(self, tensors: Tensors, config: Config, report: Report) -> dict[str, Lazy]:
        """Return the checkpoint's tensors under their canonical names."""
        config = self._completed(config)
        made = {name for aspect in self.aspects for name in aspect.makes}
        kept = {name: tensor for name, tensor in tensors.items() if name not in made}
        translated: dict[str, Lazy] = {}
        with report.collect():
            rules = [rule.inverse for rule in self.rules(config)]
            translated.update(translate(kept, rules, self.variables(config), report))
        name = model_class(config)
        if name in self.lacking:
            report.note("warning", name, self.lacking[name])
        return {self.naming.own(modern, name): translated[modern] for modern in translated}

    def _completed(self, config: Config) -> Config:
        """Return the config with what it leaves to transformers' class; an entry of None stays."""
        return {**self.defaults, **config} if self.defaults else config

    def _made(self, config: Config, report: Report) -> list[Tensor]:
        made: list[Tensor] = []
        for aspect in self.aspects:
            with report.collect():
                made.extend(aspect.tensors(config))
        return made

    def _without_dropped(
        self, tensors: Tensors, rules: Sequence[Rule], variables: Variables, report: Report
    ) -> Tensors:
        kept = dict(tensors)
        mapped = {text for entry in rules for text in entry.left}
        for text, why in self.dropped.items():
            if text in mapped:
                continue
            entry = Rule((text,), (text,), optional=True)
            # `translate` tells of a count that is too large; here it must only not be listed.
            if not countable(entry, variables, len(tensors), Report()):
                continue
            for left, _ in entry.expand(variables):
                for name in left:
                    if kept.pop(name, None) is not None:
                        report.note("dropped", name, why)
        return kept

    def to_metadata(self, config: Config, files: Files, report: Report) -> dict[str, Value]:
        """Return the key-values that config and side files say; what is wrong is reported."""
        config = self._completed(config)
        metadata: dict[str, Value] = {}
        for aspect in self.aspects:
            with report.collect():
                metadata.update(aspect.to_metadata(config, report))
            with report.collect():
                metadata.update(aspect.read_files(files))
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

    def to_files(self, metadata: Mapping[str, Value], report: Report) -> dict[str, bytes]:
        """Return the side files that the key-values of a container stand for."""
        files: dict[str, bytes] = {}
        generic = self._generic(metadata)
        for aspect in self.aspects:
            with self._collect(report):
                files.update(aspect.write_files(generic))
        return files

    def revise_files(
        self,
        files: Files,
        config: Config,
        metadata: Mapping[str, Value],
        report: Report,
    ) -> dict[str, bytes]:
        """Return `files` with what the key-values say where they no longer say what it does."""
        revised = dict(files)
        generic = self._generic(metadata)
        for aspect in self.aspects:
            with self._collect(report):
                if _changed(aspect, self._completed(config), revised, generic, {}):
                    revised = aspect.revised_files(revised, generic)
        return revised

    def revise(
        self,
        config: Config,
        files: Files,
        metadata: Mapping[str, Value],
        tensors: Tensors,
        report: Report,
    ) -> dict[str, Any]:
        """Return `config` with what the key-values say where they no longer say what it does.

        A container may carry its config whole; its key-values may have been edited since.
        """
        revised = dict(config)
        generic = self._generic(metadata)
        understood = []
        for aspect in self.aspects:
            with self._collect(report):
                changed = _changed(aspect, self._completed(revised), files, generic, tensors)
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
            said = _said(aspect, self._completed(config), {})
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


def _said(aspect: Aspect, config: Config, files: Files) -> Mapping[str, Value]:
    """Return what an aspect says of a config, nothing where that is wrong: others tell why."""
    try:
        return {**aspect.to_metadata(config, Report()), **aspect.read_files(files)}
    except Error:
        return {}


def _changed(
    aspect: Aspect,
    config: Config,
    files: Files,
    metadata: Mapping[str, Value],
    tensors: Tensors,
) -> list[str]:
    """Return the keys and made tensors of a container that config and files do not give."""
    said = _said(aspect, config, files)
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
