"""What graphs say that their tensors are: each claim names one tensor of the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.graph import Program, Structure, Use
    from weighbridge.tensor import Lazy


MOST_INPUTS = 64
"""The most inputs of a node that is asked what it reads."""


@dataclass(frozen=True)
class Claim:
    """A tensor of the checkpoint that is in a graph.

    Attributes:
        name: in the checkpoint, as the state dict of its class has it.
        tensor: in the checkpoint's shape.
        source: the graph's tensor that it is, or is a part of.
        copied: whether the exporter computed that one from a tensor that may be there as well.
        looked_up: whether rows of it are looked up, as those of an embedding are.
    """

    name: str
    tensor: Lazy
    source: str
    copied: bool = False
    looked_up: bool = False


@dataclass
class Findings:
    """What is known of the tensors of one graph.

    Attributes:
        claims: the checkpoint's tensors that are in it.
        constants: the graph's tensors that are none of the checkpoint's -> why.
        unresolved: the graph's tensors that may be -> why it is not known which.
        lost: the checkpoint's tensors that are not in it -> where they went.
        decoded: the checkpoint's tensors that are stored quantised.
    """

    claims: list[Claim] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    unresolved: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    decoded: list[str] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        """The names of the checkpoint's tensors that are in the graph."""
        return {claim.name for claim in self.claims}

    @property
    def used(self) -> set[str]:
        """The graph's tensors of which something is known."""
        return {claim.source for claim in self.claims} | self.constants.keys()


@dataclass(frozen=True)
class Scene:
    """A graph with its tensors, and what its class is known to have.

    Attributes:
        program: the graph.
        tensors: by their names in it.
        required: names of the checkpoint's tensors that the class must have, as far as known.
        expected: names that it may have; those that it must have are among them.
    """

    program: Program
    tensors: Mapping[str, Lazy]
    required: frozenset[str] = frozenset()
    expected: frozenset[str] = frozenset()

    @property
    def structure(self) -> Structure:
        """The graph's nodes."""
        return self.program.structure

    def uses(self, name: str) -> list[Use]:
        """Return where a tensor is read; nodes with very many inputs say nothing of any."""
        found = self.structure.uses.get(name, [])
        return [use for use in found if len(use.node.inputs) <= MOST_INPUTS]
