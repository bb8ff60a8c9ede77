"""The blocks of ggml's IQ types: ``ggml-common.h``, ``block_iq1_s`` to ``block_iq4_xs``."""

from __future__ import annotations

import numpy as np

from weighbridge.encoding import blocked

IQ1_S = blocked("iq1_s", 256, [("d", "<f2"), ("qs", "u1", (32,)), ("qh", "<u2", (8,))], 50)
IQ1_M = blocked(
    "iq1_m", 256, [("qs", "u1", (32,)), ("qh", "u1", (16,)), ("scales", "<u2", (4,))], 56
)
IQ2_XXS = blocked("iq2_xxs", 256, [("d", "<f2"), ("qs", "<u4", (8, 2))], 66)
IQ2_XS = blocked("iq2_xs", 256, [("d", "<f2"), ("qs", "<u2", (32,)), ("scales", "u1", (8,))], 74)
IQ2_S = blocked(
    "iq2_s",
    256,
    [
        ("d", "<f2"),
        ("qs", "u1", (32,)),
        ("signs", "u1", (32,)),
        ("qh", "u1", (8,)),
        ("scales", "u1", (8,)),
    ],
    82,
)
IQ3_XXS = blocked("iq3_xxs", 256, [("d", "<f2"), ("qs", "u1", (64,)), ("signs", "<u4", (8,))], 98)
IQ3_S = blocked(
    "iq3_s",
    256,
    [
        ("d", "<f2"),
        ("qs", "u1", (64,)),
        ("qh", "u1", (8,)),
        ("signs", "u1", (32,)),
        ("scales", "u1", (4,)),
    ],
    110,
)
IQ4_NL = blocked("iq4_nl", 32, [("d", "<f2"), ("qs", "u1", (16,))], 18)
IQ4_XS = blocked(
    "iq4_xs",
    256,
    [("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", (4,)), ("qs", "u1", (128,))],
    136,
)

LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
"""What the codes of IQ4_NL and IQ4_XS stand for (``kvalues_iq4nl``)."""
