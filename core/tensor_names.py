"""How tensors are named in the checkpoints of one family: with a prefix or without, old and new."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.errors import InvalidFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.model import Config
    from weighbridge.report import Report


@dataclass(frozen=True)
class Naming:
    """What may differ between a checkpoint's names and those in a family's rules.

    Attributes:
        base: what the names of the base model's tensors begin with in the rules, its dot included.
        bare: classes that are the base model itself, whose checkpoints lack `base`.
        aliases: how names of old checkpoints end -> how they end in the rules.
        copies: names of tensors that checkpoints hold again, or instead -> the name in the rules.

    Example:
        >>> from weighbridge.report import Report
        >>> naming = Naming("bert.", bare=("BertModel",), aliases={".gamma": ".weight"})
        >>> naming.modern(["norm.gamma"], "BertModel", Report())
        {'bert.norm.weight': 'norm.gamma'}
        >>> naming.own("bert.norm.weight", "BertModel")
        'norm.weight'
    """

    base: str = ""
    bare: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)

    def modern(self, names: Iterable[str], model: str, report: Report) -> dict[str, str]:
        """Return the names in the rules -> those of a checkpoint of the class `model`.

        A name that comes back otherwise is told; two names of one tensor are a problem.
        """
        found: dict[str, str] = {}
        for name in self._without_copies(list(names), report):
            first = found.setdefault(self._modern(name), name)
            if first != name:
                why = f"is {first} by an older name, which is there as well"
                report.problem(InvalidFile(why, rule="duplicate-name", tensor=name))
        if found and self.base and not any(name.startswith(self.base) for name in found):
            found = {self.base + name: own for name, own in found.items()}
            if model not in self.bare:
                why = f"the names lack this prefix of {model}, and come back with it"
                report.note("renamed", self.base, why)
        return found

    def own(self, name: str, model: str) -> str:
        """Return the name that the class `model` has for a name in the rules."""
        return name.removeprefix(self.base) if model in self.bare else name

    def _without_copies(self, names: list[str], report: Report) -> Iterable[str]:
        """Return the names, one for each tensor that may be there several times."""
        kept: dict[str, str] = {}
        for name in names:
            original = self.copies.get(name, name)
            if name != original and (original in names or original in kept):
                report.note("dropped", name, f"is taken for a copy of {original}")
                continue
            if name != original:
                report.note("renamed", name, f"comes back as {original}")
            kept[original] = name
        return kept.values()

    def _modern(self, name: str) -> str:
        if name in self.copies:
            return self.copies[name]
        for old, new in self.aliases.items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name


def model_class(config: Config) -> str:
    """Return the first of a config's classes, nothing where it names none.

    Example:
        >>> model_class({"architectures": ["LlamaForCausalLM"]})
        'LlamaForCausalLM'
    """
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""
