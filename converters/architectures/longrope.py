"""LongRoPE: two factors for every rotary frequency, one for short texts and one for long ones.

Configs list the factors beside a few numbers; GGUF has them as tensors, and as key-values the
length that the frequencies were trained for and the factor of the attention. Versions of Phi-3 have
called the scaling ``su`` and ``yarn``; transformers reads both as ``longrope``.

Source: ``conversion/phi.py`` of llama.cpp, and ``modeling_rope_utils.py`` of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.aspects import Aspect, Param, integer, lookup, plain, required, typed, wrong
from weighbridge.converters.architectures.llama3_scaling import LARGEST_HEAD
from weighbridge.converters.architectures.rope import (
    ATTENTION,
    FREQ_BASE,
    ORIGINAL,
    THETA,
    TYPE,
    Rope,
    head_dim,
    kind_of,
    note_lost,
    parameters,
    unknown_kind,
)
from weighbridge.errors import Unsupported
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy, Tensor

DIMENSIONS = "{arch}.rope.dimension_count"
CONTEXT = "{arch}.context_length"

LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
FACTORS = {LONG: "long_factor", SHORT: "short_factor"}
"""Tensor -> what the config calls it."""

LONGROPE = "longrope"
SPELLINGS = {LONGROPE: LONGROPE, "su": LONGROPE, "yarn": LONGROPE}

PARTIAL = "partial_rotary_factor"

ORIGINAL_CONTEXT = Param(
    ORIGINAL, "{arch}.rope.scaling.original_context_length", "u32", required=False
)
"""The length that the frequencies were trained for."""


@dataclass(frozen=True)
class LongRope(Rope):
    """``rope_theta``, the factors, and what attention is multiplied by.

    Example:
        >>> attention_factor({}, {"max_position_embeddings": 131072, ORIGINAL: 4096})
        1.1902380714238083
    """

    kinds: tuple[str, ...] = ("default", LONGROPE)

    @property
    def keys(self) -> tuple[str, ...]:
        """Theta, the factor of the attention, and the name of the scaling, which is not written."""
        return (FREQ_BASE, ATTENTION, TYPE)

    @property
    def makes(self) -> tuple[str, ...]:
        """Both lists of factors."""
        return tuple(FACTORS)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return theta and the factor of the attention.

        Raises:
            InvalidFile: (rule ``config-type``) when there is not a factor for each frequency.
            Unsupported: (rule ``rope-type``) for another scaling.
        """
        rope = self._parameters(config)
        said = {FREQ_BASE: typed("f32", rope["rope_theta"], "rope_theta")}
        if rope["rope_type"] == LONGROPE:
            said[ATTENTION] = typed("f32", attention_factor(rope, config), "attention_factor")
            _check_counts(rope, rotary_dimensions(config) // 2)
        known = (*FACTORS.values(), "factor", "attention_factor", ORIGINAL, PARTIAL)
        note_lost(rope, known, report)
        return said

    def tensors(self, config: Config) -> Sequence[Tensor]:
        """Return the factors, each of shape (rotary dimensions / 2,).

        Raises:
            InvalidFile: (rule ``config-type``) when they are no lists of numbers.
        """
        rope = self._parameters(config)
        if rope["rope_type"] != LONGROPE:
            return ()
        return [from_array(tensor, _numbers(rope, name)) for tensor, name in FACTORS.items()]

    def _parameters(self, config: Config) -> dict[str, Any]:
        rope = parameters(config)
        rope["rope_type"] = SPELLINGS.get(rope["rope_type"], rope["rope_type"])
        if rope["rope_type"] not in self.kinds:
            raise unknown_kind(rope["rope_type"], self.kinds)
        return rope

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return theta and the scaling as all versions of transformers read them.

        Raises:
            Unsupported: (rule ``rope-type``) for another scaling, (rule ``rope-factors``) for
                factors that no config can say.
        """
        kind_of(metadata, (LONGROPE,))
        base = metadata.get(FREQ_BASE)
        said: dict[str, Any] = {"rope_theta": THETA if base is None else _plain(base, FREQ_BASE)}
        if ORIGINAL_CONTEXT.key not in metadata and CONTEXT in metadata:
            said[ORIGINAL] = plain(metadata[CONTEXT], "u32", CONTEXT)
        attention = _plain(metadata[ATTENTION], ATTENTION) if ATTENTION in metadata else 1.0
        found = {name: _listed(tensors[key]) for key, name in FACTORS.items() if key in tensors}
        if not found and attention == 1:
            return said
        if len(found) < len(FACTORS):
            raise _unsayable("are not there for short and long texts alike")
        scaling: dict[str, Any] = {"type": LONGROPE, **found}
        usual = attention_factor({}, {**_lengths(metadata), **said})
        if np.float32(usual) != np.float32(attention):
            scaling["attention_factor"] = attention
        return {**said, "rope_scaling": scaling}

    def revised(
        self, config: Config, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> dict[str, Any]:
        """Return `config` with the key-values' theta and scaling, in its own spelling."""
        revised = super().revised(config, metadata, tensors)
        new, old = revised.get("rope_parameters"), config.get("rope_parameters")
        if not isinstance(new, dict) or not isinstance(old, Mapping):
            return revised
        kind = new.pop("type", new["rope_type"])
        beside = {key: old[key] for key in (PARTIAL, ORIGINAL) if key in old}
        return {**revised, "rope_parameters": {**new, "rope_type": kind, **beside}}


@dataclass(frozen=True)
class PartialRotary(Aspect):
    """How many values of a head are turned: a share in config.json, their number in GGUF.

    Example:
        >>> sizes = {"hidden_size": 48, "num_attention_heads": 6}
        >>> rotary_dimensions({**sizes, "partial_rotary_factor": 0.75})
        6
    """

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return (DIMENSIONS,)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the number."""
        del report
        return {DIMENSIONS: typed("u32", rotary_dimensions(config), PARTIAL)}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the share, nothing where all are turned."""
        del tensors
        hidden, heads = (
            required(metadata, key, "u32")
            for key in ("{arch}.embedding_length", "{arch}.attention.head_count")
        )
        head = hidden // max(heads, 1)
        count = plain(metadata[DIMENSIONS], "u32", DIMENSIONS) if DIMENSIONS in metadata else head
        return {PARTIAL: _share(count, head)} if count != head else {}

    def revised(
        self, config: Config, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> dict[str, Any]:
        """Return `config` with the share, where it has its rotary parameters."""
        share = self.to_config(metadata, tensors).get(PARTIAL, 1.0)
        rope = config.get("rope_parameters")
        if isinstance(rope, dict):
            return {**config, "rope_parameters": {**rope, PARTIAL: share}}
        return {**config, PARTIAL: share}


def rotary_dimensions(config: Config) -> int:
    """Return how many values of a head are turned.

    Raises:
        InvalidFile: (rule ``config-type``) when they are not at least two, in pairs.
    """
    share = lookup(config, f"rope_parameters.{PARTIAL}")
    share = lookup(config, PARTIAL) if share is None else share
    share = _number(1.0 if share is None else share, PARTIAL)
    count = int(head_dim(config) * share)
    if not 2 <= count <= head_dim(config) or count % 2:
        raise wrong(PARTIAL, share, "an even number of a head's values")
    return count


def attention_factor(rope: Mapping[str, Any], config: Config) -> float:
    """Return what the attention's cosines and sines are multiplied by.

    Args:
        rope: the scaling's parameters: the factor itself or the growth of the context, if given.
        config: has the two lengths of the context.
    """
    if "attention_factor" in rope:
        return _number(rope["attention_factor"], "attention_factor")
    original = integer(config, ORIGINAL)
    if original < 2:
        raise wrong(ORIGINAL, original, "at least 2")
    growth = rope.get("factor", integer(config, "max_position_embeddings") / original)
    growth = _number(growth, "factor")
    return math.sqrt(1 + math.log(growth) / math.log(original)) if growth > 1 else 1.0


def _number(entry: object, name: str) -> float:
    number: float = plain(typed("f64", entry, name), "f64", name)
    return number


def _share(count: int, head: int) -> float:
    """Return a share of a head that gives this number of values, whatever the rounding."""
    share = count / head if head else 0.0
    if not 0 < count < head:
        raise wrong(DIMENSIONS, count, f"at most {head}")
    return share if int(head * share) == count else math.nextafter(share, 1.0)


def _check_counts(rope: Mapping[str, Any], count: int) -> None:
    for name in FACTORS.values():
        if len(_numbers(rope, name)) != count:
            raise wrong(f"rope_scaling.{name}", len(rope[name]), f"{count} numbers")


def _numbers(rope: Mapping[str, Any], name: str) -> NDArray[np.float32]:
    factors = rope.get(name)
    if not isinstance(factors, list):
        raise wrong(f"rope_scaling.{name}", factors, "a list of numbers")
    return np.array([typed("f32", factor, name).data for factor in factors], np.float32)


def _listed(stored: Lazy) -> list[float]:
    if stored.ndim != 1 or not 0 < stored.size <= LARGEST_HEAD:
        raise _unsayable(f"have the shape {list(stored.shape)}")
    values = stored.values("f32")
    if not np.all(np.isfinite(values)):
        raise _unsayable("are not numbers")
    return [float(str(value)) for value in values]


def _lengths(metadata: Mapping[str, Value]) -> dict[str, Any]:
    lengths = {"max_position_embeddings": CONTEXT, ORIGINAL: ORIGINAL_CONTEXT.key}
    return {
        name: plain(metadata[key], "u32", key) for name, key in lengths.items() if key in metadata
    }


def _plain(value: Value, key: str) -> float:
    number: float = plain(value, "f32", key)
    return number


def _unsayable(what: str) -> Unsupported:
    return Unsupported(
        f"its factors of rotary frequencies {what}: no config can say them", rule="rope-factors"
    )
