"""The ``general.*`` key-values: what a model is called, how large it is, whose it is.

They are told from the model card, from generation_config.json and from names, as llama.cpp's
converter does; the GGUF specification (section "General metadata" and "Naming convention") says
what each is for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.aspects import plain, typed
from weighbridge.converters import modelcard
from weighbridge.errors import Error
from weighbridge.metadata import array, scalar, string
from weighbridge.sidefiles import dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.converters.modelcard import Card
    from weighbridge.metadata import Value
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

QUANTIZATION_VERSION = 2
"""The version of the block layouts (``GGML_QNT_VERSION``)."""

CARD = "README.md"
GENERATION = "generation_config.json"
MOVED = ("decoder_start_token_id",)
"""Entries of config.json that transformers 5 looks for in generation_config.json alone."""

SAMPLING = (
    ("sequence", "sequence", "string"),
    ("top_k", "top_k", "i32"),
    ("top_p", "top_p", "f32"),
    ("min_p", "min_p", "f32"),
    ("xtc_probability", "xtc_probability", "f32"),
    ("xtc_threshold", "xtc_threshold", "f32"),
    ("temp", "temperature", "f32"),
    ("penalty_last_n", "penalty_last_n", "i32"),
    ("penalty_repeat", "penalty_repeat", "f32"),
    ("mirostat", "mirostat", "i32"),
    ("mirostat_tau", "mirostat_tau", "f32"),
    ("mirostat_eta", "mirostat_eta", "f32"),
)
"""Key below ``general.sampling.``, entry of generation_config.json, type."""

TITLES = (
    ("name", ("name", "model_name")),
    ("author", ("author", "model_author", "model_creator")),
    ("version", ("version", "model_version")),
    ("organization", ("organization", "model_organization")),
    ("finetune", ("finetune", "model_finetune")),
    ("basename", ("basename", "model_basename", "model_type")),
    ("description", ("description", "model_description")),
    ("size_label", ("size_label", "model_size_label")),
    ("license", ("license",)),
    ("license.name", ("license_name",)),
    ("license.link", ("license_link",)),
    ("source.url", ("url", "model_url")),
    ("source.doi", ("doi", "model_doi")),
    ("source.uuid", ("uuid", "model_uuid")),
    ("source.repo_url", ("repo_url", "model_repo_url")),
)
"""Key below ``general.``, in the order that they are written, and the card's entries for it."""

PARENTS = (
    ("base_model", ("base_model", "base_models", "base_model_sources")),
    ("dataset", ("datasets", "dataset", "dataset_sources")),
)
"""What a model comes from: key below ``general.``, and the card's entries for it."""

LISTS = (("tags", ("tags", "pipeline_tag")), ("languages", ("language", "languages")))
"""Key below ``general.``, and the card's entries that are put together for it."""


HEADER = (
    "general.architecture",
    "general.file_type",
    "general.type",
    "general.alignment",
    "general.quantization_version",
    *(f"general.sampling.{key}" for key, _, _ in SAMPLING),
)
"""The key-values that are about the file, or that generation_config.json says."""


@dataclass(frozen=True)
class Parts:
    """The parts of a model's name, as Hugging Face's users put it together.

    Attributes:
        name: the whole, without the organisation.
        organization: what stands before the slash.
        basename: the family, such as ``Llama-3.2``.
        finetune: what it was tuned for, such as ``Instruct``.
        version: such as ``v0.1``.
        size_label: such as ``8B`` or ``8x7B``.
    """

    name: str | None = None
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


def describe(
    name: str, config: Config, files: Mapping[str, bytes], tensors: Mapping[str, Lazy]
) -> dict[str, Value]:
    """Return the ``general.*`` key-values of a model, but for those that its encodings decide.

    Args:
        name: the directory's name.
        config: config.json, which may know another name.
        files: the side files, of which the model card and generation_config.json are read.
        tensors: GGUF's tensors, which are counted.
    """
    parameters = sum(tensor.size for tensor in tensors.values())
    card = modelcard.read(files.get(CARD, b""))
    told = {key: _first(card, entries) for key, entries in TITLES}
    for model_id in (_hub_name(config), name):
        for key, text in _titled(name_parts(model_id, parameters)).items():
            told[key] = told.get(key) or text
    told["size_label"] = told["size_label"] or size_label(tensors)
    return {
        "general.type": string("model"),
        **_sampling(files),
        **{f"general.{key}": string(told[key] or "") for key, _ in TITLES if told[key]},
        **_parents(card, parameters),
        **_lists(card),
    }


