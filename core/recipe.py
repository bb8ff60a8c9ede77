"""What a recipe is: a named way to give each tensor of a model its own encoding, as Q4_K_M."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Encoding
    from weighbridge.model import Model


class Recipe(ABC):
    """A choice of encodings for a whole model; a dialect knows its recipes by name."""

    @abstractmethod
    def encodings(self, model: Model) -> Mapping[str, Encoding]:
        """Return the encodings of the tensors that it chooses for; all others stay as they are.

        Rows that are no whole number of blocks are the dialect's business.
        """

    def packed(self, model: Model) -> Model:
        """Return the model with the weights that it stores as several tensors stored so."""
        return model

    def needs_importance(self, name: str, encoding: Encoding) -> bool:
        """Tell whether a tensor is not to have this encoding without importance weights."""
        del name, encoding
        return False

    @abstractmethod
    def label(self, model: Model) -> Model:
        """Return the model with a key-value that names the recipe."""
