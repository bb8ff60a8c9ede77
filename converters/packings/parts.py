"""What all packings share: finding the parts of a weight by name, and fitting them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE, Shape
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.packed import reshaped
from weighbridge.packing import missing_part
from weighbridge.parted import Parted, parted

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

Tensors = Mapping[str, "Lazy"]
Parts = Mapping[str, "Lazy"]

ACTIVATIONS = (
    ".input_scale", ".activation_scale", ".input_global_scale", ".input_zero_point", ".k_scale",
    ".v_scale", ".q_scale", ".output_scale",
)  # fmt: skip
"""How the names of scales end that belong to activations: no other format has a place for them."""


@dataclass(frozen=True)
class Kind:
    """One way in which the parts of a weight are named and fitted together.

    Attributes:
        lead: how the name of the packed elements ends; what comes before is common to all parts.
        needs: how the names of the other parts end that have to be there.
        may: how those end that may be there.
        gives: how the weight's own name ends.
        build: makes the weight of its parts, by these endings, and of the settings.
        when: tells by the packed elements whether they are of this kind; None: all are.
    """

    lead: str
    needs: tuple[str, ...]
    gives: str
    build: Callable[[Parts, Config], Lazy]
    may: tuple[str, ...] = ()
    when: Callable[[Lazy], bool] | None = None


def put_together(
    tensors: Tensors, kinds: Sequence[Kind], settings: Config, report: Report
) -> dict[str, Lazy]:
    """Return the weights that parts make, and all other tensors as they are, in order.

    Reported are (rule ``missing-part``) a weight that lacks a part, (rule ``name-clash``) one whose
    name another tensor has, and what does not fit together; noted are scales of activations.
    """
    found = {
        name: kind
        for name, tensor in tensors.items()
        for kind in reversed(kinds)
        if name.endswith(kind.lead) and (kind.when is None or kind.when(tensor))
    }
    used = {
        other for name, kind in found.items() for other in _others(name, kind) if other in tensors
    }
    weights: dict[str, Lazy] = {}
    for name, tensor in tensors.items():
        with report.collect(name):
            if name in found:
                kind = found[name]
                gives = name.removesuffix(kind.lead) + kind.gives
                if gives != name and gives in tensors:
                    raise InvalidFile("the weight is there twice", rule="name-clash", got=gives)
                weights[gives] = kind.build(_gathered(name, kind, tensors), settings)
            elif name.endswith(ACTIVATIONS):
                report.note("dropped", name, "it scales activations, and weights alone are kept")
            elif name not in used:
                weights[name] = tensor
    return weights


def _others(name: str, kind: Kind) -> Iterable[str]:
    stem = name.removesuffix(kind.lead)
    return (stem + ending for ending in (*kind.needs, *kind.may))


def _gathered(name: str, kind: Kind, tensors: Tensors) -> Parts:
    """Return the parts of a weight by the endings of their names."""
    stem = name.removesuffix(kind.lead)
    for ending in kind.needs:
        if stem + ending not in tensors:
            raise missing_part(name, stem + ending)
    endings = (kind.lead, *kind.needs, *kind.may)
    return {ending: tensors[stem + ending] for ending in endings if stem + ending in tensors}


def stored_as(tensor: Lazy, *names: str) -> Lazy:
    """Return `tensor`, having checked how it is stored.

    Raises:
        InvalidFile: (rule ``part-dtype``) when that is none of `names`.
    """
    if tensor.encoding.name in names:
        return tensor
    raise InvalidFile(
        f"{next(tensor.leaves()).name} is of another dtype",
        rule="part-dtype",
        got=tensor.encoding,
        expected=" or ".join(name.upper() for name in names),
    )


def matrix(tensor: Lazy) -> Shape:
    """Return the shape of a matrix.

    Raises:
        InvalidFile: (rule ``part-shape``) when the tensor has not two axes.
    """
    if tensor.ndim == 2:
        return tensor.shape
    raise InvalidFile(
        f"{next(tensor.leaves()).name} is no matrix", rule="part-shape", got=list(tensor.shape)
    )


def nibbles(tensor: Lazy, dense: str = "f4") -> Lazy:
    """Return bytes that hold two numbers each, the first in the low bits, as those numbers."""
    stored_as(tensor, "u8", "i8")
    shape = (*tensor.shape[:-1], 2 * tensor.shape[-1]) if tensor.ndim else (2,)
    return reshaped(tensor, shape, DENSE[dense])


def fitted(
    data: Lazy,
    scale: Lazy,
    blocks: Sequence[Shape] = (),
    zero: Lazy | None = None,
) -> Parted:
    """Return elements and scales as one tensor, its block found by the shape of the scales.

    Args:
        data: the elements, of two axes or more.
        scale: their scales: one for each of the `blocks`, one for each row, or one alone.
        blocks: the shapes of blocks that the settings allow; the first that fits counts.
        zero: the zero points, of the shape of the scales.

    Raises:
        InvalidFile: (rule ``part-shape``) when the scales are of none of these shapes.
    """
    said = {block: grid(data.shape, block) for block in blocks if len(block) <= data.ndim}
    implied = {block: grid(data.shape, block) for block in ((1, data.shape[-1] or 1), ())}
    for block, expected in (*said.items(), *implied.items()):
        exact = block in said
        if scale.shape == expected if exact else _squeezed(scale.shape) == _squeezed(expected):
            zeros = None if zero is None else _as_shape(zero, expected)
            return parted(block, data=data, scale=_as_shape(scale, expected), zero=zeros)
    raise InvalidFile(
        f"the scales of {list(data.shape)} numbers are of another shape",
        rule="part-shape",
        got=list(scale.shape),
        expected=" or ".join(str(list(shape)) for shape in (said | implied).values()),
    )


def grid(shape: Shape, block: Shape) -> Shape:
    """Return how many blocks there are on each axis; nothing where one block is the whole.

    Example:
        >>> grid((256, 300), (128, 128)), grid((2, 3), ())
        ((2, 3), ())
    """
    if not block:
        return ()
    free = len(shape) - len(block)
    return shape[:free] + tuple(-(-n // b) for n, b in zip(shape[free:], block, strict=True))


def _squeezed(shape: Shape) -> Shape:
    return tuple(length for length in shape if length != 1)


def _as_shape(tensor: Lazy, shape: Shape) -> Lazy:
    return tensor if tensor.shape == shape else reshaped(tensor, shape)


def count(settings: Config, key: str, allowed: Iterable[int] | None = None) -> int:
    """Return a setting that is a number of something.

    Raises:
        InvalidFile: (rule ``config-type``) when it is no number over zero.
        Unsupported: (rule ``packing-setting``) when it is none of those `allowed`.
    """
    found = settings.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise InvalidFile(
            f"quantization_config's {key} is not a value of this kind",
            rule="config-type",
            got=found,
            expected="at least 1",
        )
    if allowed is not None and found not in allowed:
        raise unsupported(key, found, allowed)
    return found


def unsupported(key: str, got: object, allowed: Iterable[object]) -> Unsupported:
    """Return the error of a setting that is understood but not read."""
    return Unsupported(
        f"quantization_config's {key} is one that is not read",
        rule="packing-setting",
        got=got,
        expected=" or ".join(map(str, allowed)),
    )


def pair(found: object, key: str) -> Shape | None:
    """Return a setting that is the shape of a block, None where it is left out.

    Raises:
        InvalidFile: (rule ``config-type``) when it is not two numbers over zero.
    """
    if found is None:
        return None
    numbers = found if isinstance(found, list) else []
    if len(numbers) == 2 and all(type(n) is int and n > 0 for n in numbers):
        return numbers[0], numbers[1]
    raise InvalidFile(
        f"quantization_config's {key} is not a value of this kind",
        rule="config-type",
        got=found,
        expected="two numbers over 0",
    )
