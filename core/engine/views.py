"""Dense tensors as views of their file."""

from __future__ import annotations

import mmap
from collections import Counter
from typing import TYPE_CHECKING

from weighbridge.encoding import DATA, Blocked, Dense
from weighbridge.engine.backend import LOG, MMAP, check_backend, choose
from weighbridge.engine.torch_types import import_torch, torch_dtype
from weighbridge.tensor import Extent, Lazy, Tensor

if TYPE_CHECKING:
    import torch

    from weighbridge.engine.backend import Choice
    from weighbridge.file import File


def address(tensor: Lazy) -> Extent | None:
    """Return where a stored tensor's grains are in a file, in this machine's order.

    None stands for grains that have to be made, or are in memory.
    """
    if not isinstance(tensor, Tensor) or not isinstance(tensor.encoding, Dense | Blocked):
        return None
    where = tensor.parts[DATA]
    return where if isinstance(where, Extent) and where.order == "<" else None


class Views:
    """Gives views of files, each of which is mapped once.

    The maps are private: writing to a view never reaches the file.
    """

    def __init__(self, backend: str) -> None:
        """Take ``auto``, ``mmap`` or ``pread``; the last gives no views.

        Raises:
            InvalidInput: (rule ``backend``) for another word.
        """
        check_backend(backend)
        self._backend = backend
        self._choices: dict[File, Choice] = {}
        self._maps: dict[File, mmap.mmap] = {}
        self._misaligned: Counter[File] = Counter()

    def view(self, tensor: Lazy, target: Dense) -> torch.Tensor | None:
        """Return a tensor's numbers without reading them; None: they have to be filled in."""
        if tensor.encoding.name != target.name:
            return None
        where = address(tensor)
        if where is None:
            return None
        if self._chosen(where.file).backend != MMAP:
            return None
        if where.offset % target.dtype.itemsize:
            self._misaligned[where.file] += 1
            return None
        return self._view(tensor, where, target)

    def tell(self) -> None:
        """Log what was done with each file, and why."""
        for file, choice in self._choices.items():
            LOG.info("%s: %s, because %s", file.path, choice.backend, choice.reason)
            if self._misaligned[file]:
                LOG.info(
                    "%s: %d tensors are read, because the file does not align their numbers",
                    file.path,
                    self._misaligned[file],
                )

    def _chosen(self, file: File) -> Choice:
        if file not in self._choices:
            self._choices[file] = choose(file, self._backend)
        return self._choices[file]

    def _view(self, tensor: Lazy, where: Extent, target: Dense) -> torch.Tensor:
        torch = import_torch()
        dtype = torch_dtype(target)
        if not where.length:
            return torch.empty(tensor.shape, dtype=dtype)  # type: ignore[no-any-return]
        if where.file not in self._maps:
            self._maps[where.file] = where.file.mapped(mmap.ACCESS_COPY)
        flat = torch.frombuffer(
            self._maps[where.file], dtype=dtype, count=tensor.size, offset=where.offset
        )
        return flat.view(tensor.shape)  # type: ignore[no-any-return]
