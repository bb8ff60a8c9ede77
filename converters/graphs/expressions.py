"""What a graph's initialiser is of: a checkpoint's tensor, or an operation on such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.ops import Concat, Op, Split, Stack, Transpose, Unstack, apply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weighbridge.tensor import Lazy


@dataclass(frozen=True)
class Named:
    """A tensor of the checkpoint.

    Example:
        >>> Named("lm_head.weight").to_json()
        'lm_head.weight'
    """

    name: str

    def lazy(self, tensors: Mapping[str, Lazy]) -> Lazy:
        """Return the tensor."""
        return tensors[self.name]

    def leaves(self) -> tuple[str, ...]:
        """Return its name."""
        return (self.name,)

    def to_json(self) -> str:
        """Return its name."""
        return self.name


@dataclass(frozen=True)
class Made:
    """One result of an operation.

    Attributes:
        op: the operation.
        inputs: what it is applied to.
        result: which of its results this is.

    Example:
        >>> Made(Transpose(), (Named("lm_head.weight"),)).to_json()
        ['transpose', [1, 0], 'lm_head.weight']
    """

    op: Op
    inputs: tuple[Named | Made, ...]
    result: int = 0

    def lazy(self, tensors: Mapping[str, Lazy]) -> Lazy:
        """Return the operation on the tensors themselves."""
        return apply(self.op, [each.lazy(tensors) for each in self.inputs])[self.result]

    def leaves(self) -> tuple[str, ...]:
        """Return the names of the tensors that it is made of."""
        return tuple(name for each in self.inputs for name in each.leaves())

    def to_json(self) -> list[Any]:
        """Return it as JSON: a word, what the operation needs, and what it is applied to."""
        return _WORDS[type(self.op)](self.op, [each.to_json() for each in self.inputs], self.result)


_WORDS: Mapping[type[Op], Callable[[Any, list[Any], int], list[Any]]] = {
    Transpose: lambda op, of, _: ["transpose", list(op.axes), *of],
    Concat: lambda op, of, _: ["concat", op.axis, of, list(op.sizes)],
    Split: lambda op, of, result: ["split", op.axis, list(op.sizes), result, *of],
    Stack: lambda _, of, __: ["stack", of],
    Unstack: lambda op, of, result: ["unstack", op.count, result, *of],
}
"""How the operations that occur are written down."""


def transposed(expression: Named | Made, axes: tuple[int, ...]) -> Named | Made:
    """Return an expression with its axes in another order.

    Example:
        >>> transposed(transposed(Named("x"), (1, 0)), (1, 0))
        Named(name='x')
    """
    op = Transpose(axes)
    if isinstance(expression, Made) and expression.op == op.inverse:
        return expression.inputs[0]
    return Made(op, (expression,))
