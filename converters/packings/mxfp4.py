"""MXFP4 experts as gpt-oss stores them.

Source: transformers, ``integrations/mxfp4.py``: ``*_blocks`` holds 16 bytes for each 32 inputs of
an output, the first of two numbers in the low bits; ``*_scales`` holds the exponents, plus 127. The
parameter itself has its inputs before its outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.converters.packings import parts
from weighbridge.encoding import DENSE
from weighbridge.errors import InvalidFile
from weighbridge.ops import Transpose, apply
from weighbridge.packed import reshaped
from weighbridge.packing import Packing
from weighbridge.parted import parted

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

BLOCK = 32


def _experts(found: parts.Parts, settings: Config) -> Lazy:
    del settings
    blocks, scales = found["_blocks"], found["_scales"]
    parts.stored_as(scales, "u8", "f8_e8m0")
    if blocks.ndim != 4 or blocks.shape[-1] != BLOCK // 2:
        raise InvalidFile(
            "its blocks are of another shape",
            rule="part-shape",
            got=list(blocks.shape),
            expected=f"4 axes, the last of {BLOCK // 2}",
        )
    experts, outputs, count, _ = blocks.shape
    packed = reshaped(blocks, (experts, outputs, count * BLOCK // 2))
    scale = reshaped(scales, scales.shape, DENSE["f8_e8m0"])
    weight = parted((1, BLOCK), data=parts.nibbles(packed), scale=scale)
    return apply(Transpose((0, 2, 1)), [weight])[0]


class Mxfp4(Packing):
    """``quant_method: mxfp4``."""

    name = "mxfp4"

    def unpacked(self, tensors: parts.Tensors, settings: Config, report: Report) -> dict[str, Lazy]:
        """Return the weights."""
        kinds = [parts.Kind("_blocks", ("_scales",), "", _experts)]
        return parts.put_together(tensors, kinds, settings, report)


MXFP4 = Mxfp4()
