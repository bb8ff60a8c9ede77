"""The dtypes of safetensors and the encodings that they are: one table, read both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Dense

DTYPES: Mapping[str, Dense] = {
    name.upper(): DENSE[name]
    for name in (
        "bool", "f4", "f6_e2m3", "f6_e3m2", "u8", "i8", "f8_e5m2", "f8_e4m3", "f8_e8m0",
        "f8_e4m3fnuz", "f8_e5m2fnuz", "i16", "u16", "f16", "bf16", "i32", "u32", "f32", "c64",
        "f64", "i64", "u64",
    )
}  # fmt: skip
"""The crate's ``Dtype`` enum in its own order: by alignment, in which the data are laid out too."""

RANKS: Mapping[str, int] = {dense.name: rank for rank, dense in enumerate(DTYPES.values())}
"""An encoding's name -> its place in `DTYPES`."""

NAMES: Mapping[str, str] = {dense.name: dtype for dtype, dense in DTYPES.items()}
"""An encoding's name -> its dtype."""
