"""Compares two models tensor by tensor, under canonical names, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge import region as regions
from weighbridge.api import open as open_model
from weighbridge.canonical import canonical
from weighbridge.errors import InvalidPlan
from weighbridge.figures import Distance, distance
from weighbridge.registry import dialect
from weighbridge.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weighbridge.api import AnyPath
    from weighbridge.model import Model
    from weighbridge.tensor import Lazy

PIECE = 1 << 20
"""Values compared at once."""


@dataclass(frozen=True)
class Difference:
    """How one tensor of two models differs.

    Attributes:
        name: its canonical name.
        problem: why it cannot be compared: ``only in A``, ``only in B``, or two shapes; else None.
        encodings: how it is stored on either side.
        max_error: the largest absolute difference; NaN where one side alone is not a number.
        rms_error: the root of the mean squared difference.
        signal: the root of the mean square of A.
    """

    name: str
    problem: str | None = None
    encodings: tuple[str, str] = ("", "")
    max_error: float = 0.0
    rms_error: float = 0.0
    signal: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether every number is the same."""
        return self.problem is None and self.max_error == 0

    @property
    def snr(self) -> float:
        """The signal-to-noise ratio in decibels.

        Infinite where the tensors are equal, not a number where it is unknown.
        """
        if self.rms_error == 0 or math.isnan(self.rms_error):
            return math.inf if self.equal else math.nan
        ratio = self.signal / self.rms_error
        return 20 * math.log10(ratio) if ratio else -math.inf

    def within(self, tolerance: float) -> bool:
        """Tell whether no number differs by more than `tolerance`."""
        return self.problem is None and self.max_error <= tolerance


def diff(
    a: AnyPath, b: AnyPath, *, progress: Callable[[str, int, int], None] | None = None
) -> list[Difference]:
    """Compare two models of any formats, by canonical name where the family is known.

    Args:
        a: a file or a directory.
        b: another.
        progress: told the name, the number and the count before each tensor.

    Returns:
        A difference for every tensor of either, in A's order.

    Raises:
        InvalidPlan: when one of them is of a family whose names are not known.

    Example:
        >>> import numpy as np, tempfile, weighbridge as wb
        >>> folder = tempfile.TemporaryDirectory()
        >>> paths = [f"{folder.name}/{name}.safetensors" for name in "ab"]
        >>> for number, path in enumerate(paths):
        ...     _ = wb.save_file({"x": np.full(4, number, np.float32)}, path)
        >>> diff(*paths)[0].max_error
        1.0
        >>> folder.cleanup()
    """
    with open_model(a) as first, open_model(b) as second:
        left, right = _named(first, second)
        names = [*left, *(name for name in right if name not in left)]
        found = []
        for number, name in enumerate(names):
            if progress:
                progress(name, number, len(names))
            found.append(_compared(name, left.get(name), right.get(name)))
        return found


def _named(a: Model, b: Model) -> tuple[Mapping[str, Lazy], Mapping[str, Lazy]]:
    """Return both models' tensors under one dialect's names: their own, where it is the same."""
    same = a.dialect == b.dialect
    if same and dialect(a.dialect).universal:
        return a.tensors, b.tensors
    report = Report()
    left, right = (canonical(model, report, weights_only=True) for model in (a, b))
    if report.problems and not same:
        raise InvalidPlan(report.problems)
    return (a.tensors, b.tensors) if report.problems else (left.tensors, right.tensors)


@np.errstate(all="ignore")
def _compared(name: str, a: Lazy | None, b: Lazy | None) -> Difference:
    if a is None or b is None:
        return Difference(name, "only in B" if a is None else "only in A")
    encodings = (str(a.encoding), str(b.encoding))
    if a.shape != b.shape:
        return Difference(name, f"shapes {list(a.shape)} and {list(b.shape)}", encodings)
    tiles = regions.tiles(a.shape, PIECE, _units(a, b))
    apart = sum((distance(a.compute(tile), b.compute(tile)) for tile in tiles), Distance())
    return Difference(name, None, encodings, apart.worst, apart.rms, apart.rms_signal)


def _units(a: Lazy, b: Lazy) -> tuple[int, ...]:
    units = [math.lcm(x, y) for x, y in zip(a.units(), b.units(), strict=True)]
    if units:
        units[-1] = math.lcm(units[-1], a.encoding.grain, b.encoding.grain)
    return tuple(units)