def files(
    metadata: Mapping[str, Value], ids: Mapping[str, Any], report: Report
) -> dict[str, bytes]:
    """Return generation_config.json and the model card that ``general.*`` key-values tell.

    Args:
        metadata: the key-values.
        ids: the special tokens that end a text, and their like.
        report: is told of the key-values that neither has a place for.

    Raises:
        InvalidFile: (rule ``config-type``) for a value of another type.
    """
    card: dict[str, str | list[str]] = {}
    known = set(HEADER)
    for table, kind in ((TITLES, ("string", None)), (LISTS, ("array", "string"))):
        for key, (entry, *_) in table:
            value = metadata.get(f"general.{key}")
            if value is not None and (value.type, value.items) == kind:
                known.add(f"general.{key}")
                card[entry] = value.plain()  # type: ignore[assignment]
    lost = [key for key in metadata if key.startswith("general.") and key not in known]
    if lost:
        report.note("dropped", ", ".join(lost), "a checkpoint directory has no place for it")
    found = {GENERATION: dump_json({**ids, **generation(metadata)})}
    return found | ({CARD: modelcard.write(card, str(card.get("name", "Model")))} if card else {})


def generation(metadata: Mapping[str, Value]) -> dict[str, Any]:
    """Return the entries of generation_config.json that ``general.sampling.*`` says.

    Raises:
        InvalidFile: (rule ``config-type``) for a value of another type.
    """
    found = {}
    for key, entry, kind in SAMPLING:
        full = f"general.sampling.{key}"
        if full in metadata:
            found[entry] = plain(metadata[full], kind, full)
    return found


def title(name: str) -> str:
    """Return a name as a title: words apart, lower-case ones capitalised, versions left alone.

    Example:
        >>> title("smollm2-135M-instruct-v0.1")
        'Smollm2 135M Instruct v0.1'
    """
    words = name.replace("-", " ").split()
    kept = re.compile(r"v\d+(\.\d+)*|\d.*")
    return " ".join(
        word.title() if word.islower() and not kept.fullmatch(word) else word for word in words
    )


def size_label(tensors: Mapping[str, Lazy]) -> str | None:
    """Return how large a model is, rounded: ``135M``, or ``8x7.2B`` for one with experts.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> size_label({"x": from_array("x", np.zeros((30, 50), np.float32))})
        '1.5K'
    """
    stacked = {name: tensor for name, tensor in tensors.items() if "_exps." in name}
    experts = [_experts(name, tensor) for name, tensor in stacked.items()]
    total = sum(tensor.size for tensor in tensors.values())
    if not total:
        return None
    if not stacked:
        return _rounded(total)
    each = sum(t.size // count for t, count in zip(stacked.values(), experts, strict=True))
    shared = total - sum(tensor.size for tensor in stacked.values())
    return f"{sum(experts) // len(experts)}x{_rounded(shared + each)}"


def _experts(name: str, tensor: Lazy) -> int:
    axis = -2 if name.endswith(".bias") else -3
    return max(tensor.shape[axis], 1) if tensor.ndim >= -axis else 1


def _rounded(count: int) -> str:
    units = ((1e12, 1e-12, "T"), (1e9, 1e-9, "B"), (1e6, 1e-6, "M"), (0, 1e-3, "K"))
    scale, letter = next((scale, letter) for above, scale, letter in units if count > above)
    scaled = count * scale
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{letter}"


VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
TYPE = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
SIZE = re.compile(r"((A|\d+x)?\d+([._]\d+)?[KMBT]\d?|small|mini|medium|large|x?xl)", re.IGNORECASE)
TUNED = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)


def name_parts(model_id: str | None, parameters: int) -> Parts:
    """Return the parts of a name; a size in it that is far from the truth counts as a finetune.

    Args:
        model_id: such as ``meta-llama/Llama-3.2-1B-Instruct``; a sentence is a name as a whole.
        parameters: how many the model has, 0 where that is not known.

    Example:
        >>> name_parts("meta-llama/Llama-3.2-1B-Instruct", 1_236_000_000).basename
        'Llama-3.2'
    """
    if not model_id:
        return Parts()
    if " " in model_id:
        return Parts(model_id)
    before, slash, after = model_id.partition("/")
    organization, full = (before, after) if slash else (None, model_id)
    kinds = [_kind(n, part, parameters) for n, part in enumerate(filter(None, full.split("-")))]
    if any(kind == "size_label" and re.search(r"\d", part) for part, kind in kinds):
        kinds = [(p, None if k == "size_label" and p.isalpha() else k) for p, k in kinds]
    basename, rest = _split_basename(kinds)
    found = {
        key: "-".join(dict.fromkeys(parts) if key == "size_label" else parts) or None
        for key in ("finetune", "version", "size_label")
        for parts in [[part for part, kind in rest if kind == key]]
    }
    return Parts(
        full,
        None if not organization or organization.startswith(".") else organization,
        "-".join(basename) or None if any(found.values()) else None,
        **found,
    )


