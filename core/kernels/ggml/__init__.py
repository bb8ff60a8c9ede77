"""ggml's block encodings, a module for each family.

The numbers that stand for them in files are the business of the GGUF format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.encoding import Blocked
from weighbridge.kernels.ggml import iquants, kquants, legacy, lowbit, microscaling, ternary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.kernels.codec import Codec

__all__ = ["BLOCKED", "GGML"]

GGML: Mapping[str, Codec] = {
    codec.encoding.name: codec
    for family in (legacy, kquants, iquants, ternary, microscaling, lowbit)
    for codec in family.CODECS
}
"""The codecs by name, in the order of ggml's type numbers."""

BLOCKED: Mapping[str, Blocked] = {
    name: codec.encoding for name, codec in GGML.items() if isinstance(codec.encoding, Blocked)
}
"""The encodings by name, in the same order."""
