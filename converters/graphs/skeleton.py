"""A model of transformers that has everything but its weights."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from weighbridge.converters.graphs.expressions import Named
from weighbridge.converters.graphs.quiet import quiet
from weighbridge.converters.graphs.recorded import Recorded, recorded
from weighbridge.encoding import Dense
from weighbridge.engine.torch_types import torch_dtype
from weighbridge.errors import InvalidPlan, Unsupported
from weighbridge.transformers import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import EllipsisType

    from transformers import PreTrainedModel

    from weighbridge.converters.graphs.expressions import Made
    from weighbridge.model import Model
    from weighbridge.tensor import Lazy

POOLER = "pooler."


@dataclass(frozen=True)
class Skeleton:
    """A model whose parameters take no memory.

    Attributes:
        module: in evaluation mode.
        expressions: the address of a parameter's storage -> what it stands for.
    """

    module: PreTrainedModel
    expressions: Mapping[int, Named | Made]


@dataclass(frozen=True)
class Entry:
    """A tensor of a state dict that is recorded when transformers takes it."""

    name: str
    tensor: Lazy

    def __getitem__(self, index: EllipsisType) -> Entry:
        """Return all of it."""
        del index
        return self

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Recorded:
        """Return what stands for it."""
        del device
        encoding = self.tensor.encoding
        own = torch_dtype(encoding) if isinstance(encoding, Dense) else torch.float32
        return recorded(Named(self.name), self.tensor.shape, dtype or own)


def skeleton(model: Model, place: Path, model_class: str, dtype: str) -> Skeleton:
    """Return a model of transformers without weights.

    Args:
        model: canonical, with a config.
        place: a directory with its config and side files.
        model_class: the class, or an automatic one, by name.
        dtype: of the parameters, as torch calls it.

    Raises:
        Unsupported: (rule ``no-head``) when the checkpoint lacks weights of the class, (rule
            ``model-class``) when transformers has no such class for it, (rule ``transformers``)
            for what transformers refuses.
    """
    with quiet():
        making = prepare(model, place, dtype, model_class, {})
    options = _without_pooler(making.kind, model)
    making = replace(making, arguments={**making.arguments, **options})
    entries = {name: Entry(name, tensor) for name, tensor in model.tensors.items()}
    try:
        with quiet():
            module = making.make(entries)
    except InvalidPlan as error:
        raise _no_head(model, making.kind.__name__, error) from error
    module.train(mode=False)
    return Skeleton(module, dict(_plain(module)))


def _without_pooler(kind: Any, model: Model) -> dict[str, Any]:
    """Return what tells a class to leave out a pooler that the checkpoint does not have."""
    takes = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    has = any(POOLER in name for name in model.tensors)
    return {"add_pooling_layer": False} if takes and not has else {}


def _no_head(model: Model, wanted: str, error: InvalidPlan) -> Unsupported:
    lacking = [problem.tensor for problem in error.problems]
    return Unsupported(
        f"lacks weights of {wanted}, as {lacking[0]}",
        rule="no-head",
        path=model.path,
        got=", ".join((model.config or {}).get("architectures") or ["no architectures"]),
        expected=f"a checkpoint of {wanted}",
        hint="choose another task with --task",
    )


def _plain(module: torch.nn.Module) -> Iterator[tuple[int, Named | Made]]:
    """Make the recorded parameters and buffers plain tensors, and yield what they stand for.

    What is not recorded transformers made by itself, such as positions that are sines: that is
    part of the graph.

    Raises:
        Unsupported: (rule ``weight-operation``) for what is made of the checkpoint's tensors
            otherwise than by moving numbers.
    """
    plain: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for held in (owner._parameters, owner._buffers):
            for name, tensor in held.items():
                if not isinstance(tensor, Recorded):
                    continue
                if tensor.expression is None:
                    raise Unsupported(
                        "transformers computes a weight in a way that no graph can be made for",
                        rule="weight-operation",
                        got=f"{name} of {type(owner).__name__}",
                    )
                if id(tensor) not in plain:
                    plain[id(tensor)] = _unrecorded(tensor, held is owner._parameters)
                    yield tensor.untyped_storage().data_ptr(), tensor.expression
                held[name] = plain[id(tensor)]  # type: ignore[assignment]


def _unrecorded(tensor: Recorded, parameter: bool) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        plain = tensor.detach().as_subclass(torch.Tensor)
        return torch.nn.Parameter(plain, requires_grad=False) if parameter else plain