def _titled(parts: Parts) -> dict[str, str]:
    """Return what a name tells, as key-values spell it."""
    told = {key: text for key, text in vars(parts).items() if text}
    return told | {key: title(told[key]) for key in ("name", "organization") if key in told}


def _kind(number: int, part: str, parameters: int) -> tuple[str, str | None]:
    """Return a part of a name as it is written, and what it tells, None where it is just a word."""
    if VERSION.fullmatch(part):
        return part, "version"
    if TYPE.fullmatch(part):
        return part.upper(), "type"
    if number and SIZE.fullmatch(part):
        return _size(part.replace("_", "."), parameters)
    if number and TUNED.fullmatch(part):
        return part, "finetune"
    return part, None


def _size(part: str, parameters: int) -> tuple[str, str]:
    if part[-1].isdecimal():  # as Bloom writes it: 7b1
        part = f"{part[:-2]}.{part[-1]}{part[-2]}"
    if len(part) > 1 and part[-2].isdecimal() and part[-1] in "kmbt":
        part = part[:-1] + part[-1].upper()
    number = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBT])", part)
    if number and parameters:
        size = float(number[1]) * 1000.0 ** (" KMBT".index(number[2]))
        if abs(size - parameters) > 7 * parameters // 8:  # a context length, say
            return part[:-1] + part[-1].lower(), "finetune"
    return part, "size_label"


def _split_basename(
    kinds: list[tuple[str, str | None]],
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the words and versions that a name begins with, and the rest; versions end none."""
    length = 0
    while length < len(kinds):
        part, kind = kinds[length]
        if kind != "version" and not (kind is None and part[0].isalpha()):
            break
        length += 1
    if length == len(kinds):
        while length and kinds[length - 1][1]:
            length -= 1
    rest = [(part, kind or "finetune") for part, kind in kinds[length:]]
    return [part for part, _ in kinds[:length]], rest


def _hub_name(config: Config) -> str | None:
    """Return the name that the config knows, unless it is a path on somebody's disk."""
    name = config.get("_name_or_path")
    return name if isinstance(name, str) and name.count("/") <= 1 else None


def _first(card: Card, entries: Iterable[str]) -> str | None:
    for entry in entries:
        found = card.get(entry)
        if found:
            return found if isinstance(found, str) else ",".join(found)
    return None


def _every(card: Card, entries: Iterable[str]) -> list[str]:
    found = [card[entry] for entry in entries if entry in card]
    return [word for item in found for word in ([item] if isinstance(item, str) else item)]


def _parents(card: Card, parameters: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for key, entries in PARENTS:
        parents = _every(card, [next((e for e in entries if e in card), "")])
        if not parents:
            continue
        metadata[f"general.{key}.count"] = scalar("u32", len(parents))
        for number, parent in enumerate(parents):
            for part, text in _parent(parent, parameters).items():
                metadata[f"general.{key}.{number}.{part}"] = string(text)
    return metadata


def _parent(model_id: str, parameters: int) -> dict[str, str]:
    """Return what the name or the address of another model or data set tells."""
    is_url = model_id.startswith(("http://", "https://", "ssh://"))
    on_hub = re.fullmatch(r"https?://huggingface.co/([^/]+/[^/]+)", model_id)
    name = on_hub[1] if on_hub else None if is_url else model_id
    told = _titled(name_parts(name, parameters))
    known = ("name", "version", "organization")
    found = {key: text for key, text in told.items() if key in known}
    if is_url:
        found["repo_url"] = model_id
    elif "organization" in found:
        found["repo_url"] = f"https://huggingface.co/{model_id}"
    return found


def _lists(card: Card) -> dict[str, Value]:
    found = {key: _every(card, entries) for key, entries in LISTS}
    return {f"general.{key}": array("string", words) for key, words in found.items() if words}


def _sampling(files: Mapping[str, bytes]) -> dict[str, Value]:
    """Return what generation_config.json recommends; entries of another type are no advice."""
    metadata: dict[str, Value] = {}
    try:
        advice = parse_json(files.get(GENERATION, b"{}"), GENERATION)
    except Error:
        return metadata
    for key, entry, kind in SAMPLING:
        if advice.get(entry) is not None:
            try:
                metadata[f"general.sampling.{key}"] = typed(kind, advice[entry], entry)
            except Error:
                continue
    return metadata
