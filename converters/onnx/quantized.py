"""Weights that a graph holds as small integers in blocks, decoded to float32.

``value = (integer - zero point) * scale``, in blocks of each row. Source: ONNX Runtime 1.32,
``com.microsoft.MatMulNBits`` and ``GatherBlockQuantized``: integers of 2, 4 or 8 bits without sign,
the first in the low bits; the rows of zero points are whole bytes; zero points that are missing
are in the middle of the range.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.converters.onnx.claims import Claim
from weighbridge.converters.onnx.expressions import quantised_names
from weighbridge.converters.onnx.torch_script import linear_modules
from weighbridge.encoding import DATA, DENSE, is_float
from weighbridge.errors import Error
from weighbridge.graph import PROPERTY
from weighbridge.ops import Split, apply
from weighbridge.packed import Words, reshaped
from weighbridge.parted import parted
from weighbridge.recode import recode
from weighbridge.tensor import Extent, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.converters.onnx.claims import Findings, Scene
    from weighbridge.graph import Node
    from weighbridge.tensor import Lazy

DOMAIN = "com.microsoft"

QUANTISED_NAME = re.compile(r"(.+\.weight)_(?:Q\d\w*|quant\w*|q\d\w*)")
"""What the quantisers of ONNX Runtime make of a weight's name."""


@dataclass(frozen=True)
class Operator:
    """An operator that reads quantised numbers.

    Attributes:
        data: which of its inputs the integers are.
        scale: which the scales are.
        zero: which the zero points are.
        other: which must be missing: what it changes is not understood.
        fixed: attributes that must have these values, where they are there.
    """

    data: int
    scale: int
    zero: int
    other: int | None
    fixed: Mapping[str, int]


OPERATORS: Mapping[str, Operator] = {
    "MatMulNBits": Operator(1, 2, 3, 4, {}),
    "GatherBlockQuantized": Operator(0, 2, 3, None, {"gather_axis": 0, "quantize_axis": 1}),
}


def add(scene: Scene, found: Findings) -> None:
    """Move what the quantised weights of a graph are made of from the unresolved to the claims."""
    nodes = [(node, OPERATORS[node.operator]) for node in scene.structure.nodes if _is_one(node)]
    names = _names(scene, nodes)
    for node, kind in nodes:
        source = node.inputs[kind.data]
        parts = [each for each in _inputs(node, kind).values() if each in scene.tensors]
        try:
            tensor = _tensor(scene, node, kind) if source in scene.tensors else None
        except Error as error:
            _keep(found, parts, f"cannot be decoded: {error.problem}")
            continue
        if tensor is None or source not in names:
            _keep(found, parts, f"is a part of a quantised weight of '{node.name}'")
            continue
        found.claims.append(Claim(names[source], tensor, source, copied=True))
        found.decoded.append(names[source])
        for part in parts:
            found.unresolved.pop(part, None)
            found.constants[part] = "is a part of a quantised weight"


def _is_one(node: Node) -> bool:
    kind = OPERATORS.get(node.operator)
    return node.domain == DOMAIN and kind is not None and len(node.inputs) > kind.scale


def _names(scene: Scene, nodes: Sequence[tuple[Node, Operator]]) -> dict[str, str]:
    """Return the integers of which it is known whose they are -> the weight's name.

    A graph of ours says it; where it has other parts as well, such as minima that another product
    adds, the operator alone does not decode it. In others a name may be made of the weight's, or
    the node is the only one of a linear layer.
    """
    if PROPERTY in scene.program.properties:
        return _given(scene, nodes)
    sources = [node.inputs[kind.data] for node, kind in nodes]
    whole = {source: found[1] for source in sources if (found := QUANTISED_NAME.fullmatch(source))}
    rest = [source for source in sources if source in scene.tensors and source not in whole]
    layers = linear_modules(scene, rest, "MatMulNBits")
    return whole | {source: f"{module}.weight" for source, module in layers.items()}


def _given(scene: Scene, nodes: Sequence[tuple[Node, Operator]]) -> dict[str, str]:
    """Return the integers of weights whose parts one node reads all, in any shape."""
    named = quantised_names(scene)
    parts: dict[str, set[object]] = {}
    for source, name in named.items():
        parts.setdefault(name, set()).add(_place(scene, source))
    found: dict[str, str] = {}
    for node, kind in nodes:
        source = node.inputs[kind.data]
        read = {_place(scene, name) for name in _inputs(node, kind).values()}
        if source in named and parts[named[source]] <= read:
            found[source] = named[source]
    return found


