"""Rotary position embeddings: how configs spell theta and scaling, and how GGUF does.

Configs have two spellings: transformers 4 keeps ``rope_theta`` beside ``rope_scaling`` (whose kind
is called ``type`` or ``rope_type``), transformers 5 has both in ``rope_parameters``. Both versions
read the older one, so that is what is written where there was no config.

GGUF has key-values for linear scaling and YaRN (GGUF specification, section "Architecture"), and
for Llama 3's scaling a tensor of the numbers that each frequency is divided by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.aspects import (
    Aspect,
    integer,
    lookup,
    missing,
    plain,
    required,
    same,
    typed,
    wrong,
)
from weighbridge.converters.architectures.llama3_scaling import (
    FREQS,
    LARGEST_HEAD,
    LLAMA3,
    llama3_factors,
    not_llama3,
    recovered,
)
from weighbridge.errors import Unsupported
from weighbridge.metadata import scalar, string
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy, Tensor

THETA = 10_000.0
"""The base of the frequencies where neither a config nor a GGUF file says: both sides' default."""

FREQ_BASE = "{arch}.rope.freq_base"
TYPE = "{arch}.rope.scaling.type"
FACTOR = "{arch}.rope.scaling.factor"
OLD_FACTOR = "{arch}.rope.scale_linear"
ATTENTION = "{arch}.rope.scaling.attn_factor"

ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True)
class Parameter:
    """One number of a scaling, in config.json and as a key-value."""

    config: str
    key: str
    type: str = "f32"
    required: bool = False


KEYED = {
    "linear": (Parameter("factor", FACTOR, required=True),),
    "yarn": (
        Parameter("factor", FACTOR, required=True),
        Parameter(ORIGINAL, "{arch}.rope.scaling.original_context_length", "u32", required=True),
        Parameter("extrapolation_factor", "{arch}.rope.scaling.yarn_ext_factor"),
        Parameter("attention_factor", "{arch}.rope.scaling.yarn_attn_factor"),
        Parameter("beta_fast", "{arch}.rope.scaling.yarn_beta_fast"),
        Parameter("beta_slow", "{arch}.rope.scaling.yarn_beta_slow"),
    ),
}
"""The scalings that key-values can say, and their numbers."""

KINDS = ("default", *KEYED, "llama3")


@dataclass(frozen=True)
class Rope(Aspect):
    """``rope_theta`` and ``rope_scaling``, or ``rope_parameters``.

    Attributes:
        kinds: the scalings that llama.cpp computes for the family.
        silent: whether theta goes unsaid where it is llama.cpp's default.

    Example:
        >>> from weighbridge.report import Report
        >>> said = Rope().to_metadata({"rope_theta": 500000.0}, Report())
        >>> {key: value.data for key, value in said.items()}
        {'{arch}.rope.freq_base': 500000.0}
    """

    kinds: tuple[str, ...] = KINDS
    silent: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Theta, and everything that a scaling may have."""
        numbers = [parameter.key for kind in KEYED.values() for parameter in kind]
        return (TYPE, *dict.fromkeys(numbers), ATTENTION, FREQ_BASE, OLD_FACTOR)

    @property
    def makes(self) -> tuple[str, ...]:
        """The factors of Llama 3's scaling."""
        return (FREQS,) if "llama3" in self.kinds else ()

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return theta and the scaling.

        Raises:
            Unsupported: (rule ``rope-type``) for a kind that GGUF cannot say.
        """
        rope = parameters(config)
        kind = rope["rope_type"]
        if kind not in self.kinds:
            raise unknown_kind(kind, self.kinds)
        said = {TYPE: string(kind)} if kind in KEYED else {}
        for number in KEYED.get(kind, ()):
            if number.config in rope:
                said[number.key] = typed(number.type, rope[number.config], number.config)
            elif number.required:
                raise missing(f"rope_scaling.{number.config}")
        if kind == "yarn" and "attention_factor" in rope:
            said[ATTENTION] = _attention(rope)
        numbers = LLAMA3 if kind == "llama3" else [number.config for number in KEYED.get(kind, ())]
        note_lost(rope, numbers, report)
        theta = typed("f32", rope["rope_theta"], "rope_theta")
        return said if self.silent and theta.data == THETA else {**said, FREQ_BASE: theta}

    def tensors(self, config: Config) -> Sequence[Tensor]:
        """Return the factors of Llama 3's scaling, shape (head_dim / 2,)."""
        rope = parameters(config)
        if rope["rope_type"] != "llama3" or not self.makes:
            return ()
        numbers = [_positive(rope, name) for name in LLAMA3]
        theta = _positive(rope, "rope_theta")
        return (from_array(FREQS, llama3_factors(theta, head_dim(config), *numbers)),)

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return theta and the scaling in the spelling that transformers 4 and 5 both read.

        Raises:
            Unsupported: (rule ``rope-type``) for a kind that is not known here, (rule
                ``rope-factors``) for factors that are not those of Llama 3's scaling.
        """
        base = metadata.get(FREQ_BASE)
        theta = THETA if base is None else plain(base, "f32", FREQ_BASE)
        scaling = _scaling(metadata)
        if FREQS in tensors and self.makes:
            found = recovered(tensors[FREQS], theta)
            if found and scaling:
                raise not_llama3("stand beside another scaling")
            scaling = scaling or found
        return {"rope_theta": theta, **({"rope_scaling": scaling} if scaling else {})}

    def revised(
        self, config: Config, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> dict[str, Any]:
        """Return `config` with the key-values' theta and scaling, in its own spelling."""
        said = dict(self.to_config(metadata, tensors))
        scaling = said.pop("rope_scaling", None)
        if isinstance(config.get("rope_parameters"), Mapping):
            rope = {"rope_type": "default", **(scaling or {}), **said}
            kept = {key: config[key] for key in config if key not in ("rope_scaling", "rope_theta")}
            return {**kept, "rope_parameters": rope}
        return {**config, **said, "rope_scaling": scaling}


