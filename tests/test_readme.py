"""What the README says of the package, compared with the package."""

from __future__ import annotations

import re

from support.tree import ROOT

from weighbridge import registry


def test_the_families_are_those_of_the_registry():
    families = registry.architectures()
    known = {name: (f"`{arch.name}`", set(arch.classes)) for name, arch in families.items()}
    assert {name: (gguf, classes) for name, gguf, classes, _ in _rows()} == known


def test_every_family_is_said_to_be_special():
    assert all(special for *_, special in _rows())


def _rows():
    """Return name, GGUF's name, classes and remark of every row of the table of families."""
    text = (ROOT / "README.md").read_text()
    table = text.partition("| family | classes |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        name, classes, gguf, special = (cell.strip() for cell in line.strip("|").split("|"))
        yield name, gguf, set(re.findall(r"`(\w+)`", classes)), special
