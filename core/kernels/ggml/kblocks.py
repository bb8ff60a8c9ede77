"""The blocks of ggml's K-quants: ``ggml-common.h``, ``block_q2_K`` to ``block_q8_K``."""

from __future__ import annotations

from weighbridge.encoding import blocked

Q2_K = blocked(
    "q2_k",
    256,
    [("scales", "u1", (16,)), ("qs", "u1", (64,)), ("d", "<f2"), ("dmin", "<f2")],
    84,
)
Q3_K = blocked(
    "q3_k",
    256,
    [("hmask", "u1", (32,)), ("qs", "u1", (64,)), ("scales", "u1", (12,)), ("d", "<f2")],
    110,
)
Q4_K = blocked(
    "q4_k",
    256,
    [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (12,)), ("qs", "u1", (128,))],
    144,
)
Q5_K = blocked(
    "q5_k",
    256,
    [
        ("d", "<f2"),
        ("dmin", "<f2"),
        ("scales", "u1", (12,)),
        ("qh", "u1", (32,)),
        ("qs", "u1", (128,)),
    ],
    176,
)
Q6_K = blocked(
    "q6_k",
    256,
    [("ql", "u1", (128,)), ("qh", "u1", (64,)), ("scales", "i1", (16,)), ("d", "<f2")],
    210,
)
Q8_K = blocked("q8_k", 256, [("d", "<f4"), ("qs", "i1", (256,)), ("bsums", "<i2", (16,))], 292)
