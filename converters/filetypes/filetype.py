"""A file type: a base encoding, and choices of others for some tensors; the first that fits counts.

Source: llama.cpp, ``src/llama-quant.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weighbridge.converters.filetypes.conditions import (
    When,
    eight_experts,
    either,
    falcon,
    ragged,
)
from weighbridge.converters.filetypes.places import Place, facts_of, places
from weighbridge.kernels import codec_for
from weighbridge.metadata import scalar
from weighbridge.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Encoding
    from weighbridge.model import Model

FILE_TYPE = "general.file_type"

MORE_FOR_SEVENTY_BILLION = {"q3_k": "q5_k", "q4_k": "q5_k"}
"""What value projections get instead in a model of 70 B, where they are an eighth of the queries'
size."""

NEED_WEIGHTS = frozenset({"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs"})
"""The encodings that llama-quantize makes with importance weights only; in Q2_K_S also Q2_K."""

NEVER_NEED_WEIGHTS = ("output.weight", "token_embd.weight", "per_layer_token_embd.weight")
"""The matrices for which it does without, whatever their encoding."""


@dataclass(frozen=True)
class Choice:
    """Tensors of a kind (``*`` for any) get an encoding where a condition holds."""

    kind: str
    encoding: str
    when: When = lambda place: True


FIRST = (Choice("output", "q8_0", either(falcon, ragged)),)
"""What is chosen before anything else."""

EIGHT_EXPERTS = (Choice("attn_v", "q8_0", eight_experts), Choice("attn_k", "q8_0", eight_experts))
"""What is chosen next, by most file types."""

LAST = (Choice("output", "q6_k", lambda place: place.base != "q8_0"),)
"""What is chosen where a file type has nothing else for the kind."""


@dataclass(frozen=True)
class FileType(Recipe):
    """A file type.

    Attributes:
        name: what llama-quantize calls it.
        number: the value of ``general.file_type``.
        base: the encoding of the tensors that no choice fits.
        own: its choices, in order.
        helps: whether models of eight experts, and of 70 B, get more bits for keys and values.
        pure: whether nothing is chosen: one encoding for all.
        weighted: whether there is an importance matrix.
    """

    name: str
    number: int
    base: str
    own: tuple[Choice, ...] = ()
    helps: bool = True
    pure: bool = False
    weighted: bool = False

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Everything that may be chosen, in order."""
        helped = EIGHT_EXPERTS if self.helps else ()
        return () if self.pure else (*FIRST, *helped, *self.own, *LAST)

    def encodings(self, model: Model) -> Mapping[str, Encoding]:
        """Return the encoding of every matrix that may be quantised."""
        facts = facts_of(model.metadata, weighted=self.weighted)
        return {
            name: codec_for(self._choose(place)).encoding
            for name, place in places(model.tensors, facts, self.base).items()
        }

    def needs_importance(self, name: str, encoding: Encoding) -> bool:
        """Tell whether llama-quantize makes a tensor with importance weights only."""
        demanding = NEED_WEIGHTS | ({"q2_k"} if self.name == "Q2_K_S" else set())
        return encoding.name in demanding and name not in NEVER_NEED_WEIGHTS

    def label(self, model: Model) -> Model:
        """Return the model with the number as ``general.file_type``."""
        return replace(model, metadata={**model.metadata, FILE_TYPE: scalar("u32", self.number)})

    def _choose(self, place: Place) -> str:
        fitting = (
            choice.encoding
            for choice in self.choices
            if choice.kind in ("*", place.kind) and choice.when(place)
        )
        encoding = next(fitting, self.base)
        if self.helps and not self.pure and place.kind == "attn_v" and place.facts.seventy:
            return MORE_FOR_SEVENTY_BILLION.get(encoding, encoding)
        return encoding
