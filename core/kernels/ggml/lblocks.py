"""The blocks of ggml's first types: ``ggml-common.h``, ``block_q4_0`` to ``block_q8_1``.

In the types of 4 and 5 bits a byte holds value ``j`` in its low half and value ``j + 16`` in its
high half; in those of 5 bits, bit ``j`` of the little-endian word ``qh`` is the fifth bit of value
``j``.
"""

from __future__ import annotations

from weighbridge.encoding import blocked

Q4_0 = blocked("q4_0", 32, [("d", "<f2"), ("qs", "u1", (16,))], 18)
Q4_1 = blocked("q4_1", 32, [("d", "<f2"), ("m", "<f2"), ("qs", "u1", (16,))], 20)
Q5_0 = blocked("q5_0", 32, [("d", "<f2"), ("qh", "u1", (4,)), ("qs", "u1", (16,))], 22)
Q5_1 = blocked(
    "q5_1", 32, [("d", "<f2"), ("m", "<f2"), ("qh", "u1", (4,)), ("qs", "u1", (16,))], 24
)
Q8_0 = blocked("q8_0", 32, [("d", "<f2"), ("qs", "i1", (32,))], 34)
Q8_1 = blocked("q8_1", 32, [("d", "<f2"), ("s", "<f2"), ("qs", "i1", (32,))], 36)
