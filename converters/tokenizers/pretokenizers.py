r"""From the structure of a tokenizer.json to the name that llama.cpp has for it, and back.

Two tokenizers cut alike if their steps are equal once they are written in one way: a digit step is
a split at ``\p{N}``, ``ByteLevel`` with its own pattern is a split before the bytes, an inverted
split that drops nothing is a plain one, and a few patterns have several spellings.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers.patterns import CONTRACTIONS, GPT2, TABLE, PreTokenizer
from weighbridge.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.converters.tokenizers.document import Document

Plain = tuple[tuple[str, ...], ...]
"""Steps written in the one way, comparable."""

BYTE_LEVEL = ("bytes",)

ROBERTA = "RobertaProcessing"
"""The post-processor of RoBERTa's tokenizers."""

SPELLINGS = (
    # The same characters, literally and escaped.
    ("\r", r"\r"),
    ("\n", r"\n"),
    ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", CONTRACTIONS),
    ("'(?i:[sdmt]|ll|ve|re)", CONTRACTIONS),
    # What follows a possessive quantifier in these patterns never begins with what it took.
    ("]?+", "]?"),
    ("]++", "]+"),
    ("]*+", "]*"),
    ("}++", "}+"),
    (r"\p{N}{1}|", r"\p{N}|"),
    # Spaces are greedy and reach the last line break by themselves.
    (r"|\s*[\r\n]|", r"|\s*[\r\n]+|"),
)
"""Spellings of parts of patterns -> the one that is compared."""

LONE_SPACE = re.compile(r"\|\\s\+\(\?!\\S\)\|\\s$")
r"""The end of a pattern where one space is left after all others: ``\s`` and ``\s+`` are alike."""


def row(name: str) -> PreTokenizer:
    """Return what a name of ``tokenizer.ggml.pre`` stands for.

    Raises:
        Unsupported: (rule ``pre-tokenizer``) for a name that is not in the table.

    Example:
        >>> row("smollm").steps[0]
        {'type': 'Digits', 'individual_digits': True}
    """
    if name not in TABLE:
        raise Unsupported(
            "the pre-tokenizer is not one that is known",
            rule="pre-tokenizer",
            got=name,
            expected=f"one of {', '.join(sorted(TABLE))}",
        )
    return TABLE[name]


def recognise(document: Document, *, tidies: bool | None = None) -> PreTokenizer | None:
    """Return the row that cuts as a tokenizer.json does, None where there is none.

    Of several that cut alike, the first of the table wins that agrees in whether merges are
    ignored, then in the normalizer, in who surrounds texts, in the spelling, and in `tidies`.

    Args:
        document: the tokenizer.json.
        tidies: whether tokenizer_config.json wants spaces dropped before punctuation, None where
            it does not say.

    Raises:
        Unsupported: (rule ``normalizer``) when the text is changed in a way that llama.cpp cannot
            leave out.

    Example:
        >>> steps = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        >>> recognise({"pre_tokenizer": steps}).name
        'gpt-2'
    """
    steps = list(flat(document.get("pre_tokenizer"), "pretokenizers"))
    normalizer = normalizer_of(document)
    ignores = _ignores_merges(document)
    candidates = _by_steps().get(plain(steps), [])
    spelling = [dict(step) for step in steps]
    processor = document.get("post_processor")
    is_roberta = isinstance(processor, Mapping) and processor.get("type") == ROBERTA
    return max(
        candidates,
        default=None,
        key=lambda known: (
            known.ignore_merges == ignores,
            known.normalizer == normalizer,
            known.adds_sep == is_roberta,
            _essence(known.steps) == _essence(spelling),
            tidies in (None, known.tidies),
        ),
    )


def normalizer_of(document: Document) -> str | None:
    """Return the type of the normalizer, None where the text is left as it is.

    Raises:
        Unsupported: (rule ``normalizer``) for one other than NFC.

    Example:
        >>> normalizer_of({"normalizer": {"type": "NFC"}})
        'NFC'
    """
    kinds = [step.get("type") for step in flat(document.get("normalizer"), "normalizers")]
    if kinds not in ([], ["NFC"]):
        raise Unsupported(
            "the normalizer is not one that byte-level BPE has in llama.cpp",
            rule="normalizer",
            got=kinds,
            expected="none, or NFC",
        )
    return "NFC" if kinds else None


