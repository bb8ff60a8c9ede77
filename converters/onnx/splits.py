"""How matrices that a graph multiplies by at once are cut apart again behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE

if TYPE_CHECKING:
    from weighbridge.converters.onnx.claims import Scene
    from weighbridge.graph import Node

MOST_PARTS = 256
"""The most matrices that are believed to be one."""

PRODUCTS = {"MatMul": 1, "FusedMatMul": 1, "MatMulNBits": 1}
"""Operators that multiply by a matrix -> which of their inputs that is."""


def split_after(scene: Scene, name: str) -> tuple[Node, tuple[int, ...]] | None:
    """Return the node that cuts the product with a matrix apart, and the lengths of the parts.

    Args:
        scene: the graph.
        name: the matrix in it, which has a column for each of the product's.

    Returns:
        None where there is no such node, or where the lengths are not known beforehand.
    """
    node = product_with(scene, name)
    following = scene.structure.uses.get(node.outputs[0], []) if node else []
    if len(following) != 1 or following[0].position != 0:
        return None
    after = following[0].node
    columns = scene.tensors[name].shape[-1]
    sizes = _SIZES[after.operator](scene, after, columns) if after.operator in _SIZES else ()
    fits = len(sizes) > 1 and sum(sizes) == columns and min(sizes) > 0
    return (after, sizes) if fits else None


def product_with(scene: Scene, name: str) -> Node | None:
    """Return the only node that reads a matrix, where it multiplies by it."""
    uses = scene.structure.uses.get(name, [])
    if len(uses) != 1 or PRODUCTS.get(uses[0].node.operator) != uses[0].position:
        return None
    return uses[0].node if uses[0].node.outputs else None


def _of_split(scene: Scene, node: Node, columns: int) -> tuple[int, ...]:
    """Return the lengths that a Split has, as its second input or (before opset 13) an attribute.

    Source: the operator's documentation.
    """
    listed = node.attributes.get("split")
    if isinstance(listed, tuple):
        return tuple(map(int, listed))
    if len(node.inputs) < 2:
        parts = max(len(node.outputs), 1)
        fits = columns % parts == 0 and parts <= MOST_PARTS
        return (columns // parts,) * parts if fits else ()
    sizes = scene.tensors.get(node.inputs[1])
    if sizes is None or sizes.encoding != DENSE["i64"] or sizes.size > MOST_PARTS:
        return ()
    return tuple(int(size) for size in sizes.values().reshape(-1))


def _of_attention(scene: Scene, node: Node, columns: int) -> tuple[int, ...]:
    """Return the lengths of queries, keys and values that come as one.

    Source: ONNX Runtime's ``GroupQueryAttention``: without keys and values, they are in the query.
    """
    del scene
    heads, groups = (node.attributes.get(key) for key in ("num_heads", "kv_num_heads"))
    if not isinstance(heads, int) or not isinstance(groups, int) or any(node.inputs[1:3]):
        return ()
    length, rest = divmod(columns, max(heads + 2 * groups, 1))
    return () if rest else (heads * length, groups * length, groups * length)


_SIZES = {"Split": _of_split, "GroupQueryAttention": _of_attention}
