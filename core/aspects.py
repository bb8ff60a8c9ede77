"""What a config and a container's key-values both say, each in its own words, both ways.

Most of a family is a table of `Param`; the other kinds here state what has no key-value of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.metadata import INTEGERS, Value, scalar

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy, Tensor

LARGEST_F32 = float(np.finfo(np.float32).max)


class Aspect(ABC):
    """One thing that a config and a container's key-values both say, each in its own words."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The key-values that it writes and reads, ``{arch}`` standing for the family's name."""
        return ()

    @property
    def makes(self) -> tuple[str, ...]:
        """The names of the tensors that it may make."""
        return ()

    @abstractmethod
    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the key-values that `config` says; what they cannot say goes into the report.

        Raises:
            Error: when the config lacks or contradicts what is needed.
        """

    @abstractmethod
    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the config entries that these key-values, or the container's tensors, say.

        Raises:
            Error: when they lack what is needed, or say what no config can.
        """

    def read_files(self, files: Mapping[str, bytes]) -> Mapping[str, Value]:
        """Return the key-values that side files say, as sentence-transformers' way of pooling.

        Raises:
            Error: when a file is not what it should be.
        """
        del files
        return {}

    def write_files(self, metadata: Mapping[str, Value]) -> Mapping[str, bytes]:
        """Return the side files that these key-values stand for.

        Raises:
            Error: when they say what no file can.
        """
        del metadata
        return {}

    def revised_files(
        self, files: Mapping[str, bytes], metadata: Mapping[str, Value]
    ) -> dict[str, bytes]:
        """Return `files` with what the key-values say in place of what they said."""
        return {**files, **self.write_files(metadata)}

    def tensors(self, config: Config) -> Sequence[Tensor]:
        """Return the tensors that the container wants and that follow from the config alone."""
        del config
        return ()

    def revised(
        self, config: Config, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> dict[str, Any]:
        """Return `config` with what the key-values say in place of what it said."""
        revised = dict(config)
        merge(revised, self.to_config(metadata, tensors))
        return revised


@dataclass(frozen=True)
class Param(Aspect):
    """A config key that is a key-value.

    Attributes:
        config: the key in ``config.json``; dots lead into nested objects.
        key: the key-value's name, with ``{arch}`` for the family's.
        type: the key-value's type.
        default: what holds where the config does not say, as a function of the config; None where
            the config must say it.
        required: whether one of them must say it; otherwise it may be left out on both sides.
        aliases: what other versions of transformers, or a class's ``attribute_map``, call the key
            in ``config.json``; there they win.

    Example:
        >>> from weighbridge.report import Report
        >>> width = Param("hidden_size", "{arch}.embedding_length", "u32")
        >>> width.to_metadata({"hidden_size": 64}, Report())
        {'{arch}.embedding_length': Value(type='u32', data=64, items=None)}
        >>> width.to_config({"{arch}.embedding_length": scalar("u32", 64)}, {})
        {'hidden_size': 64}
    """

    config: str
    key: str
    type: str
    default: Callable[[Config], Any] | None = None
    required: bool = True
    aliases: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return (self.key,)

    def value(self, config: Config) -> Any:
        """Return what the config says, else the default, None where there is neither."""
        data = lookup(config, self._spelling(config))
        return self.default(config) if data is None and self.default is not None else data

    def count(self, config: Config) -> int:
        """Return the value as a number of something, at least 1; see `integer`."""
        return _counted(self.value(config), self.config)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the key-value, or nothing where it is left out."""
        del report
        data = self.value(config)
        if data is None:
            if self.required:
                raise missing(self.config)
            return {}
        return {self.key: typed(self.type, data, self.config)}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the config entry, nested as its dots say."""
        del tensors
        if self.key not in metadata:
            if self.required and self.default is None:
                raise InvalidFile(f"lacks the key-value {self.key}", rule="missing-key")
            return {}
        entry: Any = plain(metadata[self.key], self.type, self.key)
        for part in reversed(self.config.split(".")):
            entry = {part: entry}
        result: Mapping[str, Any] = entry
        return result

    def revised(
        self, config: Config, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> dict[str, Any]:
        """Return `config` with what the key-value says, under the name that `config` has for it."""
        spelled = replace(self, config=self._spelling(config))
        return super(Param, spelled).revised(config, metadata, tensors)

    def _spelling(self, config: Config) -> str:
        names = (*self.aliases, self.config)
        return next((name for name in names if lookup(config, name) is not None), self.config)


@dataclass(frozen=True)
class Derived(Aspect):
    """A key-value that follows from others and has no config entry of its own.

    Attributes:
        key: its name.
        type: its type.
        value: what it is, as a function of the config; None leaves it out.
    """

    key: str
    type: str
    value: Callable[[Config], Any]

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return (self.key,)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the key-value, or nothing where it is left out."""
        del report
        value = self.value(config)
        return {} if value is None else {self.key: typed(self.type, value, self.key)}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return nothing: what it follows from says it."""
        del metadata, tensors
        return {}


@dataclass(frozen=True)
class Fixed(Aspect):
    """A config entry that the container does not say, because the family allows one value alone.

    Attributes:
        config: the key.
        values: the spellings of that value; the first is written.
    """

    config: str
    values: tuple[Any, ...]

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return nothing, having checked the value."""
        del report
        found = lookup(config, self.config)
        if found is not None and found not in self.values:
            raise Unsupported(
                f"config.json's {self.config} is not what the target's runtime computes",
                rule="config-value",
                got=found,
                expected=" or ".join(map(repr, self.values)),
            )
        return {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the value."""
        del metadata, tensors
        return {self.config: self.values[0]}


@dataclass(frozen=True)
class Lost(Aspect):
    """A config entry that the container has no place for: the user is told.

    Attributes:
        config: the key.
        why: what that means, as a clause.
        harmless: values that lose nothing.
        when: whether the entry does anything, as a function of the config; None where it does.
    """

    config: str
    why: str
    harmless: tuple[Any, ...] = (None, False)
    when: Callable[[Config], bool] | None = None

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return nothing, and tell."""
        value = lookup(config, self.config)
        if value not in self.harmless and (self.when is None or self.when(config)):
            report.note("dropped", f"config.json's {self.config}", f"{value}: {self.why}")
        return {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return nothing."""
        del metadata, tensors
        return {}


@dataclass(frozen=True)
class Present(Aspect):
    """A config flag that the container says by having a tensor, or by not having it.

    Attributes:
        config: the flag.
        tensor: the tensor's name in the container.
        then: the flag's value where the tensor is there.
    """

    config: str
    tensor: str
    then: bool = True

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return nothing: the rules see to the tensor."""
        del report
        typed("bool", config.get(self.config) or False, self.config)
        return {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the flag."""
        del metadata
        return {self.config: self.then if self.tensor in tensors else not self.then}


def lookup(config: Config, path: str) -> Any:
    """Return what a dotted path leads to, None where it ends early.

    Example:
        >>> lookup({"rope": {"theta": 1e4}}, "rope.theta")
        10000.0
    """
    found: Any = config
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def missing(path: str) -> InvalidFile:
    """Return the error of a config that lacks an entry."""
    return InvalidFile(f"config.json lacks {path}", rule="missing-config")


def integer(config: Config, path: str) -> int:
    """Return an entry that counts something, at least 1.

    Raises:
        InvalidFile: (rule ``missing-config``) when it is not there, (rule ``config-type``) when it
            is no such number.
    """
    return _counted(lookup(config, path), path)


def _counted(found: Any, path: str) -> int:
    if found is None:
        raise missing(path)
    typed("u32", found, path)
    if not found:
        raise wrong(path, found, "at least 1")
    number: int = found
    return number


def typed(type: str, data: Any, subject: str) -> Value:
    """Return `data` as a key-value of `type`.

    Raises:
        InvalidFile: (rule ``config-type``) when it is no such thing: ``True`` is no u32, 1.5 is no
            integer, -1 is not unsigned, 1e39 is no f32.
    """
    if type in INTEGERS:
        good = isinstance(data, int) and not isinstance(data, bool) and data in INTEGERS[type]
    elif type in ("f32", "f64"):
        most = LARGEST_F32 if type == "f32" else math.inf
        good = isinstance(data, int | float) and not isinstance(data, bool) and abs(data) <= most
    else:
        good = isinstance(data, {"bool": bool, "string": str}[type])
    if not good:
        raise wrong(subject, data, type)
    return scalar(type, float(data) if type in ("f32", "f64") else data)


def wrong(subject: str, got: object, expected: str) -> InvalidFile:
    """Return the error of an entry that is not what it should be."""
    return InvalidFile(
        f"{subject} is not a value of this kind", rule="config-type", got=got, expected=expected
    )


def plain(value: Value, type: str, key: str) -> Any:
    """Return a key-value as config.json would hold it: an f32 in its shortest decimal form.

    Example:
        >>> plain(scalar("f32", 9.999999747378752e-06), "f32", "eps")
        1e-05

    Raises:
        InvalidFile: (rule ``config-type``) when it is not of `type`; another integer type will do.
    """
    data = typed(type, value.plain(), key).data
    return float(str(np.float32(data))) if type == "f32" else data  # type: ignore[arg-type]


def required(metadata: Mapping[str, Value], key: str, type: str) -> Any:
    """Return a key-value that has to be there, as `plain` does.

    Raises:
        InvalidFile: (rule ``missing-key``) when it is not, (rule ``config-type``) when it is not of
            `type`.
    """
    if key not in metadata:
        raise InvalidFile(f"lacks the key-value {key}", rule="missing-key")
    return plain(metadata[key], type, key)


def same(a: Value, b: Value) -> bool:
    """Tell whether two key-values say the same, whatever the width of their numbers.

    Example:
        >>> same(scalar("f32", 1e-05), scalar("f32", 9.999999747378752e-06))
        True
        >>> same(scalar("u32", 1), scalar("bool", True))
        False
    """
    left, right = a.plain(), b.plain()
    if (
        "f32" in (a.type, b.type)
        and isinstance(left, int | float)
        and isinstance(right, int | float)
    ):
        with np.errstate(over="ignore"):
            return bool(np.float32(left) == np.float32(right))
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def merge(config: dict[str, Any], entries: Mapping[str, Any]) -> None:
    """Put `entries` into `config`, nested objects key by key.

    Example:
        >>> config = {"rope": {"theta": 1.0}}
        >>> merge(config, {"rope": {"factor": 2.0}}); config
        {'rope': {'theta': 1.0, 'factor': 2.0}}
    """
    for key, value in entries.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), Mapping):
            inner = dict(config[key])
            merge(inner, value)
            config[key] = inner
        else:
            config[key] = dict(value) if isinstance(value, Mapping) else value