def _place(scene: Scene, source: str) -> object:
    """Return where a tensor is stored, its name where that cannot be told."""
    tensor = scene.tensors.get(source)
    where = tensor.parts[DATA] if isinstance(tensor, Tensor) else None
    if not isinstance(where, Extent):
        return source
    return str(where.file.path), where.offset, where.length


def _keep(found: Findings, parts: list[str], why: str) -> None:
    for part in parts:
        found.constants.pop(part, None)
        found.unresolved[part] = why


def _inputs(node: Node, kind: Operator) -> dict[str, str]:
    """Return the names of the parts that are there."""
    places = {"data": kind.data, "scale": kind.scale, "zero": kind.zero}
    return {
        part: node.inputs[place]
        for part, place in places.items()
        if place < len(node.inputs) and node.inputs[place]
    }


def _tensor(scene: Scene, node: Node, kind: Operator) -> Lazy | None:
    """Return the numbers that an operator decodes, None where it does so in a way of its own.

    Raises:
        InvalidInput: (rule ``part-shape``) for parts that do not fit together.
    """
    bits, block = (
        node.attributes.get(key, default) for key, default in (("bits", 4), ("block_size", 128))
    )
    reorders = kind.other is not None and kind.other < len(node.inputs) and node.inputs[kind.other]
    unusual = any(node.attributes.get(key, value) != value for key, value in kind.fixed.items())
    if bits not in _UNSIGNED or not isinstance(block, int) or block < 1 or reorders or unusual:
        return None
    names = _inputs(node, kind)
    if not all(name in scene.tensors for name in names.values()):
        return None
    stored = {part: scene.tensors[name] for part, name in names.items()}
    if stored["data"].encoding != DENSE["u8"] or stored["data"].ndim < 2:
        return None
    return decoded(stored, _columns(stored["data"], node, int(bits)), int(bits), block)


def _columns(data: Lazy, node: Node, bits: int) -> int:
    """Return the length of a row: an attribute of products, told by the integers of look-ups."""
    columns = node.attributes.get("K")
    return columns if isinstance(columns, int) else data.shape[-1] * 8 // bits


_UNSIGNED = {2: DENSE["u2"], 4: DENSE["u4"], 8: DENSE["u8"]}
_SIGNED = {2: DENSE["i2"], 4: DENSE["i4"], 8: DENSE["i8"]}


def decoded(stored: Mapping[str, Lazy], columns: int, bits: int, block: int) -> Lazy:
    """Return the numbers of a quantised matrix in float32.

    Args:
        stored: its ``data``, uint8, rows first; ``scale``, and perhaps ``zero``: packed as the data
            are, or floats.
        columns: the length of a row.
        bits: of an integer.
        block: how many numbers of a row have one scale.

    Raises:
        InvalidInput: (rule ``part-shape``) for parts that do not fit together.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> data = from_array("q", np.array([[0x98, 0x7A]], np.uint8))
        >>> scale = from_array("s", np.array([0.5], np.float32))
        >>> decoded({"data": data, "scale": scale}, 4, 4, 16).values().tolist()
        [[0.0, 0.5, 1.0, -0.5]]
    """
    data, scale, zero = stored["data"], stored["scale"], stored.get("zero")
    rows = data.shape[0]
    blocks = -(-columns // block)
    held = data.size // max(rows, 1) * 8 // bits
    scales = reshaped(scale, (rows, blocks))
    if zero is None:
        numbers = _centred(reshaped(data, (rows, held * bits // 8)), held, bits)
        whole = parted((1, block), data=_cut(numbers, columns), scale=scales)
    else:
        numbers = reshaped(data, (rows, held), _UNSIGNED[bits])
        zeros = _zeros(zero, rows, blocks, bits)
        whole = parted((1, block), data=_cut(numbers, columns), scale=scales, zero=zeros)
    return recode(whole, DENSE["f32"])


def _centred(data: Lazy, columns: int, bits: int) -> Lazy:
    """Return integers minus half their range: the zero point that is meant where there is none."""
    order = tuple(range(8 // bits))
    return Words(data, (data.shape[0], columns), _SIGNED[bits], 1, order, add=1 << (bits - 1))


def _zeros(zero: Lazy, rows: int, blocks: int, bits: int) -> Lazy:
    if is_float(zero.encoding):
        return reshaped(zero, (rows, blocks))
    held = -(-blocks * bits // 8) * 8 // bits
    return _cut(reshaped(zero, (rows, held), _UNSIGNED[bits]), blocks)


def _cut(tensor: Lazy, columns: int) -> Lazy:
    """Return the first columns: the last block of a row may be filled up, and so may a byte."""
    rest = tensor.shape[1] - columns
    return apply(Split(1, (columns, rest)), [tensor])[0] if rest else tensor
