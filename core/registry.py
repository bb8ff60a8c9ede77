"""Formats, dialects, architectures, encodings, runtimes, commands: entry points, loaded late."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from weighbridge.errors import Error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.arch import Arch
    from weighbridge.dialect import Dialect
    from weighbridge.format import Format
    from weighbridge.kernels.codec import Codec
    from weighbridge.packing import Packing
    from weighbridge.runtimes.base import Runtime


@cache
def found(group: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of a group by name.

    Raises:
        Error: (rule ``duplicate-plugin``) when two distributions register one name differently.
    """
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"weighbridge.{group}"):
        known = points.setdefault(point.name, point)
        if known.value != point.value:
            raise Error(
                f"two plugins register the {group.removesuffix('s')} '{point.name}'",
                rule="duplicate-plugin",
                got=f"{known.value} and {point.value}",
                hint="uninstall one of them",
            )
    return points


@cache
def load(group: str, name: str) -> Any:
    """Return what an entry point names.

    Raises:
        Error: (rule ``unknown-plugin``) when there is none, (rule ``broken-plugin``) when it cannot
            be imported.
    """
    points = found(group)
    if name not in points:
        raise Error(
            f"there is no {group.removesuffix('s')} '{name}'",
            rule="unknown-plugin",
            expected=f"one of {', '.join(sorted(points)) or 'none'}",
        )
    try:
        return points[name].load()
    except Exception as error:  # whatever the module of a stranger does when it is imported
        raise Error(
            f"the plugin {points[name].value} cannot be loaded: {error}", rule="broken-plugin"
        ) from error


def all_of(group: str) -> dict[str, Any]:
    """Return everything that a group registers, by name."""
    return {name: load(group, name) for name in found(group)}


def formats() -> Mapping[str, Format]:
    """Return every container format by name."""
    return all_of("formats")


def dialect(name: str) -> Dialect:
    """Return a dialect by name."""
    found_dialect: Dialect = load("dialects", name)
    return found_dialect


def architectures() -> Mapping[str, Arch]:
    """Return every model family by its own name."""
    return all_of("architectures")


def runtimes() -> Mapping[str, Runtime]:
    """Return every runtime by name."""
    return all_of("runtimes")


def packings() -> Mapping[str, Packing]:
    """Return every way to store quantised weights, by its ``quant_method``."""
    return all_of("packings")


def encodings() -> Mapping[str, Codec]:
    """Return the codecs that other distributions add to the built-in ones."""
    return all_of("encodings")
