"""How numbers are stored, as frozen values: `Dense`, `Blocked` and `Scaled`.

Equal encodings mean equal bytes. Sizes come from `Encoding.sizes` alone; nobody else computes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from weighbridge.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Shape = tuple[int, ...]
DATA = "data"
"""The name of the only part of a tensor whose numbers are stored in one piece."""


@dataclass(frozen=True)
class Encoding:
    """How numbers are stored.

    A *grain* is the smallest run of values along the last axis whose bytes can be moved on their
    own: 1 for bf16, 32 for q8_0, 2 for 4-bit numbers packed in pairs.

    Attributes:
        name: the field's lower-case name: ``bf16``, ``q4_k``, ``f8_e4m3``.
        grain: values in a grain.
        grain_bytes: bytes in a grain.
    """

    name: str
    grain: int
    grain_bytes: int

    def sizes(self, shape: Shape) -> Mapping[str, int]:
        """Return the number of bytes of each part of a tensor of `shape`.

        Raises:
            Unsupported: (rule ``block-size``) when the shape cannot be stored in this encoding.
        """
        return {DATA: self.nbytes(shape)}

    def nbytes(self, shape: Shape) -> int:
        """Return the number of bytes of a tensor of `shape`, all parts together."""
        raise NotImplementedError

    def fits(self, shape: Shape) -> bool:
        """Tell whether a tensor of `shape` can be stored in this encoding."""
        try:
            self.sizes(shape)
        except Unsupported:
            return False
        return True

    def __str__(self) -> str:
        """Return the name as the field writes it."""
        return self.name.upper()


@dataclass(frozen=True)
class Dense(Encoding):
    """One number after the other, each of the same number of bits.

    Numbers of less than a byte are packed over the flattened tensor, the first in the low bits,
    and the last byte is filled up with zeros.

    Attributes:
        bits: bits in a number.
        dtype: the NumPy (or ml_dtypes) type of one number once it is unpacked.

    Example:
        >>> DENSE["bf16"].nbytes((2, 3)), DENSE["f4"].nbytes((3,))
        (12, 2)
    """

    bits: int = 0
    dtype: np.dtype[np.generic] = field(default=np.dtype("u1"), compare=False, repr=False)

    def nbytes(self, shape: Shape) -> int:
        """Return ceil(values * bits / 8)."""
        return -(-math.prod(shape) * self.bits // 8)


@dataclass(frozen=True)
class Blocked(Encoding):
    """Blocks of a fixed number of values along the last axis, each with its own scales: ggml's.

    Attributes:
        dtype: the structured type of one block; its itemsize is `grain_bytes`.

    Example:
        >>> q8_0 = blocked("q8_0", 32, [("d", "<f2"), ("qs", "i1", (32,))], 34)
        >>> q8_0.nbytes((4, 64)), q8_0.fits((4, 40))
        (272, False)
    """

    dtype: np.dtype[np.void] = field(default=np.dtype([("b", "u1")]), compare=False, repr=False)

    def nbytes(self, shape: Shape) -> int:
        """Return blocks * bytes in a block.

        Raises:
            Unsupported: (rule ``block-size``) when the rows are no whole number of blocks.
        """
        if not shape or shape[-1] % self.grain:
            raise Unsupported(
                f"rows cannot be cut into blocks of {self}",
                rule="block-size",
                got=f"rows of {shape[-1] if shape else 1} values",
                expected=f"a multiple of {self.grain}",
            )
        return math.prod(shape) // self.grain * self.grain_bytes


def blocked(name: str, values: int, fields: Sequence[tuple[object, ...]], nbytes: int) -> Blocked:
    """Return the encoding whose blocks of `values` numbers have these `fields` in `nbytes` bytes.

    Raises:
        AssertionError: when the fields do not add up to `nbytes`: a mistake in a table.
    """
    dtype = np.dtype(list(fields))
    assert dtype.itemsize == nbytes, f"{name}: {dtype.itemsize} bytes in a block, not {nbytes}"
    return Blocked(name, values, nbytes, dtype)


@dataclass(frozen=True)
class Scaled(Encoding):
    """Numbers with separate scales: ``value = (element - zero) * scale``, a scale for each block.

    Where there is a scale of the scales, each is multiplied (or divided) by it first.

    FP8 with 128x128 blocks, MXFP4 and NVFP4 as separate tensors, and the int4 and int8 groups of
    GPTQ, AWQ and ONNX are points in this space.

    Attributes:
        element: how the elements are stored.
        scale: how the scales are stored.
        block: the shape of a block, aligned with the last axes; an axis shorter than its block
            has one scale. The whole tensor has one scale where `block` is empty.
        zero: how the zero points are stored, None where there are none.
        outer: how the one scale of all scales is stored, as NVFP4 has it; None where there is none.
        divides: whether that one divides the scales (compressed-tensors) or multiplies them.

    Example:
        >>> fp8 = scaled(DENSE["f8_e4m3"], DENSE["f32"], (128, 128))
        >>> dict(fp8.sizes((256, 300)))
        {'data': 76800, 'scale': 24}
    """

    element: Dense = field(default_factory=lambda: DENSE["u8"])
    scale: Dense = field(default_factory=lambda: DENSE["f32"])
    block: Shape = ()
    zero: Dense | None = None
    outer: Dense | None = None
    divides: bool = False

    def scales_shape(self, shape: Shape) -> Shape:
        """Return the shape of the scales of a tensor of `shape`."""
        if not self.block:
            return ()
        free = len(shape) - len(self.block)
        return shape[:free] + tuple(
            -(-n // b) for n, b in zip(shape[free:], self.block, strict=True)
        )

    def sizes(self, shape: Shape) -> Mapping[str, int]:
        """Return the bytes of ``data``, ``scale`` and, where there are any, ``zero``, ``outer``."""
        shapes = self.shapes(shape)
        return {part: dense.nbytes(shapes[part]) for part, dense in self.parts.items()}

    @property
    def parts(self) -> Mapping[str, Dense]:
        """How each part is stored."""
        stored = {DATA: self.element, "scale": self.scale, "zero": self.zero, "outer": self.outer}
        return {part: dense for part, dense in stored.items() if dense is not None}

    def shapes(self, shape: Shape) -> Mapping[str, Shape]:
        """Return the shape of each part of a tensor of `shape`.

        Raises:
            Unsupported: (rule ``block-size``) when it has fewer axes than a block.
        """
        if len(self.block) > len(shape):
            raise Unsupported(
                f"{self} needs at least {len(self.block)} axes", rule="block-size", got=shape
            )
        scales = self.scales_shape(shape)
        shapes = {DATA: shape, "scale": scales, "zero": scales, "outer": ()}
        return {part: shapes[part] for part in self.parts}

    def nbytes(self, shape: Shape) -> int:
        """Return the bytes of all parts together."""
        return sum(self.sizes(shape).values())


def scaled(
    element: Dense,
    scale: Dense,
    block: Shape,
    zero: Dense | None = None,
    outer: Dense | None = None,
    *,
    divides: bool = False,
) -> Scaled:
    """Return the encoding that scales blocks of `element` by `scale`.

    Example:
        >>> str(scaled(DENSE["f4"], DENSE["f8_e4m3"], (1, 16), outer=DENSE["f32"]))
        'F4:F8_E4M3:1X16:*F32'
    """
    name = f"{element.name}:{scale.name}:{'x'.join(map(str, block)) or 'tensor'}"
    name += f":{zero.name}" if zero else ""
    name += f":{'/' if divides else '*'}{outer.name}" if outer else ""
    grain, grain_bytes = element.grain, element.grain_bytes
    return Scaled(name, grain, grain_bytes, element, scale, block, zero, outer, divides)


def _dense(name: str, bits: int, dtype: object) -> Dense:
    together = 8 // math.gcd(8, bits)
    return Dense(name, together, together * bits // 8, bits, np.dtype(dtype))  # type: ignore[call-overload]


DENSE: Mapping[str, Dense] = {
    name: _dense(name, bits, dtype)
    for name, bits, dtype in (
        ("f64", 64, "<f8"),
        ("f32", 32, "<f4"),
        ("f16", 16, "<f2"),
        ("bf16", 16, ml_dtypes.bfloat16),
        ("f8_e4m3", 8, ml_dtypes.float8_e4m3fn),
        ("f8_e5m2", 8, ml_dtypes.float8_e5m2),
        ("f8_e4m3fnuz", 8, ml_dtypes.float8_e4m3fnuz),
        ("f8_e5m2fnuz", 8, ml_dtypes.float8_e5m2fnuz),
        ("f8_e8m0", 8, ml_dtypes.float8_e8m0fnu),
        ("f6_e2m3", 6, ml_dtypes.float6_e2m3fn),
        ("f6_e3m2", 6, ml_dtypes.float6_e3m2fn),
        ("f4", 4, ml_dtypes.float4_e2m1fn),
        ("i64", 64, "<i8"),
        ("i32", 32, "<i4"),
        ("i16", 16, "<i2"),
        ("i8", 8, "i1"),
        ("i4", 4, ml_dtypes.int4),
        ("i2", 2, ml_dtypes.int2),
        ("u64", 64, "<u8"),
        ("u32", 32, "<u4"),
        ("u16", 16, "<u2"),
        ("u8", 8, "u1"),
        ("u4", 4, ml_dtypes.uint4),
        ("u2", 2, ml_dtypes.uint2),
        ("bool", 8, "?"),
        ("c64", 64, "<c8"),
        ("c128", 128, "<c16"),
    )
}
"""The dense encodings by name.

