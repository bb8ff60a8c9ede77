"""What ``--quantize`` means for graphs: integers in groups, for the matrices that states meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Encoding
    from weighbridge.model import Model


class Integers(Recipe):
    """Weights are integers in groups since the graph was made: nothing is left to choose."""

    def encodings(self, model: Model) -> Mapping[str, Encoding]:
        """Return none."""
        del model
        return {}

    def label(self, model: Model) -> Model:
        """Return the model: its operators say it."""
        return model


def recipe_of(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        InvalidInput: (rule ``quantize``) when there is none.

    Example:
        >>> type(recipe_of("int4_g128")).__name__
        'Integers'
    """
    from weighbridge.converters.graphs.quantized import Choice  # of no use to other targets

    Choice.of(name)
    return Integers()
