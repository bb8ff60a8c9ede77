"""The file types of llama-quantize: which tensor of a model gets which encoding under each name.

Q4_K_M, say, is mostly Q4_K; the tensors that matter most get more bits: the output layer, and the
value and down projections of some layers.
"""

from __future__ import annotations

from dataclasses import replace

from weighbridge.converters.filetypes.filetype import FileType
from weighbridge.converters.filetypes.table import ALIASES, FILE_TYPES, NEED_IMPORTANCE
from weighbridge.errors import InvalidInput
from weighbridge.kernels import codec_for

__all__ = ["FileType", "file_type"]


def file_type(name: str, *, pure: bool = False, weighted: bool = False) -> FileType | None:
    """Return a file type by its name in either case, None where there is none of that name.

    Args:
        name: as llama-quantize takes it.
        pure: whether all matrices are to have the base encoding.
        weighted: whether there is an importance matrix.

    Raises:
        InvalidInput: (rule ``importance``) for one that is made with an importance matrix only.

    Example:
        >>> file_type("q4_k").name
        'Q4_K_M'
        >>> [(choice.kind, choice.encoding) for choice in file_type("Q5_K_M").choices][-2:]
        [('ffn_down', 'q6_k'), ('output', 'q6_k')]
    """
    wanted = name.upper()
    found = FILE_TYPES.get(ALIASES.get(wanted, wanted))
    if found and not weighted and _needs_importance(found, pure=pure):
        raise InvalidInput(
            "this file type is made with an importance matrix only",
            rule="importance",
            got=wanted,
            hint="give one with --imatrix; llama-imatrix makes them",
        )
    return replace(found, pure=pure, weighted=weighted) if found else None


def _needs_importance(found: FileType, *, pure: bool) -> bool:
    """Tell whether a file type needs a matrix; a pure one does where its encoder does."""
    return found.name in NEED_IMPORTANCE and not (pure and codec_for(found.base).encode)
