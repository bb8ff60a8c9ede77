"""Writing a model as a format lays it out: through the engine, as a conversion does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.layout import Layout, LayoutOptions, Slot
from weighbridge.steps import Plan, Step

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.format import Format
    from weighbridge.model import Model


def write(
    container: Format,
    model: Model,
    target: Path,
    options: LayoutOptions | None = None,
    *,
    weights: bool = True,
) -> Layout:
    """Write `model`, which is in the format's own dialect and encodings, to `target`.

    Args:
        container: the format.
        model: what is written.
        target: a file or a directory that does not exist.
        options: the target's shape on disk.
        weights: whether the slots are filled; otherwise the files are sparse.
    """
    layout = container.layout(model, target.name, options or LayoutOptions())
    if not weights:
        _write_sparse(layout, target if container.directory else target.parent)
        return layout
    slots: dict[str, dict[str, Slot]] = {}
    for (name, part), slot in layout.slots.items():
        slots.setdefault(name, {})[part] = slot
    steps = tuple(Step(name, model.tensors[name], parts) for name, parts in slots.items())
    plan = Plan(
        source=model,
        target=target,
        format=container.name,
        directory=container.directory,
        replaces=frozenset(),
        model=model,
        layout=layout,
        steps=steps,
        problems=(),
        notes=(),
    )
    plan.run(memory="16GB", threads=1)
    return layout


def _write_sparse(layout: Layout, folder: Path) -> None:
    """Write the headers; the engine would reserve the disk's room for the weights as well."""
    for file in layout.files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.truncate(file.size)
            for offset, content in file.pieces:
                stream.seek(offset)
                stream.write(content)


def written_path(layout: Layout, target: Path) -> Path:
    """Return what is to be opened: the target, or where it was cut into shards, their index."""
    return target if target.exists() else target.with_name(layout.files[-1].name)
