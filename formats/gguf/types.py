"""The numbers that GGUF files are made of: versions, value types, tensor types, limits.

Source of all of them: the GGUF specification (``docs/gguf.md`` of ggml), and ``ggml.h`` and
``gguf.cpp`` for what is newer than it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE
from weighbridge.kernels.ggml import BLOCKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Encoding

MAGIC = b"GGUF"

FORMER_MAGICS: Mapping[bytes, str] = {
    b"lmgg": "GGML",
    b"fmgg": "GGMF",
    b"tjgg": "GGJT",
    b"algg": "GGLA",
}
"""What files of GGUF's predecessors begin with, and what those are called."""

VERSION = 3
"""The version that is written."""

VERSIONS = (2, 3)
"""The versions that are read: they differ in that version 3 allows big-endian files."""

ARCHITECTURE = "general.architecture"
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32

MAX_KEY = 65535
"""The most bytes in a key: "at most 2^16-1"."""

MAX_DIMENSIONS = 4
"""``GGML_MAX_DIMS``; specification: "currently at most 4"."""

MAX_NAME = 63
"""The most bytes in a tensor's name that ggml can hold: ``GGML_MAX_NAME`` less the final zero."""

MAX_ITEMS = 1 << 30
"""The most items in an array: ``GGUF_MAX_ARRAY_ELEMENTS`` of ``gguf.cpp``."""

MAX_STRINGS = 1 << 22
"""The most strings in an array: sixteen times the largest vocabulary, and 64 MB of addresses."""

MAX_DEPTH = 4
"""How deep arrays may lie in each other. No known key holds more than plain arrays."""

MAX_NESTED = 1 << 16
"""The most arrays inside of arrays in a file: each is an object in memory."""

VALUE_TYPES: Mapping[int, str] = {
    0: "u8",
    1: "i8",
    2: "u16",
    3: "i16",
    4: "u32",
    5: "i32",
    6: "f32",
    7: "bool",
    8: "string",
    9: "array",
    10: "u64",
    11: "i64",
    12: "f64",
}
"""``gguf_metadata_value_type``, in the names of `weighbridge.metadata.TYPES`."""

VALUE_IDS: Mapping[str, int] = {name: number for number, name in VALUE_TYPES.items()}

CODES: Mapping[str, str] = {
    "u8": "B",
    "i8": "b",
    "u16": "H",
    "i16": "h",
    "u32": "I",
    "i32": "i",
    "u64": "Q",
    "i64": "q",
    "f32": "f",
    "f64": "d",
    "bool": "?",
}
"""The `struct` letter of each value type of a fixed size; NumPy understands the same letters."""

_TENSOR_TYPES: Mapping[int, str] = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    9: "q8_1",
    10: "q2_k",
    11: "q3_k",
    12: "q4_k",
    13: "q5_k",
    14: "q6_k",
    15: "q8_k",
    16: "iq2_xxs",
    17: "iq2_xs",
    18: "iq3_xxs",
    19: "iq1_s",
    20: "iq4_nl",
    21: "iq3_s",
    22: "iq2_s",
    23: "iq4_xs",
    24: "i8",
    25: "i16",
    26: "i32",
    27: "i64",
    28: "f64",
    29: "iq1_m",
    30: "bf16",
    34: "tq1_0",
    35: "tq2_0",
    39: "mxfp4",
    40: "nvfp4",
    41: "q1_0",
    42: "q2_0",
}

ENCODINGS: Mapping[int, Encoding] = {
    number: DENSE[name] if name in DENSE else BLOCKED[name]
    for number, name in _TENSOR_TYPES.items()
}
"""``ggml_type``: how the numbers of a tensor of each type are stored."""

TYPE_IDS: Mapping[str, int] = {encoding.name: number for number, encoding in ENCODINGS.items()}
"""The ``ggml_type`` of each encoding, by its name."""

REMOVED_TYPES: Mapping[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
"""Types that ggml once had, and whose numbers it does not use again."""
