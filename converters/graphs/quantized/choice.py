"""What is asked of the weights of an ONNX graph, by the names that people give it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from weighbridge.converters.graphs.quantized.forms import Aim
from weighbridge.encoding import DENSE, Scaled, scaled
from weighbridge.errors import InvalidInput

GROUP = 32
"""The numbers that share a scale, where a name does not say: ggml's, and ONNX Runtime GenAI's."""

GROUPS = (16, 32, 64, 128)
"""How many these can be: the blocks that MatMulNBits takes on every processor."""

_NAME = re.compile(r"int(4|8)(?:_g(\d{1,3}))?(_asym)?")


@dataclass(frozen=True)
class Choice:
    """How the weights of a graph are stored.

    Attributes:
        aim: which form quantised weights get; see `Aim`.
        floats: how float weights of products are rounded; None leaves them as they are.

    Example:
        >>> Choice.of("int4_g128_asym").floats.name, Choice.of("small").aim.value
        ('u4:f32:1x128:u4', 'small')
    """

    aim: Aim = Aim.EXACT
    floats: Scaled | None = None

    @classmethod
    def of(cls, quantize: str | None = None, aim: str = "exact") -> Choice:
        """Return what names mean.

        Args:
            quantize: an aim, or how float weights are rounded: ``int4`` or ``int8``, symmetric in
                blocks of 32; ``_g16``, ``_g64`` or ``_g128`` after it for other blocks, and
                ``_asym`` at the end for a zero point for each block.
            aim: an aim.

        Raises:
            InvalidInput: (rule ``quantize``) for any other name.
        """
        if quantize in set(Aim):
            quantize, aim = None, str(quantize)
        if aim not in set(Aim):
            raise _unknown(aim)
        return cls(Aim(aim), _scaled(quantize) if quantize else None)


def _scaled(name: str) -> Scaled:
    found = _NAME.fullmatch(name.lower())
    group = int(found[2] or GROUP) if found else 0
    if not found or group not in GROUPS:
        raise _unknown(name)
    if found[3]:
        element = DENSE[f"u{found[1]}"]
        return scaled(element, DENSE["f32"], (1, group), element)
    return scaled(DENSE[f"i{found[1]}"], DENSE["f32"], (1, group))


def _unknown(name: str) -> InvalidInput:
    return InvalidInput(
        "is not how the weights of an ONNX graph can be stored",
        rule="quantize",
        got=name,
        expected=f"{', '.join(Aim)}, int4, int8, or int4_g128_asym and the like",
    )
