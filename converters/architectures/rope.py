"""Rotary position embeddings: how configs spell theta and scaling, and how GGUF does.

Configs have two spellings: transformers 4 keeps ``rope_theta`` beside ``rope_scaling`` (whose kind
is called ``type`` or ``rope_type``), transformers 5 has both in ``rope_parameters``. Both versions
read the older one, so that is what is written where there was no config.

GGUF has key-values for linear scaling and YaRN (GGUF specification, section "Architecture"), and
for Llama 3's scaling a tensor of the numbers that each frequency is divided by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.aspects import Aspect, integer, lookup, missing, plain, typed, wrong
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.metadata import string
from weighbridge.tensor import from_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy, Tensor

    Factors = NDArray[np.float32]

THETA = 10_000.0
"""The base of the frequencies where neither a config nor a GGUF file says: both sides' default."""

FREQ_BASE = "{arch}.rope.freq_base"
TYPE = "{arch}.rope.scaling.type"
FACTOR = "{arch}.rope.scaling.factor"
OLD_FACTOR = "{arch}.rope.scale_linear"
FREQS = "rope_freqs.weight"

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

LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL)
"""The numbers of the scaling that a tensor says."""

KINDS = ("default", *KEYED, "llama3")

LARGEST_HEAD = 1 << 16
"""The most values of a head for which factors are made: hostile configs say billions."""


@dataclass(frozen=True)
class Rope(Aspect):
    """``rope_theta`` and ``rope_scaling``, or ``rope_parameters``.

    Example:
        >>> from weighbridge.report import Report
        >>> said = Rope().to_metadata({"rope_theta": 500000.0}, Report())
        >>> {key: value.data for key, value in said.items()}
        {'{arch}.rope.freq_base': 500000.0}
    """

    @property
    def keys(self) -> tuple[str, ...]:
        """Theta, and everything that a scaling may have."""
        numbers = [parameter.key for kind in KEYED.values() for parameter in kind]
        return (TYPE, *dict.fromkeys(numbers), FREQ_BASE, OLD_FACTOR)

    @property
    def makes(self) -> tuple[str, ...]:
        """The factors of Llama 3's scaling."""
        return (FREQS,)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return theta and the scaling.

        Raises:
            Unsupported: (rule ``rope-type``) for a kind that GGUF cannot say.
        """
        rope = parameters(config)
        kind = rope["rope_type"]
        if kind not in KINDS:
            raise Unsupported(
                "this scaling of rotary embeddings cannot be said in GGUF",
                rule="rope-type",
                got=kind,
                expected=f"one of {', '.join(KINDS)}",
            )
        said = {TYPE: string(kind)} if kind in KEYED else {}
        for number in KEYED.get(kind, ()):
            if number.config in rope:
                said[number.key] = typed(number.type, rope[number.config], number.config)
            elif number.required:
                raise missing(f"rope_scaling.{number.config}")
        _note_lost(rope, report)
        return {**said, FREQ_BASE: typed("f32", rope["rope_theta"], "rope_theta")}

    def tensors(self, config: Config) -> Sequence[Tensor]:
        """Return the factors of Llama 3's scaling, shape (head_dim / 2,)."""
        rope = parameters(config)
        if rope["rope_type"] != "llama3":
            return ()
        numbers = [_positive(rope, name) for name in LLAMA3]
        theta = _positive(rope, "rope_theta")
        return (from_array(FREQS, llama3_factors(theta, _head_dim(config), *numbers)),)

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
        if FREQS in tensors:
            found = _recovered(tensors[FREQS], theta)
            if found and scaling:
                raise _not_llama3("stand beside another scaling")
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


def _note_lost(rope: Mapping[str, Any], report: Report) -> None:
    kind = rope["rope_type"]
    numbers = LLAMA3 if kind == "llama3" else [number.config for number in KEYED.get(kind, ())]
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


def _head_dim(config: Config) -> int:
    if lookup(config, "head_dim") is None:
        size = integer(config, "hidden_size") // integer(config, "num_attention_heads")
    else:
        size = integer(config, "head_dim")
    if size > LARGEST_HEAD:
        raise wrong("head_dim", size, f"at most {LARGEST_HEAD}")
    return size


