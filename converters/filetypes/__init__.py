"""The file types of llama-quantize: which tensor of a model gets which encoding under each name.

Q4_K_M, say, is mostly Q4_K; the tensors that matter most get more bits: the output layer, and the
value and down projections of some layers.
"""

from __future__ import annotations

from dataclasses import replace

from weighbridge.converters.filetypes.filetype import FileType
from weighbridge.converters.filetypes.table import ALIASES, FILE_TYPES, NEED_IMPORTANCE
from weighbridge.errors import Unsupported

__all__ = ["FileType", "file_type"]


def file_type(name: str, *, pure: bool = False) -> FileType | None:
    """Return a file type by its name in either case, None where there is none of that name.

    Args:
        name: as llama-quantize takes it.
        pure: whether all matrices are to have the base encoding.

    Raises:
        Unsupported: (rule ``importance``) for one that is made with an importance matrix only.

    Example:
        >>> file_type("q4_k").name
        'Q4_K_M'
        >>> [(choice.kind, choice.encoding) for choice in file_type("Q5_K_M").choices][-2:]
        [('ffn_down', 'q6_k'), ('output', 'q6_k')]
    """
    wanted = name.upper()
    if wanted in NEED_IMPORTANCE and not pure:
        raise Unsupported(
            "this file type needs an importance matrix, which is not read yet",
            rule="importance",
            got=wanted,
            expected=f"one of {', '.join(FILE_TYPES)}",
        )
    found = FILE_TYPES.get(ALIASES.get(wanted, wanted))
    return replace(found, pure=True) if found and pure else found
