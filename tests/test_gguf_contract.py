"""GGUF keeps what every container format has to keep."""

from __future__ import annotations

import pytest

from weighbridge.formats.gguf import FORMAT
from weighbridge.testing import FormatContract


class TestContract(FormatContract):
    format = FORMAT


@pytest.mark.long
class TestContractAtLength(FormatContract):
    format = FORMAT
    flips = 20_000
    cuts = 10_000
