"""The formats of compressed-tensors, which llm-compressor writes and vLLM reads.

Source: compressed-tensors, ``compressors/*/base.py``. ``pack-quantized`` packs integers along the
inputs of an int32, each plus half its range, and zero points along the outputs;
``nvfp4-pack-quantized`` and ``mxfp4-pack-quantized`` pack pairs of 4-bit floats;
``float-quantized``, ``int-quantized`` and ``naive-quantized`` keep a number a byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from weighbridge.converters.packings import parts
from weighbridge.converters.packings.fp8 import scale_of
from weighbridge.converters.packings.modelopt import nvfp4
from weighbridge.encoding import DENSE, Shape
from weighbridge.errors import InvalidFile
from weighbridge.packed import Words, reshaped
from weighbridge.packing import Packing
from weighbridge.parted import parted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

WORD = 32
BITS = (2, 4, 8)
MX_BLOCK = 32


def _weights(settings: Config) -> Iterator[Mapping[str, Any]]:
    """Yield what each group of layers says of its weights."""
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            yield weights


def _blocks(settings: Config) -> list[Shape]:
    """Return the shapes of blocks that the settings name."""
    found: list[Shape] = []
    for weights in _weights(settings):
        block = parts.pair(weights.get("block_structure"), "block_structure")
        if block:
            found.append(block)
        size = weights.get("group_size")
        if type(size) is int and size > 0:
            found.append((1, size))
    return found


def _plain(found: parts.Parts, settings: Config) -> Lazy:
    zero = found.get("weight_zero_point")
    return parts.fitted(found["weight"], scale_of(found["weight_scale"]), _blocks(settings), zero)


def _integers(found: parts.Parts, settings: Config) -> Lazy:
    words = parts.stored_as(found["weight_packed"], "i32", "u32")
    rows, columns = _shape(found["weight_shape"])
    bits = _bits(settings, columns, parts.matrix(words)[1])
    order = tuple(range(WORD // bits))
    half = 1 << (bits - 1)
    number = DENSE[f"i{bits}"]
    scale = parts.stored_as(found["weight_scale"], "f16", "bf16", "f32")
    zero = None
    if "weight_zero_point" in found:
        packed = parts.stored_as(found["weight_zero_point"], "i32", "u32")
        zero = Words(packed, (rows, parts.matrix(scale)[1]), number, 0, order, half)
    data = Words(words, (rows, columns), number, 1, order, half)
    return parts.fitted(data, scale, _blocks(settings), zero)


def _shape(tensor: Lazy) -> Shape:
    """Read the shape of a matrix, which is itself a tensor of two numbers."""
    if tensor.shape != (2,) or tensor.encoding.name not in ("i64", "i32"):
        raise InvalidFile(
            "weight_shape is no shape of a matrix",
            rule="part-shape",
            got=f"{tensor.encoding} {list(tensor.shape)}",
        )
    rows, columns = (int(length) for length in tensor.values())
    if rows < 1 or columns < 1:
        raise InvalidFile("weight_shape is no shape", rule="part-shape", got=[rows, columns])
    return rows, columns


def _bits(settings: Config, columns: int, words: int) -> int:
    """Return how many bits a number has: as the settings say, and as the packed rows allow."""
    said = [weights.get("num_bits") for weights in _weights(settings)]
    for bits in said:
        if bits in BITS and words == -(-columns * bits // WORD):
            return int(bits)
    raise parts.unsupported("num_bits", said, BITS)


def _floats(found: parts.Parts, settings: Config) -> Lazy:
    data = parts.nibbles(found["weight_packed"])
    scale = found["weight_scale"]
    if "weight_global_scale" in found:
        return nvfp4(data, scale, found["weight_global_scale"], divides=True)
    del settings
    exponents = parts.stored_as(scale, "u8", "f8_e8m0")
    return parted(
        (1, MX_BLOCK), data=data, scale=reshaped(exponents, scale.shape, DENSE["f8_e8m0"])
    )


def _is_bytes(tensor: Lazy) -> bool:
    return tensor.encoding.name in ("u8", "i8")


def _is_quantised(tensor: Lazy) -> bool:
    return tensor.encoding.name in ("i8", "f8_e4m3", "f8_e5m2") and tensor.ndim > 1


KINDS = (
    parts.Kind(
        "weight_packed", ("weight_scale",), "weight", _floats, ("weight_global_scale",), _is_bytes
    ),
    parts.Kind(
        "weight_packed",
        ("weight_scale", "weight_shape"),
        "weight",
        _integers,
        ("weight_zero_point",),
        lambda tensor: not _is_bytes(tensor),
    ),
    parts.Kind(
        "weight", ("weight_scale",), "weight", _plain, ("weight_zero_point",), _is_quantised
    ),
)


class CompressedTensors(Packing):
    """``quant_method: compressed-tensors``."""

    name = "compressed-tensors"

    def unpacked(self, tensors: parts.Tensors, settings: Config, report: Report) -> dict[str, Lazy]:
        """Return the weights."""
        if any(name.endswith("weight_g_idx") for name in tensors):
            raise parts.unsupported("actorder", "group", ("static", "null"))
        return parts.put_together(tensors, KINDS, settings, report)


COMPRESSED = CompressedTensors()
