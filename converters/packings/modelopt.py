"""FP8 and NVFP4 as NVIDIA's ModelOpt writes them.

Source: ModelOpt's unified Hugging Face checkpoints (``modelopt/torch/export``): ``weight_scale`` is
one number for FP8; for NVFP4 it is FP8 for each 16 inputs, and ``weight_scale_2`` multiplies all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.converters.packings import parts
from weighbridge.converters.packings.fp8 import is_fp8, scale_of
from weighbridge.packed import reshaped
from weighbridge.packing import Packing
from weighbridge.parted import Parted, parted

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

NV_BLOCK = 16


def nvfp4(data: Lazy, scale: Lazy, outer: Lazy, *, divides: bool) -> Parted:
    """Return 4-bit floats with two levels of scales as one tensor.

    Raises:
        InvalidFile: (rule ``part-dtype``) for scales that are not FP8, and what `parted` raises.
    """
    parts.stored_as(scale, "f8_e4m3")
    parts.stored_as(outer, "f32")
    return parted((1, NV_BLOCK), divides=divides, data=data, scale=scale, outer=reshaped(outer, ()))


def _fp8(found: parts.Parts, settings: Config) -> Lazy:
    del settings
    return parts.fitted(found["weight"], scale_of(found["weight_scale"]))


def _fp4(found: parts.Parts, settings: Config) -> Lazy:
    del settings
    data = parts.nibbles(found["weight"])
    return nvfp4(data, found["weight_scale"], found["weight_scale_2"], divides=False)


KINDS = (
    parts.Kind("weight", ("weight_scale",), "weight", _fp8, when=is_fp8),
    parts.Kind(
        "weight",
        ("weight_scale", "weight_scale_2"),
        "weight",
        _fp4,
        when=lambda tensor: tensor.encoding.name == "u8",
    ),
)


class ModelOpt(Packing):
    """``quant_method: modelopt``."""

    name = "modelopt"

    def unpacked(self, tensors: parts.Tensors, settings: Config, report: Report) -> dict[str, Lazy]:
        """Return the weights."""
        return parts.put_together(tensors, KINDS, settings, report)


MODELOPT = ModelOpt()