def parameters(config: Config) -> dict[str, Any]:
    """Return theta, kind and numbers, however the config spells them.

    Raises:
        InvalidFile: (rule ``config-type``) when they are no object.

    Example:
        >>> parameters({"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}})
        {'factor': 2.0, 'rope_type': 'linear', 'rope_theta': 5.0}
    """
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise wrong("rope_scaling", given, "an object")
    rope = {key: value for key, value in given.items() if key != "type" and value is not None}
    rope.setdefault("rope_type", given.get("type", "default"))
    rope.setdefault("rope_theta", config.get("rope_theta") or THETA)
    if "attn_factor" in rope:
        rope.setdefault("attention_factor", rope.pop("attn_factor"))
    original = config.get(ORIGINAL) or rope.get(ORIGINAL) or config.get("max_position_embeddings")
    if rope["rope_type"] in ("yarn", "llama3") and original is not None:
        rope[ORIGINAL] = original
    return rope


def unknown_kind(kind: object, kinds: Sequence[str]) -> Unsupported:
    """Return the error of a config whose scaling the family does not have in GGUF."""
    return Unsupported(
        "this scaling of rotary embeddings cannot be said in GGUF",
        rule="rope-type",
        got=kind,
        expected=f"one of {', '.join(kinds)}",
    )


def note_lost(rope: Mapping[str, Any], numbers: Sequence[str], report: Report) -> None:
    """Tell of what a scaling has besides the `numbers` that GGUF says."""
    for key in rope:
        if key not in ("rope_type", "rope_theta", *numbers):
            report.note(
                "dropped", f"rope_scaling.{key}", f"{rope[key]}: llama.cpp has no such parameter"
            )


def _positive(rope: Mapping[str, Any], name: str) -> float:
    if name not in rope:
        raise missing(f"rope_scaling.{name}")
    number = typed("f32", rope[name], name).data
    if not float(number) > 0:  # type: ignore[arg-type]
        raise wrong(name, number, "a number over 0")
    return float(number)  # type: ignore[arg-type]


def head(config: Config) -> int:
    """Return the values of a head: the heads' share of a token where the config does not say."""
    if lookup(config, "head_dim") is not None:
        return integer(config, "head_dim")
    return integer(config, "hidden_size") // integer(config, "num_attention_heads")


def head_dim(config: Config) -> int:
    """Return the values of a head, which its frequencies are made for.

    Raises:
        InvalidFile: (rules ``missing-config``, ``config-type``) with the config's key.
    """
    size = head(config)
    if size > LARGEST_HEAD:
        raise wrong("head_dim", size, f"at most {LARGEST_HEAD}")
    return size


def _magnitude(factor: float) -> float:
    """Return what YaRN multiplies queries and keys with by itself."""
    return 1 + 0.1 * math.log(factor)


def _attention(rope: Mapping[str, Any]) -> Value:
    """Return what llama.cpp is to multiply YaRN's own magnitude with.

    ``yarn_attn_factor``, which llama.cpp's converter writes, its runtime does not read.
    """
    magnitude = _magnitude(max(_positive(rope, "factor"), 1))
    return typed("f32", _positive(rope, "attention_factor") / magnitude, "attention_factor")


def _with_attention(scaling: dict[str, Any], metadata: Mapping[str, Value]) -> dict[str, Any]:
    """Return the scaling with the attention factor that llama.cpp computes with."""
    told = metadata.get(ATTENTION)
    known = _attention(scaling) if "attention_factor" in scaling else scalar("f32", 1.0)
    if told is None or same(told, known):
        return scaling
    if scaling["rope_type"] != "yarn":
        raise _not_known(f"{scaling['rope_type']} with an attention factor", KEYED)
    product = plain(told, "f32", ATTENTION) * _magnitude(max(_positive(scaling, "factor"), 1))
    return {**scaling, "attention_factor": float(str(np.float32(product)))}


def kind_of(metadata: Mapping[str, Value], known: Iterable[str]) -> str:
    """Return the kind of scaling that a file names, ``none`` where it names none.

    Raises:
        Unsupported: (rule ``rope-type``) for one that is not `known`.
    """
    kind: str = plain(metadata[TYPE], "string", TYPE) if TYPE in metadata else "none"
    if kind not in ("none", *known):
        raise _not_known(kind, known)
    return kind


def _not_known(kind: str, known: Iterable[str]) -> Unsupported:
    return Unsupported(
        "this scaling of rotary embeddings is not known for the family",
        rule="rope-type",
        got=kind,
        expected=f"one of {', '.join(('none', *known))}",
    )


def _scaling(metadata: Mapping[str, Value]) -> dict[str, Any] | None:
    """Return the scaling that the key-values say, None where there is none."""
    if TYPE not in metadata and OLD_FACTOR in metadata:
        factor = plain(metadata[OLD_FACTOR], "f32", OLD_FACTOR)
        return {"rope_type": "linear", "factor": factor} if factor != 1 else None
    kind = kind_of(metadata, KEYED)
    if kind == "none":
        _with_attention({"rope_type": kind}, metadata)
        return None
    scaling: dict[str, Any] = {"rope_type": kind}
    for number in KEYED[kind]:
        if number.key in metadata or number.required:
            scaling[number.config] = required(metadata, number.key, number.type)
    return _with_attention(scaling, metadata)
