"""Tiny models of every family, a module a family; ``CASES`` has them all by name.

A case is all that a new family needs to be tested: ``test_families_*.py`` run over every one.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from families.case import Case


def _cases() -> Iterator[Case]:
    for module in sorted(found.name for found in iter_modules(__path__)):
        yield from getattr(import_module(f"families.{module}"), "CASES", ())


CASES: dict[str, Case] = {case.name: case for case in _cases()}
