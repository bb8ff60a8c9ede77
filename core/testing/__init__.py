"""Contracts that a format or an encoding proves itself with, for tests here and elsewhere."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("weighbridge.testing.encodings", "weighbridge.testing.formats")

from weighbridge.testing.encodings import EncodingContract  # noqa: E402
from weighbridge.testing.formats import FormatContract, assert_same  # noqa: E402
from weighbridge.testing.models import (  # noqa: E402
    Unreadable,
    part_bytes,
    sample_model,
    tensor_of,
    unreadable,
)
from weighbridge.testing.writing import write, written_path  # noqa: E402

__all__ = [
    "EncodingContract",
    "FormatContract",
    "Unreadable",
    "assert_same",
    "part_bytes",
    "sample_model",
    "tensor_of",
    "unreadable",
    "write",
    "written_path",
]