def _ignores_merges(document: Document) -> bool:
    model = document.get("model")
    return isinstance(model, Mapping) and model.get("ignore_merges") is True


def is_byte_level(document: Document) -> bool:
    """Say whether a tokenizer.json spells bytes as characters.

    Example:
        >>> is_byte_level({"pre_tokenizer": {"type": "Whitespace"}})
        False
    """
    return BYTE_LEVEL in plain(flat(document.get("pre_tokenizer"), "pretokenizers"))


def adds_prefix(document: Document) -> bool:
    """Say whether a tokenizer.json puts a space before every text that begins with none.

    Example:
        >>> adds_prefix({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}})
        True
    """
    return any(
        step.get("type") == "ByteLevel" and step.get("add_prefix_space", True) is True
        for step in flat(document.get("pre_tokenizer"), "pretokenizers")
    )


def describe(document: Document) -> str:
    """Return the steps of a pre-tokenizer, for people.

    Example:
        >>> describe({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a+"}}})
        "Split 'a+'"
    """
    return ", ".join(
        str(step.get("type")) + (f" {_regex(step)!r}" if _regex(step) else "")
        for step in flat(document.get("pre_tokenizer"), "pretokenizers")
    )


def _regex(step: Mapping[str, object]) -> str | None:
    pattern = step.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    return regex if isinstance(regex, str) else None


def flat(step: object, inner: str) -> Iterator[Mapping[str, object]]:
    """Yield the steps of a pre-tokenizer or normalizer; a sequence within one is left as it is.

    Args:
        step: the entry of tokenizer.json.
        inner: what a sequence calls its steps.

    Example:
        >>> list(flat({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, "normalizers"))
        [{'type': 'NFC'}]
    """
    if not isinstance(step, Mapping):
        return
    steps = step.get(inner) if step.get("type") == "Sequence" else [step]
    for one in steps if isinstance(steps, list) else []:
        yield one if isinstance(one, Mapping) else {}


def _essence(steps: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return steps without what moves offsets only."""
    return [{k: v for k, v in step.items() if k != "trim_offsets"} for step in steps]


@cache
def _by_steps() -> Mapping[Plain, list[PreTokenizer]]:
    rows = defaultdict(list)
    for known in TABLE.values():
        if known.found:
            rows[plain(known.steps)].append(known)
    return dict(rows)


def plain(steps: Iterable[Mapping[str, object]]) -> Plain:
    r"""Return steps written in the one way that can be compared.

    Example:
        >>> plain([{"type": "Digits", "individual_digits": True}])
        (('split', '\\p{N}'),)
    """
    return tuple(one for step in steps for one in _plain_step(step))


def _plain_step(step: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    kind = step.get("type")
    if kind == "ByteLevel":
        if step.get("use_regex", True):
            yield ("split", GPT2)
        yield BYTE_LEVEL
    elif kind == "Digits":
        yield ("split", r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
    elif kind == "Split":
        yield _plain_split(step)
    else:
        yield (str(kind), str(step.get("behavior")))


def _plain_split(step: Mapping[str, object]) -> tuple[str, ...]:
    regex = _regex(step)
    if regex is None:
        return ("split", "", str(step.get("pattern")))
    regex = spelling(regex)
    behavior, invert = str(step.get("behavior")), bool(step.get("invert"))
    keeps_all = behavior == "Isolated" or (behavior == "Removed" and invert and _covers(regex))
    return ("split", regex) if keeps_all else ("split", regex, behavior, str(invert))


def spelling(pattern: str) -> str:
    r"""Return a pattern in the spelling that is compared.

    Example:
        >>> spelling(r"[^\s\p{L}\p{N}]++[\r\n]*")
        '[^\\s\\p{L}\\p{N}]+[\\r\\n]*'
    """
    for variant, usual in SPELLINGS:
        pattern = pattern.replace(variant, usual)
    return LONE_SPACE.sub(lambda tail: tail[0] + "+", pattern)


def _covers(pattern: str) -> bool:
    """Say whether a pattern matches everywhere: letters, digits, the rest, and spaces last."""
    return r"[^\s\p{L}" in pattern and pattern.endswith(r"|\s+(?!\S)|\s+")
