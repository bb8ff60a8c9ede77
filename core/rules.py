"""What tensors are called and shaped in two dialects, as tables that run both ways.

A `Rule` says which tensors of one side are which of the other, with reversible operations between;
it inverts by construction. `translate` applies a table and tells everything that does not fit it.
"""

from __future__ import annotations

import itertools
import math
import string as strings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from weighbridge.errors import InvalidFile, InvalidInput
from weighbridge.ops import Op, apply

if TYPE_CHECKING:
    from weighbridge.encoding import Shape
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

Variables = Mapping[str, Sequence[int]]
"""The values that each variable of a family's templates takes: layers, experts."""

Expected = Mapping[str, "Shape | None"]
"""The tensors of one side of a rule: name -> the shape it must have, None where any will do."""

MOST_LISTED = 1 << 16
"""The most tensors that one side of a rule may list: hostile configs count to billions."""


@dataclass(frozen=True)
class Template:
    """A tensor name with variables in braces; never a regular expression, so that it inverts.

    Example:
        >>> Template("blk.{layer}.attn_q.weight").fill({"layer": 3})
        'blk.3.attn_q.weight'
    """

    text: str

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names in braces."""
        return frozenset(name for _, name, _, _ in strings.Formatter().parse(self.text) if name)

    def fill(self, bindings: Mapping[str, int]) -> str:
        """Return the name for these values of the variables."""
        return self.text.format_map(bindings)


@dataclass(frozen=True)
class Rule:
    """These tensors on the left are those on the right, with operations between.

    Attributes:
        left: names in the canonical dialect.
        right: names in the other dialect.
        ops: what makes the right from the left, in order; each takes all the tensors there are.
        over: variables that one side alone has: it lists a tensor for each of their values, as
            experts that the other side keeps stacked.
        optional: whether a checkpoint may lack the tensors.
        left_shapes: a shape for each left name; empty where any will do.
        right_shapes: a shape for each right name; empty where any will do.

    Raises:
        InvalidInput: (rule ``rule-variables``) when the sides bind different variables.

    Example:
        >>> norm = rule("layers.{n}.norm", "blk.{n}.norm", shape=(64,))
        >>> norm.inverse.left, norm.inverse.right, norm.inverse.right_shapes
        (('blk.{n}.norm',), ('layers.{n}.norm',), ((64,),))
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    ops: tuple[Op, ...] = ()
    over: tuple[str, ...] = ()
    optional: bool = False
    left_shapes: tuple[Shape, ...] = ()
    right_shapes: tuple[Shape, ...] = ()

    def __post_init__(self) -> None:
        """Check that both sides bind the same variables."""
        left, right = _variables(self.left), _variables(self.right)
        if left ^ right != set(self.over):
            raise InvalidInput(
                "the two sides of a rule bind different variables",
                rule="rule-variables",
                got=f"{sorted(left)} and {sorted(right)}",
                expected=f"the same but for {sorted(self.over)}",
            )

    @property
    def inverse(self) -> Rule:
        """The same rule from right to left."""
        return replace(
            self,
            left=self.right,
            right=self.left,
            ops=tuple(op.inverse for op in reversed(self.ops)),
            left_shapes=self.right_shapes,
            right_shapes=self.left_shapes,
        )

    @property
    def shared(self) -> list[str]:
        """The variables that both sides have."""
        return sorted(_variables(self.left) & _variables(self.right))

    def expand(self, variables: Variables) -> Iterator[tuple[Expected, Expected]]:
        """Yield the left and the right tensors for every value of the shared variables.

        Example:
            >>> [(list(a), list(b)) for a, b in rule("l.{n}", "b.{n}").expand({"n": range(2)})]
            [(['l.0'], ['b.0']), (['l.1'], ['b.1'])]
        """
        for values in itertools.product(*(variables[name] for name in self.shared)):
            bindings = dict(zip(self.shared, values, strict=True))
            yield (
                dict(self._tensors(self.left, self.left_shapes, bindings, variables)),
                dict(self._tensors(self.right, self.right_shapes, bindings, variables)),
            )

    def _tensors(
        self,
        side: Sequence[str],
        shapes: Sequence[Shape],
        bindings: Mapping[str, int],
        variables: Variables,
    ) -> Iterator[tuple[str, Shape | None]]:
        for template, shape in itertools.zip_longest(map(Template, side), shapes):
            listed = [name for name in self.over if name in template.variables]
            for values in itertools.product(*(variables[name] for name in listed)):
                yield template.fill({**bindings, **dict(zip(listed, values, strict=True))}), shape


