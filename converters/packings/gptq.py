"""Integers of GPTQ: eight numbers of 4 bits in an int32, along the inputs.

Source: AutoGPTQ, ``auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py``. ``qweight`` is packed along
the inputs, which are its rows; ``qzeros`` along the outputs, each zero point less one (but for
``checkpoint_format: gptq_v2``); ``g_idx`` has the group of each input, which are out of order where
``desc_act`` is true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.converters.packings import parts
from weighbridge.encoding import DENSE
from weighbridge.errors import InvalidFile
from weighbridge.ops import Transpose, apply
from weighbridge.packed import Centred, Ordered, Taken, Words
from weighbridge.packing import Packing
from weighbridge.parted import parted

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

WORD = 32
BITS = (2, 4, 8)
FORMATS = ("gptq", "gptq_v2")


def _linear(found: parts.Parts, settings: Config) -> Lazy:
    bits = parts.count(settings, "bits", BITS)
    order = tuple(range(WORD // bits))
    words = parts.stored_as(found["qweight"], "i32", "u32")
    scales = parts.stored_as(found["scales"], "f16", "bf16", "f32")
    zeros = parts.stored_as(found["qzeros"], "i32", "u32")
    inputs = parts.matrix(words)[0] * len(order)
    groups, outputs = parts.matrix(scales)
    number, less = DENSE[f"u{bits}"], _less(settings)
    zero: Lazy | None = Words(zeros, (outputs, groups), number, 1, order, less, transposed=True)
    scale, middle = apply(Transpose(), [scales])[0], 0
    if settings.get("sym") and zero:
        # Signed numbers, then, whose zero points say nothing.
        number, middle = DENSE[f"i{bits}"], 1 << (bits - 1)
        scale, zero = Centred(scale, zero, middle=middle), None
    data = Words(words, (outputs, inputs), number, 0, order, middle, transposed=True)
    return _grouped(data, scale, zero, found.get("g_idx"), settings)


def _grouped(
    data: Words, scale: Lazy, zero: Lazy | None, index: Lazy | None, settings: Config
) -> Lazy:
    inputs = data.shape[1]
    group = _group(settings, inputs)
    if index is None:
        return parted((1, group), data=data, scale=scale, zero=zero)
    index = _index(index, inputs)
    if not settings.get("desc_act"):
        return parted((1, group), data=data, scale=Ordered(scale, index, group=group), zero=zero)
    each = None if zero is None else Taken(zero, index)
    return parted((1, 1), data=data, scale=Taken(scale, index), zero=each)


def _group(settings: Config, inputs: int) -> int:
    return inputs if settings.get("group_size") == -1 else parts.count(settings, "group_size")


def _less(settings: Config) -> int:
    """Return what zero points were made smaller by."""
    stored = settings.get("checkpoint_format") or FORMATS[0]
    if stored not in FORMATS:
        raise parts.unsupported("checkpoint_format", stored, FORMATS)
    return 1 if stored == FORMATS[0] else 0


def _index(tensor: Lazy, inputs: int) -> Lazy:
    if tensor.shape != (inputs,):
        raise InvalidFile(
            "g_idx is of another shape",
            rule="part-shape",
            got=list(tensor.shape),
            expected=[inputs],
        )
    return parts.stored_as(tensor, "i32", "i64")


class Gptq(Packing):
    """``quant_method: gptq``."""

    name = "gptq"

    def unpacked(self, tensors: parts.Tensors, settings: Config, report: Report) -> dict[str, Lazy]:
        """Return the weights."""
        kinds = [parts.Kind("qweight", ("qzeros", "scales"), "weight", _linear, ("g_idx",))]
        return parts.put_together(tensors, kinds, settings, report)


GPTQ = Gptq()
