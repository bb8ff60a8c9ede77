"""The source tree and the names that it is installed under."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

PACKAGES: dict[str, str] = {folder: name for name, folder in SETUPTOOLS["package-dir"].items()}
"""Top-level source folder -> the package that it is installed as."""


_NEED_TRITON = ["core/kernels/device/fused.py", "core/kernels/device/fused_encoders.py"]

UNIMPORTABLE = [] if find_spec("triton") else _NEED_TRITON
"""Modules of what is not installed: Triton takes a gigabyte, and works on a GPU."""


def source_files(folder: str) -> list[Path]:
    """List what a source folder ships, relative to the root and without caches."""
    files = (
        path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob("*")) if path.is_file()
    )
    return [path for path in files if "__pycache__" not in path.parts]


def module_name(path: Path) -> str | None:
    """Name the installed module (or package) at a path; None outside the source folders.

    Example:
        >>> module_name(ROOT / "core/engine/__init__.py"), module_name(ROOT / "formats/gguf.py")
        ('weighbridge.engine', 'weighbridge.formats.gguf')
        >>> module_name(ROOT / "tests/conftest.py"), module_name(ROOT)
        (None, None)
    """
    if ROOT not in path.parents:
        return None
    folder, *parts = path.relative_to(ROOT).with_suffix("").parts
    if folder not in PACKAGES:
        return None
    return ".".join([PACKAGES[folder], *(part for part in parts if part != "__init__")])


def modules(*folders: str) -> list[str]:
    """Name every module of the given folders, but for those that run when they are imported."""
    files = [ROOT / path for folder in folders for path in source_files(folder)]
    left_out = {ROOT / path for path in UNIMPORTABLE}
    names = (module_name(path) for path in files if path.suffix == ".py" and path not in left_out)
    return [name for name in names if name and not name.endswith(".__main__")]


def run_python(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter that sees the installed package only; return its output."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout
