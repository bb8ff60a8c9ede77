"""Plans without a format: tensors one after the other behind a few known bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from support.stored import in_file
from weighbridge import kernels
from weighbridge import region as regions
from weighbridge.encoding import DATA, DENSE
from weighbridge.kernels.ggml import BLOCKED
from weighbridge.layout import Layout, OutputFile, Slot, align, plain_file
from weighbridge.model import Model
from weighbridge.ops import Swap, apply
from weighbridge.recode import recode
from weighbridge.steps import Plan, Step
from weighbridge.target import existing
from weighbridge.tensor import Lazy, Tensor
from weighbridge.testing.models import part_bytes, tensor_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.encoding import Encoding
    from weighbridge.region import Shape

HEADER = b"a header"
ALIGNMENT = 32


def layout_of(tensors: Mapping[str, Lazy], names: tuple[str, ...]) -> Layout:
    """Spread tensors over files, in turn; a file that gets none holds the header alone."""
    slots: dict[tuple[str, str], Slot] = {}
    ends = [len(HEADER)] * len(names)
    for number, (name, tensor) in enumerate(tensors.items()):
        file = number % len(names)
        for part, size in tensor.encoding.sizes(tensor.shape).items():
            offset = align(ends[file], ALIGNMENT)
            slots[name, part] = Slot(file, offset, size)
            ends[file] = offset + size
    sized = zip(names, ends, strict=True)
    return Layout(tuple(OutputFile(name, end, ((0, HEADER),)) for name, end in sized), slots)


def plan_of(
    tensors: Mapping[str, Lazy],
    target: Path,
    *,
    names: tuple[str, ...] = (),
    overwrite: bool = False,
) -> Plan:
    """Return the plan that writes tensors to a file, or to a directory of the files `names`.

    With names and a target of the first of them, the files lie side by side.
    """
    directory = bool(names) and names[0] != target.name
    layout = layout_of(tensors, names or (target.name,))
    if directory:
        layout = Layout((*layout.files, plain_file("sub/config.json", b"{}")), layout.slots)
    parts = {name: list(tensor.encoding.sizes(tensor.shape)) for name, tensor in tensors.items()}
    files = {
        leaf.parts[part].file
        for tensor in tensors.values()
        for leaf in tensor.leaves()
        for part in leaf.parts
        if hasattr(leaf.parts[part], "file")
    }
    model = Model("test", "huggingface", tensors, resources=tuple(files))
    return Plan(
        source=model,
        target=target,
        format="test",
        directory=directory,
        replaces=existing(target, layout, directory=directory) if overwrite else frozenset(),
        model=model,
        layout=layout,
        steps=tuple(
            Step(name, tensor, {part: layout.slots[name, part] for part in parts[name]})
            for name, tensor in tensors.items()
        ),
        problems=(),
        notes=(),
    )


def expected_files(plan: Plan) -> dict[str, bytes]:
    """Return what the files of a plan must hold, by name."""
    assert plan.layout is not None
    contents = {file.name: bytearray(file.size) for file in plan.layout.files}
    for file in plan.layout.files:
        for offset, piece in file.pieces:
            contents[file.name][offset : offset + len(piece)] = piece
    for step in plan.steps:
        for part, data in stored_bytes(step.tensor).items():
            slot = step.slots[part]
            assert slot.length == len(data)
            content = contents[plan.layout.files[slot.file].name]
            content[slot.offset : slot.offset + len(data)] = data
    return {name: bytes(content) for name, content in contents.items()}


def stored_bytes(tensor: Lazy) -> dict[str, bytes]:
    """Return a tensor's parts in little-endian order, computed all at once."""
    if isinstance(tensor, Tensor) and all(
        getattr(p, "order", "<") == "<" for p in tensor.parts.values()
    ):
        return part_bytes(tensor)
    return {DATA: tensor.grains(regions.whole(tensor.grid)).tobytes()}


def written_files(plan: Plan) -> dict[str, bytes]:
    """Return what the files of a plan do hold, by name."""
    assert plan.layout is not None
    folder = plan.target if plan.directory else plan.target.parent
    return {file.name: (folder / file.name).read_bytes() for file in plan.layout.files}


def listing(folder: Path) -> dict[str, bytes | str | None]:
    """Return everything beneath a folder: content, a link's target, None for a directory."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def some_tensors(folder: Path, rows: int = 6) -> dict[str, Lazy]:
    """Return tensors of every route but repack, most of them in files of this folder."""
    in_memory = {
        "q8_0": numbers(BLOCKED["q8_0"], (rows * 4, 64)),
        "f32": numbers(DENSE["f32"], (rows, 5, 7)),
    }
    stored = {name: in_file(t, folder / f"{name}.bytes") for name, t in in_memory.items()}
    return {
        "memory": tensor_of("memory", DENSE["i64"], (rows,)),
        "copied": stored["q8_0"],
        "scalar": numbers(DENSE["f16"], ()),
        "empty": numbers(DENSE["f32"], (0, 4)),
        "odd": tensor_of("odd", DENSE["u4"], (3, 5)),
        "moved": apply(Swap(0, rows, 2, 2), [stored["q8_0"]])[0],
        "swapped": in_file(numbers(DENSE["bf16"], (rows, 3)), folder / "big.bytes", ">"),
        "widened": recode(stored["q8_0"], DENSE["f32"]),
        "rounded": recode(stored["f32"], DENSE["bf16"]),
    }


def numbers(encoding: Encoding, shape: Shape) -> Tensor:
    """Return a tensor of finite numbers, the same for the same shape."""
    values = np.random.default_rng([1, *shape]).standard_normal(shape, np.float32)
    return Tensor("numbers", shape, encoding, {DATA: kernels.encode(encoding, values)})
