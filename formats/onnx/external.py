"""Weights that lie in other files, whose paths a model file gives and nobody should believe.

Source: ``onnx.proto``, ``TensorProto.external_data``. A location is a relative path, resolved
against the directory in which the model's path, as it was given, lies. What it leads to, symbolic
links followed, must be inside that directory, with one exception: in the cache of Hugging Face
(``<repo>/snapshots/<revision>/...``) files are links into ``<repo>/blobs``, so there the blobs of
the same repository are allowed too, as long as ``blobs`` itself is a directory and no link.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from weighbridge.errors import Error, InvalidFile, InvalidInput, NotFound
from weighbridge.file import File
from weighbridge.tensor import Extent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Dense
    from weighbridge.region import Shape

KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
"""The keys that the specification or the ``onnx`` package gives a meaning; others are ignored."""

MAX_DIGITS = 19


class ExternalFiles:
    """The files beside a model that its tensors point into, each opened once.

    Attributes:
        path: the model's path, as it was given.
        files: those that were opened, by location.
    """

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self.path = path
        self.files: dict[str, File] = {}

    def extent(
        self, entries: Mapping[str, str], tensor: str, encoding: Dense, shape: Shape
    ) -> Extent:
        """Return the address that a tensor's ``external_data`` gives.

        Args:
            entries: its keys and values, out of `KEYS`.
            tensor: the tensor's name.
            encoding: how its numbers are stored.
            shape: its shape.

        Raises:
            InvalidFile: (rules ``external-location``, ``external-number``, ``data-length``,
                ``external-escape``, ``not-a-file``, ``truncated``).
            NotFound: (rule ``not-found``) when there is no such file.
        """
        expected = encoding.nbytes(shape)
        offset = self._number(entries.get("offset", "0"), "offset", tensor)
        length = self._number(entries.get("length", str(expected)), "length", tensor)
        if length != expected:
            raise self._invalid(
                "its external data do not have the length of its shape",
                "data-length",
                tensor,
                got=f"{length} bytes",
                expected=f"{expected} bytes",
            )
        file = self.file(entries.get("location", ""), tensor)
        if offset + length > file.size:
            raise self._invalid(
                f"its external data end after {file.path}",
                "truncated",
                tensor,
                got=f"{file.size} bytes",
                expected=f"at least {offset + length} bytes",
            )
        return Extent(file, offset, length)

    def _number(self, text: str, key: str, tensor: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
            raise self._invalid(
                f"the {key} of its external data is no size", "external-number", tensor, got=text
            )
        return int(text)

    def file(self, location: str, tensor: str) -> File:
        """Return the file at a location that a tensor gives.

        Raises:
            InvalidFile: (rules ``external-location``, ``external-escape``, ``not-a-file``).
            NotFound: (rule ``not-found``) when there is no such file.
        """
        if location not in self.files:
            self.files[location] = self._opened(self._resolved(location, tensor), location, tensor)
        return self.files[location]

    def _opened(self, path: Path, location: str, tensor: str) -> File:
        try:
            return File(path)
        except NotFound:
            hint = "the model's path is a link: its data are looked for beside the link"
            raise NotFound(
                f"its external data '{location}' are missing",
                rule="not-found",
                path=self.path,
                tensor=tensor,
                hint=hint if self.path.is_symlink() else None,
            ) from None
        except InvalidInput as error:
            raise self._invalid(
                f"its external data '{location}' cannot be read: it {error.problem}",
                error.rule,
                tensor,
            ) from None

    def _resolved(self, location: str, tensor: str) -> Path:
        """Return the path that a location leads to, once it is known to be harmless."""
        if not _is_plain(location):
            raise self._invalid(
                "the location of its external data is no relative path below the model",
                "external-location",
                tensor,
                got=location,
            )
        directory = Path(os.path.realpath(self.path.parent))
        try:
            target = Path(os.path.realpath(directory / location))
        except (OSError, ValueError) as error:
            raise self._invalid(
                f"the location of its external data is no path: {error}",
                "external-location",
                tensor,
            ) from None
        if not any(target.is_relative_to(root) for root in allowed_roots(directory)):
            raise self._invalid(
                f"its external data '{location}' lead out of the model's directory",
                "external-escape",
                tensor,
                got=target,
                expected=f"below {directory}",
                hint="replace the symbolic link by the file",
            )
        return target

    def _invalid(
        self,
        problem: str,
        rule: str,
        tensor: str,
        *,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> Error:
        return InvalidFile(
            problem,
            rule=rule,
            path=self.path,
            tensor=tensor,
            got=got,
            expected=expected,
            hint=hint,
        )


def _is_plain(location: str) -> bool:
    """Tell whether a location is a relative path that does not climb, on any system."""
    paths = (PurePosixPath(location), PureWindowsPath(location))
    climbs = any(path.anchor or ".." in path.parts for path in paths)
    return bool(location) and "\0" not in location and not climbs


def allowed_roots(directory: Path) -> tuple[Path, ...]:
    """Return the directories in which external data of models in `directory` may lie.

    Args:
        directory: without symbolic links.
    """
    for snapshots in directory.parents:
        if snapshots.name == "snapshots":
            blobs = snapshots.with_name("blobs")
            if blobs.is_dir() and not blobs.is_symlink():
                return directory, blobs
    return (directory,)
