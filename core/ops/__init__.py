"""Reversible tensor operations, an operation a file, and the lazy tensors that they make."""

from weighbridge.ops.add import Add
from weighbridge.ops.applied import Applied, apply
from weighbridge.ops.cut import Cut, Pad
from weighbridge.ops.join import Concat, Split
from weighbridge.ops.op import Fetch, Op
from weighbridge.ops.stack import Stack, Unstack
from weighbridge.ops.swap import Swap
from weighbridge.ops.transpose import Transpose

__all__ = [
    "Add",
    "Applied",
    "Concat",
    "Cut",
    "Fetch",
    "Op",
    "Pad",
    "Split",
    "Stack",
    "Swap",
    "Transpose",
    "Unstack",
    "apply",
]