def rule(
    left: str | Sequence[str],
    right: str | Sequence[str],
    *ops: Op,
    shape: Shape | Sequence[Shape] | None = None,
    over: Sequence[str] = (),
    optional: bool = False,
) -> Rule:
    """Return a `Rule`; one name may be given bare.

    Args:
        left: canonical names.
        right: the other dialect's names.
        ops: what makes the right from the left.
        shape: the left tensors' shape, or a sequence with a shape for each left name.
        over: variables that one side alone has.
        optional: whether a checkpoint may lack the tensors.
    """
    names = _several(left)
    return Rule(names, _several(right), ops, tuple(over), optional, _shapes(shape, len(names)))


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _shapes(shape: Shape | Sequence[Shape] | None, count: int) -> tuple[Shape, ...]:
    if shape is None:
        return ()
    each = [axis for axis in shape if isinstance(axis, tuple)]
    return tuple(each) or (tuple(axis for axis in shape if isinstance(axis, int)),) * count


def _variables(side: Iterable[str]) -> set[str]:
    return set().union(*(Template(text).variables for text in side))


def translate(
    tensors: Mapping[str, Lazy], rules: Sequence[Rule], variables: Variables, report: Report
) -> dict[str, Lazy]:
    """Return the right side of `rules` for the tensors of their left side, in the tensors' order.

    Nothing is read. What is missing, surplus, claimed twice or of a wrong shape is reported; the
    rest is translated all the same.

    Example:
        >>> import numpy as np
        >>> from weighbridge.report import Report
        >>> from weighbridge.tensor import from_array
        >>> x, report = from_array("x", np.zeros(2, np.float32)), Report()
        >>> list(translate({"x": x, "y": x}, [rule("x", "a", shape=(2,))], {}, report))
        ['a']
        >>> [problem.rule for problem in report.problems]
        ['unmapped-tensor']
    """
    if not all(countable(entry, variables, len(tensors), report) for entry in rules):
        return {}
    cases = [
        (entry, *case) for entry in rules for case in entry.expand(variables)
        if not entry.optional or any(name in tensors for name in case[0])
    ]  # fmt: skip
    place = {name: number for number, name in enumerate(tensors)}
    cases.sort(key=lambda case: min(place.get(name, len(place)) for name in case[1]))
    translated: dict[str, Lazy] = {}
    for entry, left, right in cases:
        with report.collect():
            results = _results(tensors, entry, left, report)
            _claim(translated, right, results, next(iter(left)))
    _report_unmapped(tensors, {name for _, left, _ in cases for name in left}, report)
    return translated


def countable(entry: Rule, variables: Variables, most: int, report: Report) -> bool:
    """Tell whether so many tensors can be there as a rule wants, before they are listed."""
    needed = math.prod(len(variables[name]) for name in entry.shared)
    listed = math.prod(len(variables[name]) for name in entry.over)
    fits = (entry.optional and needed <= MOST_LISTED) or needed <= most
    if fits and listed <= MOST_LISTED:
        return True
    counts = ", ".join(f"{len(values)} of '{name}'" for name, values in variables.items())
    report.problem(
        InvalidFile(
            "the config counts more than there are tensors",
            rule="variable-count",
            got=counts,
            expected=f"no more than {most} tensors allow",
        )
    )
    return False


def _report_unmapped(tensors: Iterable[str], used: set[str], report: Report) -> None:
    for name in tensors:
        if name not in used:
            report.problem(
                InvalidFile(
                    "no rule of the family knows it",
                    rule="unmapped-tensor",
                    tensor=name,
                    hint="--weights-only moves tensors under their own names",
                )
            )


def _results(
    tensors: Mapping[str, Lazy], entry: Rule, left: Expected, report: Report
) -> Sequence[Lazy]:
    for name, shape in left.items():
        if name not in tensors:
            raise InvalidFile("the family needs it", rule="missing-tensor", tensor=name)
        _check_shape(tensors[name].shape, shape, name)
    results: Sequence[Lazy] = [tensors[name] for name in left]
    try:
        for op in entry.ops:
            shapes = [tensor.shape for tensor in results]
            results = apply(op, results)
            remark = op.remark(shapes)
            if remark:
                report.note(remark[0], next(iter(left)), remark[1])
    except InvalidInput as error:
        error.tensor = next(iter(left))
        raise
    return results


def _check_shape(got: Shape, expected: Shape | None, tensor: str) -> None:
    if expected is not None and got != expected:
        raise InvalidFile(
            "the config denies its shape",
            rule="tensor-shape",
            tensor=tensor,
            got=list(got),
            expected=list(expected),
        )


def _claim(
    translated: dict[str, Lazy], right: Expected, results: Sequence[Lazy], source: str
) -> None:
    for (name, shape), tensor in zip(right.items(), results, strict=True):
        _check_shape(tensor.shape, shape, source)
        if name in translated:
            raise InvalidInput("two rules make it", rule="duplicate-name", tensor=name)
        translated[name] = tensor
