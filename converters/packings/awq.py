"""Integers of AWQ: eight numbers of 4 bits in an int32, along the outputs, in an order of its own.

Source: AutoAWQ, ``awq/utils/packing_utils.py`` (``AWQ_ORDER``), version ``gemm``: ``qweight`` and
``qzeros`` are packed along the outputs, which are their columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.converters.packings import parts
from weighbridge.encoding import DENSE
from weighbridge.ops import Transpose, apply
from weighbridge.packed import Words
from weighbridge.packing import Packing
from weighbridge.parted import parted

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble of an integer each of its eight numbers is in: nibbles hold 0 2 4 6 1 3 5 7."""


def _linear(found: parts.Parts, settings: Config) -> Lazy:
    parts.count(settings, "bits", (4,))
    version = str(settings.get("version") or "gemm").lower()
    if version != "gemm":
        raise parts.unsupported("version", version, ("gemm",))
    words = parts.stored_as(found["qweight"], "i32", "u32")
    scales = parts.stored_as(found["scales"], "f16", "bf16", "f32")
    inputs, (groups, outputs) = parts.matrix(words)[0], parts.matrix(scales)
    group = inputs if settings.get("group_size") == -1 else parts.count(settings, "group_size")
    zeros = parts.stored_as(found["qzeros"], "i32", "u32")
    return parted(
        (1, group),
        data=Words(words, (outputs, inputs), DENSE["u4"], 1, ORDER, transposed=True),
        scale=apply(Transpose(), [scales])[0],
        zero=Words(zeros, (outputs, groups), DENSE["u4"], 1, ORDER, transposed=True),
    )


class Awq(Packing):
    """``quant_method: awq``."""

    name = "awq"

    def unpacked(self, tensors: parts.Tensors, settings: Config, report: Report) -> dict[str, Lazy]:
        """Return the weights."""
        kinds = [parts.Kind("qweight", ("qzeros", "scales"), "weight", _linear)]
        return parts.put_together(tensors, kinds, settings, report)


AWQ = Awq()
