"""The blocks of ggml's microscaling types: ``ggml-common.h``, ``block_mxfp4``, ``block_nvfp4``."""

from __future__ import annotations

import numpy as np

from weighbridge.encoding import blocked

MXFP4 = blocked("mxfp4", 32, [("e", "u1"), ("qs", "u1", (16,))], 17)
NVFP4 = blocked("nvfp4", 64, [("d", "u1", (4,)), ("qs", "u1", (32,))], 36)

DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""Twice the value of each E2M1 code (OCP Microscaling Formats, 5.3.3); there is no minus zero."""
