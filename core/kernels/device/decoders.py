"""Which function decodes which type on a device, in runs of what length, with what table."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weighbridge.kernels.device import blocks, points
from weighbridge.kernels.ggml.grids import grid
from weighbridge.kernels.ggml.iblocks import LEVELS
from weighbridge.kernels.ggml.mblocks import DOUBLED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from weighbridge.kernels.device.words import Single


@dataclass(frozen=True)
class Decoder:
    """How the blocks of a type are decoded.

    Attributes:
        body: takes blocks, the table, numbers of runs and places in a run; returns values.
        run: how many values the runs have of which the body is told: a power of two, as is the
            number of runs in a block.
        table: the name of what the body looks up; nothing for most.
        wide: whether float32 may come out that bf16 rounds to infinity, as from a float32 scale.
    """

    body: Callable[..., Single]
    run: int
    table: str = ""
    wide: bool = False


DECODERS: Mapping[str, Decoder] = {
    "q4_0": Decoder(blocks.q4_0, 16),
    "q4_1": Decoder(blocks.q4_1, 16),
    "q5_0": Decoder(blocks.q5_0, 16),
    "q5_1": Decoder(blocks.q5_1, 16),
    "q8_0": Decoder(blocks.q8_0, 16),
    "q8_1": Decoder(blocks.q8_1, 16),
    "q1_0": Decoder(blocks.q1_0, 8),
    "q2_0": Decoder(blocks.q2_0, 4),
    "q2_k": Decoder(blocks.q2_k, 16),
    "q3_k": Decoder(blocks.q3_k, 16),
    "q4_k": Decoder(blocks.q4_k, 32),
    "q5_k": Decoder(blocks.q5_k, 32),
    "q6_k": Decoder(blocks.q6_k, 16),
    "q8_k": Decoder(blocks.q8_k, 32, wide=True),
    "tq1_0": Decoder(blocks.tq1_0, 32),
    "tq2_0": Decoder(blocks.tq2_0, 32),
    "mxfp4": Decoder(blocks.mxfp4, 16, "doubled"),
    "nvfp4": Decoder(blocks.nvfp4, 8, "doubled"),
    "iq4_nl": Decoder(blocks.iq4_nl, 16, "levels"),
    "iq4_xs": Decoder(blocks.iq4_xs, 16, "levels"),
    "iq1_s": Decoder(points.iq1_s, 8, "iq1"),
    "iq1_m": Decoder(points.iq1_m, 8, "iq1"),
    "iq2_xxs": Decoder(points.iq2_xxs, 8, "iq2_xxs"),
    "iq2_xs": Decoder(points.iq2_xs, 8, "iq2_xs"),
    "iq2_s": Decoder(points.iq2_s, 8, "iq2_s"),
    "iq3_xxs": Decoder(points.iq3_xxs, 4, "iq3_xxs"),
    "iq3_s": Decoder(points.iq3_s, 4, "iq3_s"),
}


@functools.cache
def table(name: str, device: torch.device) -> torch.Tensor:
    """Return a table as int8 on a device, where it stays.

    Example:
        >>> import torch
        >>> table("levels", torch.device("cpu"))[:3].tolist()
        [-127, -104, -83]
    """
    import torch

    plain = {"levels": LEVELS, "doubled": DOUBLED}
    numbers = plain[name] if name in plain else grid(name)
    return torch.from_numpy(numbers.astype(np.int8).reshape(-1)).to(device)
