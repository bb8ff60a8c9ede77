"""Models and tokenizers that packages carry, read without importing a package."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def folder(package: str) -> Path:
    """Return where a package is: installed, or beside what can be imported (see the Makefile)."""
    apart = Path(sys.prefix) / "models" / package
    if apart.is_dir():
        return apart
    spec = find_spec(package)
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def files(package: str, *names: str) -> dict[str, bytes]:
    """Read files of a package, wherever in it they are."""
    return {name: next(folder(package).rglob(name)).read_bytes() for name in names}