def llama3_factors(
    theta: float, head_dim: int, factor: float, low: float, high: float, original: float
) -> Factors:
    """Return what Llama 3's scaling divides each frequency by, as llama.cpp's converter does.

    Frequencies whose wavelength is under ``original / high`` stay, those over ``original / low``
    are divided by `factor`, and between the two the divisor moves smoothly.

    Every step is taken in float32, in torch's order (which divides by multiplying with the
    reciprocal), and powers are correctly rounded: torch without vector instructions gives the same
    bits; with them its powers, and so a factor here and there, may differ in the last bit.

    Example:
        >>> llama3_factors(500000.0, 8, 8.0, 1.0, 4.0, 8192.0)
        array([1.     , 1.     , 2.69453, 8.     ], dtype=float32)
    """
    f32 = np.float32
    with np.errstate(all="ignore"):
        exponents = np.arange(0, head_dim, 2, dtype=f32) / f32(head_dim)
        powers = np.power(float(theta), exponents.astype(np.float64)).astype(f32)
        wavelengths = (f32(1) / (f32(1) / powers)) * f32(2 * math.pi)
        smooth = ((f32(1) / wavelengths) * f32(original) - f32(low)) / f32(high - low)
        between = f32(1) / ((f32(1) - smooth) / f32(factor) + smooth)
        factors = np.where(wavelengths > f32(original / low), f32(factor), between)
        return np.where(wavelengths < f32(original / high), f32(1), factors).astype(f32)


def recover_llama3(factors: Factors, theta: float) -> dict[str, float | int] | None:
    """Return the numbers of Llama 3's scaling that give these factors; None when there are none.

    The largest factor is ``factor``; those in between say ``original / (high - low)`` and
    ``low / (high - low)``, so that ``low`` may be taken as 1. Where there are too few of them,
    Llama 3's own numbers are tried. The numbers are taken only if they give the same factors again,
    but for the last bits (see `llama3_factors`).

    Example:
        >>> found = recover_llama3(llama3_factors(5e5, 64, 32.0, 1.0, 4.0, 8192.0), 5e5)
        >>> list(found.values())
        [32.0, 1.0, 4.0, 8192]
    """
    factor = float(str(np.max(factors, initial=1)))
    several = np.count_nonzero((factors > 1) & (factors < factor)) > 1
    guesses = _fitted(factors, theta, factor) if several else []
    for high, original in [*guesses, (4.0, 8192)]:
        made = llama3_factors(theta, 2 * len(factors), factor, 1.0, high, original)
        if np.allclose(made, factors, rtol=1e-6, atol=0):
            return dict(zip(LLAMA3, (factor, 1.0, high, original), strict=True))
    return None


def _fitted(factors: Factors, theta: float, factor: float) -> list[tuple[float, int]]:
    """Return ``high`` and ``original`` from two factors in between, with ``low`` as 1."""
    between = np.flatnonzero((factors > 1) & (factors < factor))[[0, -1]]
    with np.errstate(all="ignore"):
        turns = 1 / (2 * math.pi * np.power(theta, between / len(factors)))
        smooth = (1 / factors[between].astype(np.float64) - 1 / factor) / (1 - 1 / factor)
        slope = np.diff(smooth)[0] / np.diff(turns)[0]
        offset = smooth[0] - slope * turns[0]
    if not -math.inf < offset < 0 < slope < math.inf:
        return []
    return [(round(float(1 - 1 / offset), 3), round(float(-slope / offset)))]


def _recovered(stored: Lazy, theta: float) -> dict[str, Any] | None:
    if stored.ndim != 1 or not 0 < stored.size <= LARGEST_HEAD:
        raise _not_llama3(f"have the shape {list(stored.shape)}")
    factors = stored.values("f32")
    if np.all(factors == 1):
        return None
    found = recover_llama3(factors, theta) if np.all(np.isfinite(factors)) else None
    if found is None:
        raise _not_llama3("are not those of Llama 3's scaling")
    return {"rope_type": "llama3", **found}


def _not_llama3(what: str) -> Unsupported:
    return Unsupported(
        f"its factors of rotary frequencies {what}: no config can say them",
        rule="rope-factors",
        tensor=FREQS,
    )


def _scaling(metadata: Mapping[str, Value]) -> dict[str, Any] | None:
    """Return the scaling that the key-values say, None where there is none."""
    if TYPE not in metadata and OLD_FACTOR in metadata:
        factor = plain(metadata[OLD_FACTOR], "f32", OLD_FACTOR)
        return {"rope_type": "linear", "factor": factor} if factor != 1 else None
    kind = plain(metadata[TYPE], "string", TYPE) if TYPE in metadata else "none"
    if kind == "none":
        return None
    if kind not in KEYED:
        raise Unsupported(
            "this scaling of rotary embeddings is not known for the family",
            rule="rope-type",
            got=kind,
            expected=f"none, {' or '.join(KEYED)}",
        )
    scaling: dict[str, Any] = {"rope_type": kind}
    for number in KEYED[kind]:
        if number.key in metadata:
            scaling[number.config] = plain(metadata[number.key], number.type, number.key)
        elif number.required:
            raise InvalidFile(f"lacks the key-value {number.key}", rule="missing-key")
    return scaling
