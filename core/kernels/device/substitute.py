"""Copies of functions in which words mean something else: one text, several targets."""

from __future__ import annotations

import dis
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Function = Callable[..., Any]


class Substitution:
    """Copies functions of this package, and those that they call, with other meanings of words.

    Attributes:
        words: what each name means in the copies.
        finish: what is made of each copy.
        constant: what is made of each number that a copy knows by name.

    Example:
        >>> from weighbridge.kernels.ggml import search
        >>> copy = Substitution({"row": "another word"}).of(search.largest)
        >>> copy.__globals__["row"], search.largest.__globals__["row"].__name__
        ('another word', 'row')
    """

    def __init__(
        self,
        words: Mapping[str, Any],
        finish: Callable[[Function], Any] = lambda copy: copy,
        constant: Callable[[int], Any] = lambda number: number,
    ) -> None:
        """Take what the copies shall use; they are made when they are asked for."""
        self.words, self.finish, self.constant = words, finish, constant
        self._copies: dict[types.FunctionType, Any] = {}

    def of(self, function: Function) -> Any:
        """Return the copy of `function`, always the same one."""
        assert isinstance(function, types.FunctionType)
        if function not in self._copies:
            named = {name: self._meaning(name, function) for name in _names(function)}
            copy = types.FunctionType(
                function.__code__,
                {**function.__globals__, **self.words, **named},
                function.__name__,
                function.__defaults__,
            )
            copy.__qualname__ = function.__qualname__
            copy.__module__ = function.__module__
            self._copies[function] = self.finish(copy)
        return self._copies[function]

    def _meaning(self, name: str, function: types.FunctionType) -> Any:
        value = self.words.get(name, function.__globals__[name])
        if isinstance(value, types.FunctionType) and value.__module__.startswith("weighbridge."):
            return self.of(value)
        return self.constant(value) if isinstance(value, int) else value


def _names(function: types.FunctionType) -> list[str]:
    """Return the globals that a function reads, but for built-in ones."""
    read = (each.argval for each in dis.get_instructions(function) if each.opname == "LOAD_GLOBAL")
    return [name for name in dict.fromkeys(read) if name in function.__globals__]
