"""What lazy tensors have in common whose numbers another tensor holds, otherwise arranged."""

from __future__ import annotations

from weighbridge.tensor import Lazy


class Rearranged(Lazy):
    """A tensor of another's codes or scales, moved and not decoded.

    Attributes:
        exact: whether the numbers are the other tensor's own; False where they are first rounded
            to the codes that are moved.
    """

    exact: bool
