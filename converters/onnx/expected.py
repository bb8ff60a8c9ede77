"""Which tensors the class of a model has, where a family's rules say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge import registry
from weighbridge.errors import Error
from weighbridge.families import find
from weighbridge.report import Report
from weighbridge.rules import countable
from weighbridge.tensor_names import model_class

if TYPE_CHECKING:
    from weighbridge.model import Config


def expected_names(config: Config | None, most: int) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that a model must have, and all that it may have; none where no family is.

    Args:
        config: its config.json.
        most: how many tensors there can be: hostile configs count to billions.
    """
    if config is None:
        return frozenset(), frozenset()
    required: set[str] = set()
    expected: set[str] = set()
    try:
        arch = find(registry.architectures().values(), config)
        whole = {**arch.defaults, **config}
        variables = arch.variables(whole)
        for rule in arch.rules(whole):
            if not countable(rule, variables, most, Report()):
                return frozenset(), frozenset()
            names = {
                arch.naming.own(name, model_class(config))
                for left, _ in rule.expand(variables)
                for name in left
            }
            expected |= names
            required |= set() if rule.optional else names
    except Error:  # an unknown family, or a config that its rules cannot be made from
        return frozenset(), frozenset()
    return frozenset(required), frozenset(expected)
