"""Which family a model is of: by its config, or by what a container says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from weighbridge.arch import Arch
    from weighbridge.metadata import Metadata
    from weighbridge.model import Config
    from weighbridge.tensor import Lazy


def find(architectures: Iterable[Arch], config: Config) -> Arch:
    """Return the family of a config by its ``architectures``, or by its ``model_type``.

    Raises:
        Error: (rule ``unknown-family``) when none covers it.
    """
    known = list(architectures)
    wanted = config.get("architectures") or []
    classes = [str(name) for name in wanted] if isinstance(wanted, list) else [str(wanted)]
    for arch in known:
        if any(name in arch.classes for name in classes):
            return arch
    for arch in known:
        if not classes and config.get("model_type") == arch.model_type:
            return arch
    raise unknown(", ".join(classes) or config.get("model_type"), (a.classes for a in known))


def find_by_name(
    architectures: Iterable[Arch], name: object, metadata: Metadata, tensors: Mapping[str, Lazy]
) -> Arch:
    """Return the family that GGUF's ``general.architecture`` names.

    Several families may share a name (Mixtral is a ``llama``): `Arch.marks` tells them apart.

    Raises:
        Error: (rule ``unknown-family``) when none has that name.
    """
    known = list(architectures)
    named = [arch for arch in known if arch.name == name]
    marked = [arch for arch in named if arch.marks and arch.marks(metadata, tensors)]
    for arch in (*marked, *(arch for arch in named if arch.marks is None)):
        return arch
    raise unknown(name, ((arch.name,) for arch in known))


def unknown(got: object, known: Iterable[Sequence[str]]) -> Error:
    """Return the error of a family that no rule is known for."""
    return Error(
        "no rule is known for this model family",
        rule="unknown-family",
        got=got,
        expected=f"one of {', '.join(sorted(name for names in known for name in names))}",
        hint="--weights-only moves tensors under their own names",
    )