Sources: the safetensors ``Dtype`` enum and ONNX's ``TensorProto.DataType``.
"""

DTYPE_NAMES: Mapping[str, str] = {
    "float64": "f64", "double": "f64", "float32": "f32", "float": "f32", "float16": "f16",
    "half": "f16", "bfloat16": "bf16", "float8_e4m3fn": "f8_e4m3", "float8_e5m2": "f8_e5m2",
}  # fmt: skip
"""What torch and Hugging Face configs call some of the dense encodings."""


def dense(name: str) -> Dense:
    """Return a dense encoding by its own name, or by what torch and Hugging Face call it.

    Raises:
        InvalidInput: (rule ``encoding``) when there is none of that name.

    Example:
        >>> dense("bfloat16") == dense("BF16") == DENSE["bf16"]
        True
    """
    lower = name.lower().removeprefix("torch.")
    found = DENSE.get(DTYPE_NAMES.get(lower, lower))
    if found is None:
        raise InvalidInput("is not the name of a dtype", rule="encoding", got=name)
    return found


def is_float(encoding: Encoding) -> bool:
    """Tell whether an encoding holds floating-point numbers, as all but dense integers do.

    Example:
        >>> is_float(DENSE["f8_e4m3"]), is_float(DENSE["bool"]), is_float(DENSE["c64"])
        (True, False, False)
    """
    return not isinstance(encoding, Dense) or (encoding.name[0] in "fb" and encoding.name != "bool")
