"""Tensors that a graph of ours names itself, as expressions over the checkpoint's.

The graph's property ``weighbridge.tensors`` is a JSON object: the name of a tensor in the graph ->
an expression. That is the name of a tensor of the checkpoint, or ``["transpose", axes, part]``, or
``["concat", axis, [part, ...]]``, where parts are expressions, or ``{"parts of": name, ...}`` for
numbers, scales or zero points of a tensor that is stored quantised.

How long the parts of a concatenation are may follow as a list of lengths. Where it does not, the
node says it that cuts the product with the concatenated matrix apart again.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from weighbridge.converters.onnx.claims import Claim, Findings, Scene
from weighbridge.converters.onnx.splits import MOST_PARTS, split_after
from weighbridge.errors import Error, InvalidFile
from weighbridge.graph import PARTS_OF, PROPERTY
from weighbridge.ops import Split, Transpose, Unstack, apply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.tensor import Lazy

DEEPEST = 16
"""The most expressions that may be inside each other; ours are three at most."""


@dataclass(frozen=True)
class _Part:
    """A tensor of the checkpoint inside an expression.

    Attributes:
        name: in the checkpoint.
        tensor: in the checkpoint's shape; None for one that is stored quantised.
    """

    name: str
    tensor: Lazy | None


def findings(scene: Scene) -> Findings:
    """Return what a graph of ours says of its tensors.

    Raises:
        InvalidFile: (rule ``json``) for a property that is no JSON object, (rule ``expression``)
            for one that names a tensor that is not there, or whose expressions are none or fit no
            tensor, (rule ``duplicate-name``) for an expression that has one tensor twice.
    """
    found = Findings()
    for source, expression in _table(scene).items():
        if source not in scene.tensors:
            raise InvalidFile(
                f"{PROPERTY} names a tensor that the graph lacks", rule="expression", tensor=source
            )
        parts = list(_parts(scene, source, expression, scene.tensors[source], 0))
        _check_once(parts, source)
        for part in parts:
            if part.tensor is None:
                found.unresolved[source] = f"is a part of '{part.name}', which is quantised"
            else:
                copied = not isinstance(expression, str)
                found.claims.append(Claim(part.name, part.tensor, source, copied))
    for name in scene.tensors.keys() - found.used - found.unresolved.keys():
        found.constants[name] = "belongs to the graph"
    return found


def quantised_names(scene: Scene) -> dict[str, str]:
    """Return the tensors of the graph that are parts of quantised ones -> whose parts they are."""
    if PROPERTY not in scene.program.properties:
        return {}
    return {
        source: expression[PARTS_OF]
        for source, expression in _table(scene).items()
        if isinstance(expression, dict) and isinstance(expression.get(PARTS_OF), str)
    }


def _table(scene: Scene) -> Mapping[str, object]:
    try:
        table = json.loads(scene.program.properties[PROPERTY])
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{PROPERTY} is not JSON: {error}", rule="json") from None
    if not isinstance(table, dict):
        raise InvalidFile(f"{PROPERTY} is not a JSON object", rule="json", got=type(table).__name__)
    return table


def _parts(
    scene: Scene, source: str, expression: object, tensor: Lazy, depth: int
) -> Iterator[_Part]:
    """Yield the checkpoint's tensors that a tensor of the graph is made of, by undoing its making.

    Raises:
        InvalidFile: (rule ``expression``).
    """
    match expression:
        case str(name) if name:
            yield _Part(name, tensor)
        case {"parts of": str(name)} if name and not depth:
            yield _Part(name, None)
        case ["transpose", [*listed], inner] if depth < DEEPEST and _are_axes(listed, tensor):
            axes = tuple(axis for axis in listed if isinstance(axis, int))
            (turned,) = apply(Transpose(axes).inverse, [tensor])
            yield from _parts(scene, source, inner, turned, depth + 1)
        case ["concat", int(axis), [*parts], *sizes] if parts and depth < DEEPEST and axis >= 0:
            pieces = _pieces(scene, source, tensor, axis, len(parts), sizes)
            for piece, inner in zip(pieces, parts, strict=True):
                yield from _parts(scene, source, inner, piece, depth + 1)
        case ["stack", [*parts]] if parts and depth < DEEPEST and tensor.shape[:1] == (len(parts),):
            pieces = apply(Unstack(len(parts)), [tensor])
            for piece, inner in zip(pieces, parts, strict=True):
                yield from _parts(scene, source, inner, piece, depth + 1)
        case _:
            _refuse(source, expression, tensor)


def _are_axes(axes: list[object], tensor: Lazy) -> bool:
    whole = [axis for axis in axes if type(axis) is int]
    return len(whole) == len(axes) and sorted(whole) == list(range(tensor.ndim))


def _pieces(
    scene: Scene, source: str, tensor: Lazy, axis: int, count: int, sizes: list[object]
) -> tuple[Lazy, ...]:
    match sizes:
        case [[*listed]]:
            lengths = tuple(size for size in listed if type(size) is int and size > 0)
        case []:
            lengths = _lengths(scene, source, axis)
        case _:
            _refuse(source, sizes, tensor)
    if len(lengths) != count or count > MOST_PARTS:
        raise InvalidFile(
            "it is not known how long the parts of a concatenation are",
            rule="expression",
            tensor=source,
            got=list(lengths) or None,
            expected=f"{count} lengths on axis {axis}, at most {MOST_PARTS}",
        )
    try:
        return apply(Split(axis, lengths), [tensor])
    except Error:
        _refuse(source, ["concat", axis, list(lengths)], tensor)


def _lengths(scene: Scene, source: str, axis: int) -> tuple[int, ...]:
    """Return the lengths into which the graph cuts the product with a matrix."""
    if axis != scene.tensors[source].ndim - 1:
        return ()
    cut = split_after(scene, source)
    return cut[1] if cut else ()


def _check_once(parts: list[_Part], source: str) -> None:
    for name, count in Counter(part.name for part in parts).items():
        if count > 1:
            raise InvalidFile(
                f"{PROPERTY} has '{name}' twice in it", rule="duplicate-name", tensor=source
            )


def _refuse(source: str, expression: object, tensor: Lazy) -> NoReturn:
    raise InvalidFile(
        f"{PROPERTY} has an expression that is none, or that does not fit the tensor",
        rule="expression",
        tensor=source,
        got=f"{json.dumps(expression)[:100]} for {list(tensor.shape)}",
    )
