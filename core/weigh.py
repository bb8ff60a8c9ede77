"""Which tensors of a target are quantised with importance, by an importance matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge import kernels
from weighbridge.encoding import Blocked
from weighbridge.errors import InvalidInput
from weighbridge.recode import Recoded
from weighbridge.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Encoding
    from weighbridge.importance import Importance, ImportanceMatrix
    from weighbridge.recipe import Recipe
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

NAMED = 3
"""Tensors that a note names one by one."""


def importance_of(
    name: str,
    tensor: Lazy,
    encoding: Encoding,
    matrix: ImportanceMatrix | None,
    recipe: Recipe | None,
) -> Importance | None:
    """Return the importance that a tensor is encoded with, None where it makes no difference.

    Args:
        name: its name in the target.
        tensor: its shape and present encoding.
        encoding: the one that it will be stored in.
        matrix: what says how much columns count.
        recipe: may demand importance.

    Raises:
        InvalidInput: (rule ``importance``) where there is no entry and cannot be none, and for one
            of another shape.
    """
    if tensor.encoding == encoding or not isinstance(encoding, Blocked):
        return None
    found = matrix.of(name, tensor.shape) if matrix and tensor.ndim > 1 else None
    codec = kernels.codec_for(encoding)
    demanded = matrix and recipe and recipe.needs_importance(name, encoding)
    if found is None and (demanded or not codec.encode):
        raise InvalidInput(
            f"has no entry in the importance matrix, without which it is not made {encoding}",
            rule="importance",
            tensor=name,
            hint="give it another encoding with --tensor-type, or take another matrix",
        )
    return found if codec.weighted else None


def check_entries(tensors: Mapping[str, Lazy], matrix: ImportanceMatrix) -> None:
    """Refuse a matrix of another model.

    Raises:
        InvalidInput: (rule ``importance``) when it has an entry for none of the tensors.
    """
    if not any(name in tensors for name in matrix.entries):
        raise InvalidInput(
            "the importance matrix has an entry for none of the tensors",
            rule="importance",
            path=matrix.path,
            got=f"an entry for {next(iter(matrix.entries))}",
            expected=f"one for {next(iter(tensors), 'a tensor')}",
        )


def note_importance(tensors: Mapping[str, Lazy], matrix: ImportanceMatrix, report: Report) -> None:
    """Tell how many tensors are encoded with importance, and which might be and are not."""
    made = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Recoded)}
    weighted = [name for name, tensor in made.items() if tensor.importance]
    without = [name for name, tensor in made.items() if _might_be(tensor)]
    if weighted:
        report.note("weighted", counted(len(weighted), "tensor"), f"by {matrix.path}")
    if without:
        named = ", ".join(without[:NAMED]) + (", ..." if len(without) > NAMED else "")
        subject = counted(len(without), "tensor")
        report.note("warning", subject, f"without an entry in the importance matrix: {named}")


def _might_be(tensor: Recoded) -> bool:
    """Tell whether importance would make a difference to a tensor that has none."""
    if tensor.importance or not isinstance(tensor.encoding, Blocked):
        return False
    return kernels.codec_for(tensor.encoding).weighted is not None
