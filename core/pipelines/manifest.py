"""What an exported directory says of itself: ``export.json``, checked before anything is loaded.

transformers' exporters write it: ``{"schema_version": 1, "export_format": "onnx", "components":
{name: {"file": ..., "metadata": {"architecture": ..., "kwargs": ...}}}}``. An export of ours adds
``"weighbridge": {"task": ...}`` to it, or to the metadata of its components.

Source: ``transformers/exporters/base.py`` and ``metadata.py`` of transformers 5.23.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighbridge.errors import InvalidFile, NotFound, Unsupported
from weighbridge.graph import MANIFEST, OURS
from weighbridge.pipelines.structures import check_structures
from weighbridge.sidefiles import CONFIG, parse_json
from weighbridge.tensor_names import model_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.model import Config

ONNX = "onnx"

WHOLE = "model"
"""The component that is the model itself, not a stage of it."""


@dataclass(frozen=True)
class Manifest:
    """An exported directory.

    Attributes:
        directory: where it is.
        config: its config.json.
        components: what the manifest says of each graph, by name.
        task: what it was exported for, None where nothing tells.
    """

    directory: Path
    config: Config
    components: Mapping[str, Mapping[str, Any]]
    task: str | None

    @property
    def architecture(self) -> str:
        """Return the class of transformers that the export is of, nothing where nothing tells."""
        traced = {name: _metadata(entry) for name, entry in self.components.items()}
        whole = traced.get(WHOLE, {}).get("architecture")
        stages = (stage.get("architecture") for stage in reversed(traced.values()))
        return str(whole or model_class(self.config) or next(stages, None) or "")


def is_export(path: Path) -> bool:
    """Return whether a path is a directory with a manifest."""
    return (path / MANIFEST).is_file()


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest and the config of a directory.

    Raises:
        NotFound: (rule ``no-export``) without a manifest.
        InvalidFile: (rule ``export-manifest``) for one that is broken, or names files elsewhere,
            (rule ``export-structure``) for one that names classes it should not.
        Unsupported: (rule ``export-format``) for an export that is not ONNX.

    Example:
        >>> import json, tempfile
        >>> entry = {"file": "model.onnx", "metadata": {"architecture": "BertModel"}}
        >>> written = {"export_format": "onnx", "components": {"model": entry}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     _ = (place / "export.json").write_text(json.dumps(written))
        ...     _ = (place / "model.onnx").write_bytes(b"")
        ...     read_manifest(place).architecture
        'BertModel'
    """
    place = directory / MANIFEST
    if not is_export(directory):
        raise NotFound(
            f"is no exported directory: it has no {MANIFEST}", rule="no-export", path=directory
        )
    document = parse_json(place.read_bytes(), place)
    if document.get("export_format") != ONNX:
        raise Unsupported(
            "is an export that ONNX Runtime does not run",
            rule="export-format",
            path=place,
            got=document.get("export_format"),
            expected=ONNX,
        )
    components = _components(document, place)
    settings = directory / CONFIG
    config = parse_json(settings.read_bytes(), settings) if settings.is_file() else {}
    return Manifest(directory, config, components, _task(document, components))


def _components(document: Config, place: Path) -> Mapping[str, Mapping[str, Any]]:
    components = document.get("components")
    if not isinstance(components, dict) or not components:
        raise _broken("names no components", place)
    for name, entry in components.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("metadata"), dict):
            raise _broken(f"says nothing of the component '{name}'", place)
        file = entry.get("file")
        if not isinstance(file, str) or Path(file).name != file or "\\" in file:
            raise _broken(f"names a file of '{name}' that is not beside it", place, file)
        if not (place.parent / file).is_file():
            raise _broken(f"names a file of '{name}' that is not there", place, file)
        check_structures(_metadata(entry), place)
    return components


def _broken(problem: str, place: Path, got: object = None) -> InvalidFile:
    return InvalidFile(problem, rule="export-manifest", path=place, got=got)


def _metadata(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = entry["metadata"]
    return found


def _task(document: Config, components: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the task that is written first: for the whole, for a component, in its metadata."""
    notes = (place.get(OURS) for place in _places(document, components))
    tasks = (note.get("task") for note in notes if isinstance(note, dict))
    return next((task for task in tasks if isinstance(task, str)), None)


def _places(
    document: Config, components: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    yield document
    for entry in components.values():
        yield entry
        yield _metadata(entry)
