"""Which form of ONNX Runtime's block-quantised operators stands for which type, and for which aim.

Measured with ONNX Runtime 1.32 on a processor with AVX-512, one thread, activations of float32. Of
what ``MatMulNBits`` can do, only codes of 4 bits with zero points of 8 bits or none are about as
fast as a product of floats for a single row of activations, and faster where no cache holds the
weights; codes of 8 and of 2 bits are 6 to 70 times slower, and so is any float zero point.

Activations rounded to 8 bits (``accuracy_level`` 4) make codes of 4 and of 8 bits the fastest by
far, at an error of 5e-3 to 1e-2 of the largest result of a product. The layers of a model add such
errors up: in SmolLM2-135M to some hundredths of the largest logit and more, where the exact forms
differ by 5e-6, as products of floats do. Hence three aims.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Aim(StrEnum):
    """What counts most where a weight is stored for ONNX Runtime.

    ``exact``: products of the very numbers of the source, at about the speed of floats. ``small``:
    the fewest bytes that give these, however slowly. ``fast``: activations are rounded to 8 bits,
    a scale for each block.
    """

    EXACT = "exact"
    SMALL = "small"
    FAST = "fast"


@dataclass(frozen=True)
class Form:
    """How a matrix is given to ``MatMulNBits``.

    Attributes:
        bits: those of a code in the file.
        split: whether codes of 8 bits are stored as two of 4, ``16 * high + low``: each row is
            twice as long, its high halves first, and so are the activations.
        floating: whether the zero points are floats that also hold the minima.
        level: the operator's ``accuracy_level``.
    """

    bits: int
    split: bool = False
    floating: bool = False
    level: int = field(default=0, compare=False)

    @property
    def top(self) -> int:
        """One more than the largest code."""
        return 256 if self.split else 1 << self.bits

    @property
    def zero(self) -> int:
        """The code of 0 where no zero points are given: for each half of a split code it is 8."""
        return 0x88 if self.split else self.top // 2

    def __str__(self) -> str:
        """Return what a report calls it."""
        return (
            f"{'twice ' * self.split}{self.bits} bits"
            f"{', float zero points' * self.floating}{', activations of 8 bits' * (self.level > 0)}"
        )


class Forms(NamedTuple):
    """The forms of a type: for each aim, and for tables of embeddings that no product shares."""

    exact: Form
    small: Form
    fast: Form
    table: Form


FOUR, EIGHT, TWO = Form(4), Form(8), Form(2)
SPLIT = Form(4, split=True)
FLOATING = Form(2, floating=True)
FAST_FOUR, FAST_EIGHT = replace(FOUR, level=4), replace(EIGHT, level=4)

FORMS: Mapping[str, Forms] = {
    "q1_0": Forms(FOUR, TWO, FAST_FOUR, TWO),
    "q2_0": Forms(FOUR, TWO, FAST_FOUR, TWO),
    "q4_0": Forms(FOUR, FOUR, FAST_FOUR, FOUR),
    "q4_1": Forms(FOUR, FOUR, FAST_FOUR, FOUR),
    "q5_0": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "q5_1": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "q8_0": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "q2_k": Forms(FOUR, FLOATING, FAST_FOUR, TWO),
    "q3_k": Forms(FOUR, FOUR, FAST_FOUR, FOUR),
    "q4_k": Forms(FOUR, FOUR, FAST_FOUR, FOUR),
    "q5_k": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "q6_k": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "tq1_0": Forms(FOUR, TWO, FAST_FOUR, TWO),
    "tq2_0": Forms(FOUR, TWO, FAST_FOUR, TWO),
    "iq1_s": Forms(FOUR, FOUR, FAST_FOUR, FOUR),
    "iq1_m": Forms(FOUR, FOUR, FAST_FOUR, FOUR),
    "iq2_xxs": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "iq2_xs": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "iq2_s": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "iq3_xxs": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "iq3_s": Forms(FOUR, FOUR, FAST_FOUR, FOUR),
    "iq4_nl": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "iq4_xs": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "mxfp4": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "nvfp4": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
    "int2": Forms(FOUR, TWO, FAST_FOUR, TWO),
    "int4": Forms(FOUR, FOUR, FAST_FOUR, FOUR),
    "int8": Forms(SPLIT, EIGHT, FAST_EIGHT, EIGHT),
}
"""The forms of each type: ggml's, and integers with scales by their bits."""
