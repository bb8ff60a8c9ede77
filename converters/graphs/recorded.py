"""Tensors of torch without memory, which know of which tensors of the checkpoint they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from weighbridge.converters.graphs.expressions import Made, Named
from weighbridge.errors import Unsupported
from weighbridge.ops import Concat, Split, Stack, Transpose, Unstack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from weighbridge.ops import Op


class Recorded(torch.Tensor):
    """A tensor whose numbers are all one zero, with a storage of its own by which it is known.

    What is done to it is recorded, as far as it only moves numbers.

    Attributes:
        expression: of what it is made; None where something else was done.
    """

    expression: Named | Made | None

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record what moves numbers; what anything else gives is of nothing that is known."""
        del types
        if func in _MOVES and all(_known(each) for each in args):
            return _MOVES[func](*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor):
            return result
        return _with(args[0].expression if func in _ALIKE else None, result)


def recorded(
    expression: Named | Made, shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Recorded:
    """Return a tensor of that shape and dtype that stands for `expression`.

    Example:
        >>> both = torch.stack([recorded(Named("a"), (2, 3)), recorded(Named("b"), (2, 3))])
        >>> both.expression.to_json(), tuple(both.shape), both.untyped_storage().nbytes()
        (['stack', ['a', 'b']], (2, 2, 3), 4)
    """
    return _with(expression, torch.zeros((), dtype=dtype).expand(tuple(shape)))


def _with(expression: Named | Made | None, tensor: torch.Tensor) -> Recorded:
    made = tensor.as_subclass(Recorded)
    made.expression = expression
    return made


def _known(value: Any) -> bool:
    """Tell whether an argument is no tensor, or one that is recorded; of several, whether all."""
    if isinstance(value, list | tuple):
        return all(_known(each) for each in value)
    return not isinstance(value, torch.Tensor) or getattr(value, "expression", None) is not None


def _applied(op: Op, tensors: Sequence[torch.Tensor]) -> tuple[Recorded, ...]:
    inputs = cast("Sequence[Recorded]", tensors)
    shapes = op.shapes([tuple(tensor.shape) for tensor in inputs])
    made = tuple(cast("Named | Made", tensor.expression) for tensor in inputs)
    return tuple(
        recorded(Made(op, made, number), shape, inputs[0].dtype)
        for number, shape in enumerate(shapes)
    )


def _stack(tensors: Sequence[torch.Tensor], dim: int = 0) -> Recorded:
    (stacked,) = _applied(Stack(len(tensors)), tensors)
    return _moved(stacked, 0, dim % stacked.ndim)


def _moved(tensor: Recorded, source: int, target: int) -> Recorded:
    axes = [axis for axis in range(tensor.ndim) if axis != source]
    axes.insert(target, source)
    return tensor if source == target else _applied(Transpose(tuple(axes)), [tensor])[0]


def _cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> Recorded:
    if len(tensors) == 1:
        return cast("Recorded", tensors[0])
    axis = dim % tensors[0].ndim
    return _applied(Concat(axis, tuple(tensor.shape[axis] for tensor in tensors)), tensors)[0]


def _transpose(tensor: torch.Tensor, first: int, second: int) -> Recorded:
    axes = list(range(tensor.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return _applied(Transpose(tuple(axes)), [tensor])[0]


def _turned(tensor: torch.Tensor) -> Recorded:
    return _transpose(tensor, -2, -1)


def _split(tensor: torch.Tensor, sizes: int | Sequence[int], dim: int = 0) -> tuple[Recorded, ...]:
    axis = dim % tensor.ndim
    length = tensor.shape[axis]
    lengths = (
        [min(sizes, length - at) for at in range(0, length, sizes)]
        if isinstance(sizes, int)
        else sizes
    )
    return _applied(Split(axis, tuple(lengths)), [tensor])


def _chunk(tensor: torch.Tensor, chunks: int, dim: int = 0) -> tuple[Recorded, ...]:
    return _split(tensor, -(-tensor.shape[dim] // chunks), dim)


def _unbind(tensor: torch.Tensor, dim: int = 0) -> tuple[Recorded, ...]:
    first = _moved(cast("Recorded", tensor), dim % tensor.ndim, 0)
    return _applied(Unstack(first.shape[0]), [first])


def _padded(tensor: torch.Tensor, pad: Sequence[int], *_: Any, **__: Any) -> torch.Tensor:
    if any(pad):
        raise Unsupported(
            "a weight is shorter than the class wants", rule="weight-operation", got=list(pad)
        )
    return tensor


def _same(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return tensor


_MOVES: Mapping[Any, Callable[..., Any]] = {
    torch.stack: _stack,
    torch.cat: _cat,
    torch.transpose: _transpose,
    torch.Tensor.transpose: _transpose,
    torch.Tensor.t: _turned,
    torch.Tensor.T.__get__: _turned,  # type: ignore[attr-defined]
    torch.split: _split,
    torch.Tensor.split: _split,
    torch.chunk: _chunk,
    torch.Tensor.chunk: _chunk,
    torch.unbind: _unbind,
    torch.Tensor.unbind: _unbind,
    torch.nn.functional.pad: _padded,
    torch.Tensor.contiguous: _same,
    torch.Tensor.clone: _same,
}
"""What moves numbers, and how it is recorded."""

_ALIKE = frozenset(
    {
        torch.Tensor.detach,
        torch.Tensor.requires_grad_,
        torch.Tensor.data.__get__,  # type: ignore[attr-defined]
    }
)
"""What gives the same tensor again."""
