"""What a WordPiece tokenizer.json does to a text that llama.cpp does otherwise.

llama.cpp has one way for this kind, that of the English BERT; GGUF can tell it to leave capitals or
accents alone. Each difference is told by name.

Sources: the `tokenizers` library (``BertNormalizer``, ``BertPreTokenizer``, ``WordPiece``);
``llm_tokenizer_wpm_session`` of llama.cpp's ``src/llama-vocab.cpp``; and a comparison of the two
for every character.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.converters.tokenizers import normalizers
from weighbridge.converters.tokenizers.document import added_tokens, part
from weighbridge.converters.tokenizers.pretokenizers import flat

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.converters.tokenizers.document import Document

MOST_CHARACTERS = 100
"""How long a word may be, if tokenizer.json does not say."""

PRE_TOKENIZER = "BertPreTokenizer"


@dataclass(frozen=True)
class Behaviour:
    """What a tokenizer.json does.

    Attributes:
        lowercase: whether capitals become small letters.
        strips_accents: whether accents are taken off letters.
        cleans: whether control characters are dropped.
        parts_ideographs: whether every Chinese character is a word.
        normalizers: the steps that GGUF has no word for.
        cutters: the pre-tokenizers.
        most: how many characters a word may have.
        surrounds: whether a text gets tokens before and after it.
        users: the tokens that users added.
    """

    lowercase: bool
    strips_accents: bool
    cleans: bool
    parts_ideographs: bool
    normalizers: tuple[str, ...]
    cutters: tuple[str, ...]
    most: int
    surrounds: bool
    users: tuple[str, ...]


def read(document: Document) -> Behaviour:
    """Return what a tokenizer.json does."""
    steps = list(normalizers.steps(document))
    bert = next((step for step in steps if step.get("type") == normalizers.BERT), None)
    flags = normalizers.read(document)
    lowercase = bool(flags.lowercase)
    unsaid = lowercase and bert is not None
    strips = unsaid if flags.strip_accents is None else flags.strip_accents
    known = normalizers.STEPS if strips else normalizers.STEPS - {"NFD"}
    names = [str(step.get("type")) for step in steps]
    cutters = flat(document.get("pre_tokenizer"), "pretokenizers")
    model = part(document, "model", dict)
    return Behaviour(
        lowercase=lowercase,
        strips_accents=strips,
        cleans=bert is not None and bert.get("clean_text") is not False,
        parts_ideographs=bert is not None and bert.get("handle_chinese_chars") is not False,
        normalizers=tuple(name for name in names if name not in known),
        cutters=tuple(str(step.get("type")) for step in cutters),
        most=part(model, "max_input_chars_per_word", int, MOST_CHARACTERS),
        surrounds=document.get("post_processor") is not None,
        users=tuple(token.content for token in added_tokens(document) if not token.special),
    )


DIFFERENCES: tuple[tuple[Callable[[Behaviour], object], str], ...] = (
    (
        lambda done: done.strips_accents,
        "llama.cpp takes every mark off letters and leaves the first letter of a Korean syllable, "
        "where this tokenizer takes off accents: Korean and most scripts of South Asia are encoded "
        "differently",
    ),
    (
        lambda done: done.lowercase and not done.strips_accents,
        "llama.cpp makes i of \u0130, this tokenizer an i with a dot above",
    ),
    (
        lambda done: True,
        "llama.cpp also cuts words at vertical tabs, form feeds, U+0085, U+2581 and the "
        "punctuation of newer versions of Unicode, and drops newer characters that are not seen",
    ),
    (
        lambda done: True,
        "llama.cpp encodes words of more than {0.most} characters, unknown ones to this tokenizer",
    ),
    (
        lambda done: not done.cleans,
        "llama.cpp drops control characters, this tokenizer does not",
    ),
    (
        lambda done: not done.parts_ideographs,
        "llama.cpp makes a word of every Chinese character, this tokenizer does not",
    ),
    (
        lambda done: done.normalizers,
        "llama.cpp does not do what the normalizers {0.normalizers} do",
    ),
    (
        lambda done: done.cutters != (PRE_TOKENIZER,),
        "llama.cpp cuts at spaces and around punctuation, this tokenizer with {0.cutters}",
    ),
    (
        lambda done: not done.surrounds,
        "llama.cpp puts a token before and one after every text, this tokenizer does not",
    ),
    (
        lambda done: done.users,
        "llama.cpp does not find the tokens that users added: {0.users}",
    ),
)
"""When llama.cpp differs, and how."""


def differences(document: Document) -> list[str]:
    """Return where llama.cpp encodes otherwise than a tokenizer.json, one sentence for each.

    Example:
        >>> document = {"model": {"type": "WordPiece"}, "normalizer": {"type": "NFKC"}}
        >>> [sentence for sentence in differences(document) if "NFKC" in sentence]
        ["llama.cpp does not do what the normalizers ('NFKC',) do"]
    """
    done = read(document)
    return [sentence.format(done) for differs, sentence in DIFFERENCES if differs(done)]
