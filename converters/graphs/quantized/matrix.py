"""The tensors that ``MatMulNBits`` and ``GatherBlockQuantized`` read, made from codes and scales.

A number of the matrix is ``scale * (code - zero) + offset``. Where a type has minima, they are in
the offsets, which a product of the sums of the activations' blocks adds; the zero point of such a
type is the middle code, and its offset ``scale * middle - minimum``, since codes about 0 round
less. float32 holds that exactly: both have 17 significant bits at most, so that it takes a ``d`` of
more than 16 times ``dmin``, or a ``dmin`` of more than 1000 times ``d``, to lose any, and then less
than decoding does.

Source: the schemas of both operators in ONNX Runtime's ``contrib_defs.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.converters.graphs.quantized.parts import (
    Codes,
    FloatZeros,
    Offsets,
    SameZeros,
    Scales,
    Zeros,
)

if TYPE_CHECKING:
    from weighbridge.converters.graphs.quantized.forms import Form
    from weighbridge.converters.graphs.quantized.sources import Source


@dataclass(frozen=True)
class Matrix:
    """A quantised matrix in one of the operators' forms.

    Attributes:
        source: its codes and scales.
        form: how they are to be arranged.

    Example:
        >>> import numpy as np
        >>> from weighbridge.converters.graphs.quantized.forms import SPLIT
        >>> from weighbridge.converters.graphs.quantized.sources import source_of
        >>> from weighbridge.kernels.ggml import BLOCKED
        >>> from weighbridge.recode import recode
        >>> from weighbridge.tensor import from_array
        >>> rows = from_array("x", np.zeros((5, 64), np.float32))
        >>> matrix = Matrix(source_of(recode(rows, BLOCKED["q5_1"])), SPLIT)
        >>> matrix.shift, matrix.zero, matrix.codes.shape, matrix.scales.shape
        (120, None, (5, 64), (5, 4))
    """

    source: Source
    form: Form

    @property
    def blocks(self) -> int:
        """The blocks in a row of codes as they are stored."""
        return self.source.groups * (2 if self.form.split else 1)

    @property
    def length(self) -> int:
        """The activations that a row is multiplied with, which a split row takes twice."""
        whole = self.source.groups * self.source.group
        return self.source.shape[1] + (whole if self.form.split else 0)

    @property
    def shift(self) -> int:
        """What is added to each code, so that no zero points have to be given."""
        middle = self._middle
        if middle is None or self.form.floating:
            return 0
        shift = self.form.zero - middle
        return shift if 0 <= shift <= self.form.top - self.source.top else 0

    @property
    def zero(self) -> int | None:
        """The zero point of all groups that has to be given; None where it is the operators'."""
        middle = self._middle
        return middle if middle is None or middle + self.shift != self.form.zero else None

    @property
    def has_zeros(self) -> bool:
        """Whether zero points have to be given."""
        return self.form.floating or self.source.zero is None or self.zero is not None

    @property
    def has_offsets(self) -> bool:
        """Whether a product of the sums of blocks has to be added."""
        return self.source.affine and not self.form.floating

    @property
    def _middle(self) -> int | None:
        return self.source.top // 2 if self.source.affine else self.source.zero

    @property
    def codes(self) -> Codes:
        """The codes, packed, a row of bytes for each row."""
        return Codes(self)

    @property
    def scales(self) -> Scales:
        """The scales."""
        return Scales(self)

    @property
    def zeros(self) -> Zeros | FloatZeros | SameZeros:
        """The zero points, where they have to be given."""
        if self.form.floating:
            return FloatZeros(self)
        if self.zero is None:
            return Zeros(self)
        return SameZeros(self.source.shape[0], self.blocks, self.zero, self.form)

    @property
    def offsets(self) -> Offsets:
        """The offsets, where there are some."""
        return Offsets(self)
