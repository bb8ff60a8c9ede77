"""The cases of a user's own models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.api import open as open_model
from weighbridge.benchmarks.conversions import TARGETS, copied
from weighbridge.benchmarks.operations import (
    DECODE,
    FIRST,
    LOAD,
    ONE,
    OPEN,
    SESSION,
    TRANSFORMERS_GGUF,
    to_device,
)
from weighbridge.encoding import Dense

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from weighbridge.benchmarks.case import Case


def cases_of(sources: Sequence[Path], devices: Iterable[str]) -> list[Case]:
    """Return what can be measured with models.

    Args:
        sources: files or checkpoint directories; each is opened to see what it is.
        devices: where to load them.

    Raises:
        Error: when a model cannot be opened.
    """
    devices = list(devices)
    numbers = enumerate(sources, 1)
    labels = [str(number) if len(sources) > 1 else "model" for number, _ in numbers]
    return [
        case
        for label, source in zip(labels, sources, strict=True)
        for case in _cases(source.absolute(), label, devices)
    ]


def _cases(source: Path, label: str, devices: Sequence[str]) -> Iterator[Case]:
    with open_model(source) as model:
        kind = model.format
        encodings = [tensor.encoding for tensor in model.tensors.values()]
        runs = model.graph is not None and bool(model.graph.nodes)
    dense = all(isinstance(encoding, Dense) for encoding in encodings)
    what = f"{source.name} ({{size}})"
    if "cpu" in devices:
        for operation in (OPEN, FIRST, ONE):
            yield operation.case(kind, source, label, what)
        if dense:
            yield LOAD.case(kind, source, label, what, *([SESSION] if runs else []))
        others = [] if dense or kind != "gguf" else [TRANSFORMERS_GGUF]
        yield DECODE.case(kind, source, label, what, *others)
        for target in TARGETS:
            if target != kind:
                yield copied(kind, target, source, label, what)
    for device in devices:
        if device != "cpu":
            yield to_device(device).case(kind, source, label, what)
