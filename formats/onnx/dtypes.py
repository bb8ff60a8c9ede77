"""ONNX's data types: one table says how each is called, stored and since when it is known.

Source: ``onnx.proto``, ``TensorProto.DataType`` and ``enum Version``; the operator sets are those
of the ONNX releases that brought the IR versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE, Dense

if TYPE_CHECKING:
    from collections.abc import Mapping


class Typed(Enum):
    """How a type's numbers lie in the field of ``TensorProto`` that is meant for them.

    ``RAW``: at a fixed width, as in ``raw_data``. ``INTEGER``: one varint each. ``BITS``: one
    varint each, whose low bits are the number's. ``PACKED``: one varint for each byte of packed
    numbers.
    """

    RAW = "raw"
    INTEGER = "integer"
    BITS = "bits"
    PACKED = "packed"


@dataclass(frozen=True)
class DataType:
    """One of ONNX's numeric data types.

    Attributes:
        number: in ``TensorProto.DataType``.
        name: in ``TensorProto.DataType``.
        encoding: how ``raw_data`` and external data hold its numbers.
        field: the field of ``TensorProto`` that may hold them instead.
        typed: how that field holds them.
        ir: the first IR version that has the type.
        opset: an operator set of that time.
        runtime: whether ONNX Runtime 1.32 has tensors of the type.
    """

    number: int
    name: str
    encoding: Dense
    field: str
    typed: Typed
    ir: int
    opset: int
    runtime: bool


BASE_IR, BASE_OPSET = 8, 17
"""What a file of the plain types says of itself: old enough for every runtime that is in use."""

_ROWS = (
    (1, "FLOAT", "f32", "float_data", Typed.RAW, BASE_IR, BASE_OPSET),
    (2, "UINT8", "u8", "int32_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (3, "INT8", "i8", "int32_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (4, "UINT16", "u16", "int32_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (5, "INT16", "i16", "int32_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (6, "INT32", "i32", "int32_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (7, "INT64", "i64", "int64_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (9, "BOOL", "bool", "int32_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (10, "FLOAT16", "f16", "int32_data", Typed.BITS, BASE_IR, BASE_OPSET),
    (11, "DOUBLE", "f64", "double_data", Typed.RAW, BASE_IR, BASE_OPSET),
    (12, "UINT32", "u32", "uint64_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (13, "UINT64", "u64", "uint64_data", Typed.INTEGER, BASE_IR, BASE_OPSET),
    (14, "COMPLEX64", "c64", "float_data", Typed.RAW, BASE_IR, BASE_OPSET),
    (15, "COMPLEX128", "c128", "double_data", Typed.RAW, BASE_IR, BASE_OPSET),
    (16, "BFLOAT16", "bf16", "int32_data", Typed.BITS, BASE_IR, BASE_OPSET),
    (17, "FLOAT8E4M3FN", "f8_e4m3", "int32_data", Typed.BITS, 9, 19),
    (18, "FLOAT8E4M3FNUZ", "f8_e4m3fnuz", "int32_data", Typed.BITS, 9, 19),
    (19, "FLOAT8E5M2", "f8_e5m2", "int32_data", Typed.BITS, 9, 19),
    (20, "FLOAT8E5M2FNUZ", "f8_e5m2fnuz", "int32_data", Typed.BITS, 9, 19),
    (21, "UINT4", "u4", "int32_data", Typed.PACKED, 10, 21),
    (22, "INT4", "i4", "int32_data", Typed.PACKED, 10, 21),
    (23, "FLOAT4E2M1", "f4", "int32_data", Typed.PACKED, 11, 23),
    (24, "FLOAT8E8M0", "f8_e8m0", "int32_data", Typed.BITS, 12, 24),
    (25, "UINT2", "u2", "int32_data", Typed.PACKED, 13, 25),
    (26, "INT2", "i2", "int32_data", Typed.PACKED, 13, 25),
    (27, "FLOAT6E2M3", "f6_e2m3", "int32_data", Typed.BITS, 14, 28),
    (28, "FLOAT6E3M2", "f6_e3m2", "int32_data", Typed.BITS, 14, 28),
)

_NOT_IN_RUNTIME = {"COMPLEX64", "COMPLEX128", "FLOAT6E2M3", "FLOAT6E3M2"}

BY_NUMBER: Mapping[int, DataType] = {
    number: DataType(
        number, name, DENSE[dense], field, typed, ir, opset, name not in _NOT_IN_RUNTIME
    )
    for number, name, dense, field, typed, ir, opset in _ROWS
}
"""The data types by their number in the file."""

BY_ENCODING: Mapping[str, DataType] = {t.encoding.name: t for t in BY_NUMBER.values()}
"""The data types by the name of the encoding that each stands for."""

STRING = 8
"""The data type whose tensors hold text, not numbers."""
