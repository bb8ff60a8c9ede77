"""A directory of ONNX graphs as one model: its components, config and side files.

Its components are those that ``export.json`` names, as ``transformers.exporters`` writes it
(``ExportedModel.save_pretrained``); without one, every ONNX file of the directory, or of its
sub-directory ``onnx``, as Optimum leaves them on the hub. config.json and the side files are the
directory's own, or those of the one above where it is called ``onnx``.

Tensors have the names that they have in their graphs. What several components share, the same
bytes of one file, is one tensor; where two others have one name, the later ones get their
component's before it, with ``::`` between.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge import registry
from weighbridge.encoding import DATA
from weighbridge.errors import InvalidFile, NotFound, Unsupported
from weighbridge.format import Format
from weighbridge.formats import directory
from weighbridge.formats.onnx.components import lay_out_components
from weighbridge.graph import MANIFEST, Graph
from weighbridge.model import Model
from weighbridge.tensor import Extent, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from weighbridge.layout import Layout, LayoutOptions
    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.tensor import Lazy

ONNX: Format = registry.load("formats", "onnx")


class OnnxDirectory(Format):
    """A directory as ONNX Runtime is given it: graphs, their weights, and what goes with them."""

    name = "onnx-directory"
    title = "ONNX directory"
    dialect = "onnx"
    encodings = ONNX.encodings
    directory = True
    weights = ONNX.name
    carries_files = True

    def sniff(self, path: Path, head: bytes) -> bool:
        """Tell a directory with ONNX files and without safetensors: those would be the model."""
        del head
        if not path.is_dir():
            return False
        names = directory.names_in(path)
        whole = any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names)
        return not whole and bool(directory.onnx_files(path))

    def open(self, path: Path) -> Model:
        """Open every component's header; side files are read when they are looked at.

        Raises:
            NotFound: (rule ``no-weights``) without any ONNX file, (rule ``not-found``) for one
                that export.json names and that is not there.
            InvalidFile: (rules ``json``, ``manifest``) when export.json names no components, and
                what the format of a single file refuses.
        """
        opened: dict[str, Model] = {}
        try:
            for name, file in components(path).items():
                opened[name] = ONNX.open(path / file)
            return _joined(path, opened)
        except BaseException:
            for model in opened.values():
                model.close()
            raise

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        """Lay out the graphs, their weights, config.json and the side files.

        Raises:
            Unsupported: (rule ``no-graph``) for a model that has no graphs to be written, (rule
                ``options``) for a shape on disk that such a directory cannot have, (rule
                ``file-name``) for a side file that must not be written.
        """
        if not model.components:
            raise Unsupported(
                "has no graphs that could be written",
                rule="no-graph",
                path=name,
                hint="convert the checkpoint that it was made from",
            )
        if options.shard_size is not None or options.external is False:
            raise Unsupported("keeps the weights of a graph in one file beside it", rule="options")
        directory.check_names(model.files)
        return lay_out_components(model)


FORMAT = OnnxDirectory()


def components(path: Path) -> dict[str, str]:
    """Return the components of a directory: name -> file, relative to the directory.

    Raises:
        NotFound: (rules ``no-weights``, ``not-found``).
        InvalidFile: (rules ``json``, ``manifest``).
    """
    if (path / MANIFEST).is_file():
        return _named(path, directory.read_json(path / MANIFEST))
    found = directory.onnx_files(path)
    if not found:
        raise NotFound("has no ONNX files", rule="no-weights", path=path)
    return {file.rpartition("/")[2].removesuffix(directory.ONNX): file for file in found}


def _named(path: Path, manifest: Config) -> dict[str, str]:
    entries = manifest.get("components")
    files = entries if isinstance(entries, dict) else {}
    files = {name: e.get("file") if isinstance(e, dict) else None for name, e in files.items()}
    if not files or not all(isinstance(file, str) for file in files.values()):
        raise InvalidFile(
            "names no ONNX files as components", rule="manifest", path=path / MANIFEST
        )
    present = directory.names_in(path)
    for file in files.values():
        if file not in present:
            raise NotFound(
                f"names a component that is not beside it: {file}",
                rule="not-found",
                path=path / MANIFEST,
            )
    return files


def _joined(path: Path, opened: Mapping[str, Model]) -> Model:
    """Return the components as one model."""
    tensors, names = _unique(opened)
    models = list(opened.values())
    home = directory.home_of(path)
    own: Mapping[str, bytes] = next((model.files for model in models if model.files), {})
    config = next((model.config for model in models if model.config is not None), None)
    return Model(
        format=FORMAT.name,
        dialect=FORMAT.dialect,
        tensors=tensors,
        metadata=_metadata(opened),
        config=directory.read_config(home) if home else config,
        files=directory.onnx_side_files(home) if home else own,
        graph=_graph(opened, names),
        path=path,
        resources=tuple(file for model in models for file in model.resources),
    )


def _unique(opened: Mapping[str, Model]) -> tuple[dict[str, Lazy], dict[str, dict[str, str]]]:
    """Return all tensors under names of their own, and for each component what those are."""
    tensors: dict[str, Lazy] = {}
    places: dict[object, str] = {}
    names: dict[str, dict[str, str]] = {}
    for component, model in opened.items():
        names[component] = {}
        for name, tensor in model.tensors.items():
            place = _place(tensor)
            known = places.get(place) if place else None
            key = known or _free(name, component, tensors)
            names[component][name] = key
            tensors.setdefault(key, tensor)
            if place:
                places[place] = key
    return tensors, names


def _place(tensor: Lazy) -> object:
    """Return where a tensor's bytes are and what they are read as, None where there are none."""
    where = tensor.parts[DATA] if isinstance(tensor, Tensor) else None
    if not isinstance(where, Extent) or not where.length:
        return None
    return str(where.file.path), where.offset, where.length, tensor.shape, tensor.encoding


def _free(name: str, component: str, taken: Mapping[str, Lazy]) -> str:
    while name in taken:
        name = f"{component}::{name}"
    return name


def _metadata(opened: Mapping[str, Model]) -> dict[str, Value]:
    """Return what all components say alike, and what each says otherwise under its name."""
    whole = [model.metadata for model in opened.values()]
    alike = {
        key: value for key, value in whole[0].items() if all(m.get(key) == value for m in whole)
    }
    apart = {
        f"{component}.{key}": value
        for component, model in opened.items()
        for key, value in model.metadata.items()
        if key not in alike
    }
    return alike | apart


def _graph(opened: Mapping[str, Model], names: Mapping[str, Mapping[str, str]]) -> Graph:
    counts: Counter[str] = Counter()
    graphs = {component: model.graph for component, model in opened.items() if model.graph}
    for graph in graphs.values():
        counts.update(graph.nodes)
    return Graph(
        dict(counts),
        _once([name for graph in graphs.values() for name in graph.inputs]),
        _once([name for graph in graphs.values() for name in graph.outputs]),
        tuple(
            replace(program, name=component, tensors=names[component])
            for component, graph in graphs.items()
            for program in graph.programs
        ),
    )


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
