"""The package is what the tree says: its files, its names and who imports whom."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest
from support.tree import PACKAGES, ROOT, SETUPTOOLS, modules, run_python, source_files

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Layer -> the layers that it may import. `core` is the whole of `weighbridge` but for the others.
MAY_IMPORT = {
    "core": {"core"},
    "formats": {"core", "formats"},
    "converters": {"core", "converters"},
    "benchmarks": {"core", "formats", "converters", "benchmarks"},
}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist, and a wheel from that sdist, out of a clean copy of the tree."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for path in (path for folder in PACKAGES for path in source_files(folder)):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tree / path)
    command = [
        sys.executable,
        "-P",
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(out),
        str(tree),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_holds_every_file_of_the_tree_and_no_other(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        "/".join([*package.split("."), *path.parts[1:]])
        for folder, package in PACKAGES.items()
        for path in source_files(folder)
    }
    assert packed == expected


def test_the_sdist_holds_what_builds(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path) for folder in PACKAGES for path in source_files(folder)}
    assert packed >= sources | {"pyproject.toml", "README.md", "LICENSE"}


def test_the_wheel_is_typed_and_carries_the_licence(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "weighbridge/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_folder_with_modules_is_a_listed_package() -> None:
    folders = {path.parent for folder in PACKAGES for path in source_files(folder)}
    found = {".".join([PACKAGES[path.parts[0]], *path.parts[1:]]) for path in folders}
    assert sorted(found) == sorted(SETUPTOOLS["packages"])


@pytest.mark.parametrize("group", sorted(PROJECT["entry-points"]))
def test_every_entry_point_loads(group: str) -> None:
    installed = {point.name: point for point in entry_points(group=group)}
    assert set(installed) >= set(PROJECT["entry-points"][group])
    for name in PROJECT["entry-points"][group]:
        assert installed[name].load() is not None


def test_source_folders_are_never_imported_as_top_level_names() -> None:
    code = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = set(json.loads(run_python(code, *modules("core", "formats", "converters"))))
    assert "weighbridge.formats" in loaded
    assert not set(PACKAGES) & loaded
    assert not set(PACKAGES) & set(sys.modules)


@pytest.mark.parametrize("folder", sorted(PACKAGES))
def test_layers_import_downwards_only(folder: str) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in source_files(folder)
        if path.suffix == ".py"
        for line, name in imports(ast.parse((ROOT / path).read_text()))
        if name.split(".")[0] == "weighbridge" and layer(name) not in MAY_IMPORT[folder]
    ]
    assert wrong == []


def imports(tree: ast.Module) -> list[tuple[int, str]]:
    """List every imported name with its line, wherever in the module it stands."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def layer(name: str) -> str:
    """Say which source folder an installed name comes from.

    Example:
        >>> layer("weighbridge.formats.gguf"), layer("weighbridge.tensor.Tensor")
        ('formats', 'core')
    """
    second = name.split(".")[1:2]
    return second[0] if second and second[0] in PACKAGES else "core"
