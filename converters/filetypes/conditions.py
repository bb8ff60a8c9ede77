"""The conditions of a choice: of layers, of heads, of experts, of shapes."""

from __future__ import annotations

from collections.abc import Callable

from weighbridge.converters.filetypes.places import Place
from weighbridge.kernels import codec_for

When = Callable[[Place], bool]


def every(*conditions: When) -> When:
    """Hold where all of them do."""
    return lambda place: all(condition(place) for condition in conditions)


def either(*conditions: When) -> When:
    """Hold where one of them does."""
    return lambda place: any(condition(place) for condition in conditions)


def other_than(condition: When) -> When:
    """Hold where it does not."""
    return lambda place: not condition(place)


def first(part: int) -> When:
    """Hold for the first layers: one in so many."""
    return lambda place: place.index < place.count // part


def earliest(part: int) -> When:
    """Hold for the first of the kind, counted without a look at their layers: one in so many."""
    return lambda place: place.order < place.count // part


def middle(place: Place) -> bool:
    """Hold for all layers but the first and the last eighth."""
    return place.count // 8 <= place.index < 7 * place.count // 8


def before(index: int) -> When:
    """Hold for the first so many of the kind."""
    return lambda place: place.index < index


def more(place: Place) -> bool:
    """Hold for the first and the last eighth of the layers, and for every third between."""
    return not middle(place) or (place.index - place.count // 8) % 3 == 2


def grouped(place: Place) -> bool:
    """Hold where at least four query heads share their keys and values."""
    return place.facts.groups >= 4


def eight_experts(place: Place) -> bool:
    """Hold in models of eight experts, as Mixtral."""
    return place.facts.experts == 8


def four_experts(place: Place) -> bool:
    """Hold in models of four experts or more."""
    return place.facts.experts >= 4


def weighted(place: Place) -> bool:
    """Hold where there is an importance matrix."""
    return place.facts.weighted


def stacked(place: Place) -> bool:
    """Hold for the experts of a layer, which are one tensor of three axes."""
    return place.tensor.ndim > 2 and place.tensor.shape[0] > 1


def falcon(place: Place) -> bool:
    """Hold in the Falcon family."""
    return place.facts.family == "falcon"


def ragged(place: Place) -> bool:
    """Hold where the rows cannot be cut into blocks of the base encoding."""
    return not codec_for(place.base).encoding.fits(place.tensor.shape)


def not_falcon(place: Place) -> bool:
    """Hold in every other family."""
    return place.facts.family != "falcon"
