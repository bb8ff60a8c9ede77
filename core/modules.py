"""Weights of any file into a torch module that is there, a meta module included."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from weighbridge.api import named_tensors
from weighbridge.api import open as open_model
from weighbridge.encoding import is_float
from weighbridge.engine.device import device_of
from weighbridge.engine.load import MEMORY, Options, Request, load_tensors
from weighbridge.engine.torch_types import dtype_named, encoding_of, import_torch
from weighbridge.errors import Error, InvalidFile, InvalidPlan

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    import torch

    from weighbridge.encoding import Dense
    from weighbridge.engine.progress import Progress
    from weighbridge.model import Model
    from weighbridge.tensor import Lazy

LOG = logging.getLogger("weighbridge.load")


class LoadedInto(NamedTuple):
    """What did not match.

    Attributes:
        missing: tensors of the module that the file lacks.
        unexpected: tensors of the file that the module has no place for.
        unset: buffers that no state dict has and that are on the meta device still: the module's
            author, not the file, says what is in them.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    unset: tuple[str, ...]


@dataclass
class Place:
    """A parameter or buffer of a module, under all the names that share it.

    Attributes:
        held: the parameter or buffer.
        owners: the modules that have it, each with the attribute's name.
        names: its names in the state dict.
    """

    held: torch.Tensor
    owners: list[tuple[Any, str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def request(self, tensor: Lazy, dtype: Dense | None) -> Request:
        """Return what is to be loaded: into the memory that is there, where it is right."""
        own = encoding_of(self.held.dtype, self.names[0])
        target = dtype if dtype and is_float(own) else own
        fits = not self.held.is_meta and self.held.is_contiguous() and target == own
        return Request(tensor, target, self.held.detach() if fits else None)

    def take(self, values: torch.Tensor) -> None:
        """Hold other memory from now on, under all names."""
        torch = import_torch()
        if not self.held.is_meta:
            self.held.data = values
            return
        held = values
        if isinstance(self.held, torch.nn.Parameter):
            held = torch.nn.Parameter(values, requires_grad=self.held.requires_grad)
        for owner, name in self.owners:
            setattr(owner, name, held)


def load_into(
    module: torch.nn.Module,
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    *,
    strict: bool = True,
    names: str = "hf",
    backend: str = "auto",
    threads: int | None = None,
    memory: int | str = MEMORY,
    progress: bool | Progress = False,
) -> LoadedInto:
    """Load a file's weights into a module, without a second copy of them.

    What has memory is filled where it is, on its own device. What is on the meta device is given
    the tensors that `weighbridge.load` would return, views of the file included. All is checked
    before a number is read. Tied tensors stay tied; of their names the file needs one.

    Args:
        module: any module of torch.
        path: a file, an index of shards, or a checkpoint directory.
        device: where tensors go that are on the meta device.
        dtype: what floating-point tensors become; None keeps the dtypes of the module.
        strict: whether a missing or an unexpected tensor is an error.
        names: ``hf`` for Hugging Face's names and shapes, ``source`` for the file's own.
        backend: as for `weighbridge.load`; so are the rest.
        threads: how many threads read and decode; None takes one for each core.
        memory: the most memory to use beside the weights.
        progress: True shows a bar; a function is told of every piece.

    Returns:
        What did not match, by name.

    Raises:
        InvalidPlan: (rules ``missing-tensor``, ``unexpected-tensor``) for names that do not match,
            where that is asked for, (rule ``tensor-shape``) for shapes that do not; with each.
        Error: as `weighbridge.load` does.

    Example:
        >>> import tempfile, torch, weighbridge
        >>> with torch.device("meta"):
        ...     layer = torch.nn.Linear(2, 1, bias=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = weighbridge.save_file({"weight": torch.ones(1, 2)}, folder + "/x.safetensors")
        ...     load_into(layer, folder + "/x.safetensors")
        LoadedInto(missing=(), unexpected=(), unset=())
        >>> layer.weight
        Parameter containing:
        tensor([[1., 1.]], requires_grad=True)
    """
    device_of(device)
    wanted = None if dtype is None else dtype_named(str(dtype))
    options = Options(backend, memory, threads, progress)
    places = list(_places(module))
    with open_model(path) as model:
        tensors = named_tensors(model, names)
        found = {
            place.names[0]: (place, tensors[name])
            for place in places
            for name in place.names
            if name in tensors
        }
        report = _report(module, places, tensors, found)
        _check(model, found, report, strict=strict)
        for there, group in _by_device(found, device, wanted).items():
            loaded = load_tensors(group, device_of(there), options)
            for name, request in group.items():
                if request.memory is None:
                    found[name][0].take(loaded[name])
    if report.unset:
        LOG.warning("still on the meta device, and in no file: %s", ", ".join(report.unset))
    return report


def _places(module: torch.nn.Module) -> Iterator[Place]:
    """Yield every parameter and buffer of the state dict once, with all its names."""
    found: dict[int, Place] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        held = owner._parameters | _lasting(owner)
        for name, tensor in held.items():
            if tensor is None:
                continue
            place = found.setdefault(id(tensor), Place(tensor))
            place.owners.append((owner, name))
            place.names.append(f"{prefix}.{name}" if prefix else name)
    yield from found.values()


def _lasting(owner: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    passing = owner._non_persistent_buffers_set
    return {name: held for name, held in owner._buffers.items() if name not in passing}


def _report(
    module: torch.nn.Module,
    places: list[Place],
    tensors: Mapping[str, Lazy],
    found: Mapping[str, object],
) -> LoadedInto:
    known = {name for place in places for name in place.names}
    missing = tuple(place.names[0] for place in places if place.names[0] not in found)
    unset = tuple(n for n, b in module.named_buffers() if b.is_meta and n not in known)
    return LoadedInto(missing, tuple(name for name in tensors if name not in known), unset)


def _check(
    model: Model,
    found: Mapping[str, tuple[Place, Lazy]],
    report: LoadedInto,
    *,
    strict: bool,
) -> None:
    problems: list[Error] = []
    if strict:
        problems += [
            InvalidFile("is missing", rule="missing-tensor", path=model.path, tensor=name)
            for name in report.missing
        ]
        problems += [
            InvalidFile(
                "has no place in the module",
                rule="unexpected-tensor",
                path=model.path,
                tensor=name,
                hint="give strict=False to leave it out",
            )
            for name in report.unexpected
        ]
    problems += [
        InvalidFile(
            "has another shape than the module's",
            rule="tensor-shape",
            path=model.path,
            tensor=name,
            got=list(tensor.shape),
            expected=list(place.held.shape),
        )
        for name, (place, tensor) in found.items()
        if tensor.shape != tuple(place.held.shape)
    ]
    if problems:
        raise InvalidPlan(problems)


def _by_device(
    found: Mapping[str, tuple[Place, Lazy]], device: str | torch.device, dtype: Dense | None
) -> dict[str, dict[str, Request]]:
    """Return what is to be loaded to each device."""
    groups: dict[str, dict[str, Request]] = {}
    for name, (place, tensor) in found.items():
        there = str(device if place.held.is_meta else place.held.device)
        groups.setdefault(there, {})[name] = place.request(tensor, dtype)
    return groups
