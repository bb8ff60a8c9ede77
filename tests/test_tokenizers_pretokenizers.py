"""The table of pre-tokenizers: that each row cuts as llama.cpp does, and that each is recognised.

A vocabulary whose merges cross every border is encoded with each row's tokenizer.json by
`tokenizers` and with each row's name by llama.cpp. Where they differ, `EXCEPTIONS` names why.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING

import pytest
import tokenizers
from support.corpus import Reason
from support.vocabularies import (
    LINE_END,
    arrays_of,
    corpus,
    cutting,
    encoded_lines,
    llama_cpp,
    trained,
    vocabulary_size,
)

from weighbridge.converters.tokenizers import from_gguf, to_gguf
from weighbridge.converters.tokenizers.byte_level_bpe import alphabet
from weighbridge.converters.tokenizers.patterns import (
    BYTES,
    CL100K,
    QWEN2,
    TABLE,
    PreTokenizer,
    byte_level,
    split,
)
from weighbridge.converters.tokenizers.pretokenizers import plain, recognise
from weighbridge.errors import Unsupported
from weighbridge.metadata import array

if TYPE_CHECKING:
    from collections.abc import Callable


def _has(*categories: str, ascii_too: bool = True) -> Callable[[str], bool]:
    return lambda line: any(
        unicodedata.category(c).startswith(categories) and (ascii_too or not c.isascii())
        for c in line
    )


SPELLED = {byte: character for character, byte in alphabet().items()}

NORMALISATION = Reason(
    "llama.cpp does not normalise",
    lambda line: not unicodedata.is_normalized("NFC", line),
)
SPACES = Reason(
    "llama.cpp reads every space beyond ASCII as a vertical tab, out of the reach of ranges",
    lambda line: any(c.isspace() and not c.isascii() for c in line),
)
NUMBERS_WHOLE = Reason(
    "llama.cpp cuts numbers off whole where the file cuts single digits; the vocabulary of these "
    "models has no longer ones",
    lambda line: re.search(r"\d\d", line) is not None or _has("No", "Nl")(line),
)
BYTES_AS_NUMBERS = Reason(
    "the file looks for digits after bytes were spelled as characters, some of which are numbers "
    "(and in words, with the space before them); llama.cpp leaves the step out, which shows in no "
    "token of Falcon's own vocabulary",
    lambda line: any(SPELLED[byte].isnumeric() for byte in line.encode()),
)
MARKS = Reason(
    "llama.cpp's pattern takes no combining marks into words",
    _has("M"),
)
CASE = Reason(
    "llama.cpp tells capitals from small letters in ASCII only",
    _has("L", ascii_too=False),
)
NO_CASE = Reason(
    "llama.cpp does not tell capitals from small letters in these patterns",
    _has("Lu", "Lt"),
)
LONG_S = Reason(
    "without regard to case, the long s is an s: not to llama.cpp",
    lambda line: "\u017f" in line or "\u212a" in line,
)
DIGIT_GROUPS = Reason(
    "llama.cpp leaves the text before a number attached to its first digits, and groups digits "
    "inside words too",
    _has("N"),
)
ASCII_DIGITS = Reason(
    r"llama.cpp's \d is one of ten ASCII characters",
    _has("N", ascii_too=False),
)

HAN = Reason(
    "llama.cpp counts only ideographs as Han, not the marks that repeat them",
    lambda line: "\u3005" in line,
)

EXCEPTIONS: dict[str, tuple[Reason, ...]] = {
    "qwen2": (NORMALISATION,),
    "qwen35": (NORMALISATION,),
    "command-r": (NORMALISATION,),
    "olmo": (NORMALISATION,),
    "deepseek-llm": (NUMBERS_WHOLE, SPACES),
    "deepseek-coder": (SPACES,),
    "falcon": (BYTES_AS_NUMBERS,),
    "tekken": (MARKS, CASE),
    "gpt-4o": (MARKS, CASE, LONG_S),
    "minimax-m2": (NORMALISATION, MARKS, CASE),
    "granite-embed-multi-97m": (CASE, LONG_S),
    "tiny_aya": (DIGIT_GROUPS, NO_CASE, LONG_S),
    "youtu": (NO_CASE, LONG_S),
    "kimi-k2": (MARKS, NO_CASE, HAN, LONG_S),
    "exaone-moe": (LONG_S,),
    "afmoe": (DIGIT_GROUPS,),
    "superbpe": (ASCII_DIGITS,),
}
"""Name -> why lines of the corpus differ; every other line of every row is encoded alike."""


def _behaviours() -> list[PreTokenizer]:
    """Return one row for each way of cutting that llama.cpp has names for."""
    first: dict[object, PreTokenizer] = {}
    for row in TABLE.values():
        first.setdefault((plain(row.steps), row.normalizer, row.ignore_merges), row)
    return list(first.values())


@pytest.mark.parametrize("row", _behaviours(), ids=lambda row: row.name)
def test_the_built_tokenizer_encodes_as_llama_cpp_does(row, tmp_path):
    files = cutting(row)
    metadata = to_gguf(files, {}, vocab_size=vocabulary_size(files), pre=row.name).metadata
    built = from_gguf(arrays_of(metadata))["tokenizer.json"].decode()
    tokenizer = tokenizers.Tokenizer.from_str(built)
    with llama_cpp(arrays_of(metadata), tmp_path) as encode:
        theirs = encode("".join(line + LINE_END for line in corpus()), True)
    ours = [tokenizer.encode(line, add_special_tokens=False).ids for line in corpus()]
    lines = encoded_lines(theirs, tokenizer.token_to_id(LINE_END))
    different = [line for line, a, b in zip(corpus(), ours, lines, strict=True) if a != b]
    reasons = EXCEPTIONS.get(row.name, ())
    assert [line for line in different if not any(reason.where(line) for reason in reasons)] == []
    for reason in reasons:  # a reason that is not needed goes
        assert any(reason.where(line) for line in different), reason.why


def test_the_exceptions_are_of_rows_that_are_tested():
    assert set(EXCEPTIONS) <= {row.name for row in _behaviours()}


@pytest.mark.parametrize("name", TABLE)
def test_llama_cpp_knows_every_name(name, tmp_path):
    files = cutting(TABLE[name])
    metadata = to_gguf(files, {}, vocab_size=vocabulary_size(files), pre=name).metadata
    with llama_cpp(_shortened(metadata), tmp_path) as encode:
        assert encode("<|im_end|>", True) == [2]


def _shortened(metadata):
    """Leave the first 300 tokens, which loads sooner."""
    short = arrays_of(metadata)
    for key, items in (("tokens", "string"), ("token_type", "i32")):
        key = f"tokenizer.ggml.{key}"
        short[key] = array(items, metadata[key].data[:300])
    return short | {"tokenizer.ggml.merges": array("string", ["a b"])}


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.found])
def test_every_structure_is_recognised_as_one_that_cuts_alike(name):
    row = TABLE[name]
    document = json.loads(cutting(row)["tokenizer.json"])
    known = recognise(document)
    assert plain(known.steps) == plain(row.steps)
    assert known.ignore_merges == row.ignore_merges
    assert known.normalizer == row.normalizer


def _document(*steps, normalizer=None, **model):
    return {
        "normalizer": normalizer and {"type": normalizer},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)},
        "model": {"type": "BPE", **model},
    }


SPELLINGS = {
    "plain": (split(CL100K), BYTES),
    "removed-inverted": (split(CL100K, "Removed", invert=True), BYTES),
    "isolated-inverted": (split(CL100K, invert=True), BYTES),
    "escaped-by-hand": (split(CL100K.replace(r"\r", "\r").replace(r"\n", "\n")), BYTES),
    "llama-cpp": (
        split(
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        BYTES,
    ),
    "possessive": (
        split(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
            r"|\s*[\r\n]|\s+(?!\S)|\s+"
        ),
        BYTES,
    ),
    "single-space-last": (
        split(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        BYTES,
    ),
}
"""Ways in which files in use write one pattern."""


@pytest.mark.parametrize("steps", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_one_pattern_are_recognised(steps):
    assert recognise(_document(*steps, ignore_merges=True)).name == "llama-bpe"


@pytest.mark.parametrize("steps", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_one_pattern_do_cut_alike(steps):
    usual, other = (
        tokenizers.Tokenizer.from_str(
            json.dumps(
                {"version": "1.0", **trained(), **_document(*s), "model": trained()["model"]}
            )
        )
        for s in (SPELLINGS["plain"], steps)
    )
    assert usual.encode_batch(corpus()) is not None
    for line in corpus():
        assert usual.encode(line).ids == other.encode(line).ids, line


CHOICES = {
    "llama 3": (_document(split(CL100K), BYTES, ignore_merges=True), None, "llama-bpe"),
    "llama 3, merging": (_document(split(CL100K), BYTES), None, "smaug-bpe"),
    "gpt-4 by another converter": (
        _document(split(CL100K, "Removed", invert=True), BYTES),
        None,
        "dbrx",
    ),
    "qwen 2": (_document(split(QWEN2), BYTES, normalizer="NFC"), False, "qwen2"),
    "qwen 2 without normalizer": (
        _document(split(QWEN2), BYTES),
        False,
        "deepseek-r1-qwen",
    ),
    "starcoder 2": (_document(*TABLE["smollm"].steps), True, "starcoder"),
    "smollm": (_document(*TABLE["smollm"].steps), False, "smollm"),
    "command-r": (_document(*TABLE["smollm"].steps, normalizer="NFC"), False, "command-r"),
    "gpt-2": (_document(byte_level(use_regex=True)), None, "gpt-2"),
    "pythia": (_document(byte_level(use_regex=True), normalizer="NFC"), None, "olmo"),
    "gpt-oss": (_document(*TABLE["gpt-4o"].steps, ignore_merges=True), None, "gpt-4o"),
    "minimax": (_document(*TABLE["minimax-m2"].steps, normalizer="NFC"), None, "minimax-m2"),
    "ling": (_document(*TABLE["bailingmoe"].steps), False, "bailingmoe"),
}
"""Structures in use -> whether spaces are tidied, and the name that llama.cpp's converter gives."""


@pytest.mark.parametrize(("document", "tidies", "name"), CHOICES.values(), ids=CHOICES)
def test_the_name_is_the_one_that_llama_cpp_would_give(document, tidies, name):
    assert recognise(document, tidies=tidies).name == name


def test_merges_that_llama_cpp_would_treat_otherwise_are_told():
    row = PreTokenizer("gpt-oss", TABLE["gpt-4o"].steps, ignore_merges=True)
    files = cutting(row)
    result = to_gguf(files, {}, vocab_size=vocabulary_size(files))
    assert ["take pieces that are tokens whole" in warning for warning in result.warnings] == [True]


UNKNOWN = {
    "another pattern": _document(split(r"\w+"), BYTES),
    "a covered pattern that drops gaps": _document(split(r"\p{L}+", "Removed", invert=True), BYTES),
    "another step": _document({"type": "UnicodeScripts"}, BYTES),
    "no step": _document(),
    "a text as the pattern": _document({**split("x"), "pattern": {"String": "x"}}, BYTES),
    "a sequence in a sequence": _document({"type": "Sequence", "pretokenizers": [BYTES]}),
    "nonsense": {"pre_tokenizer": ["x"]},
}


@pytest.mark.parametrize("document", UNKNOWN.values(), ids=UNKNOWN)
def test_other_structures_are_not_recognised(document):
    assert recognise(document) is None


def test_the_unknown_is_the_default_with_a_warning_that_names_it():
    row = PreTokenizer("mine", (split(r"\w+"), BYTES))
    files = cutting(row)
    result = to_gguf(files, {}, vocab_size=vocabulary_size(files))
    assert result.metadata["tokenizer.ggml.pre"].data == "default"
    (warning,) = (one for one in result.warnings if "--pre-tokenizer" in one)
    assert r"Split '\\w+', ByteLevel" in warning
    named = to_gguf(files, {}, vocab_size=vocabulary_size(files), pre="gpt-2")
    assert named.metadata["tokenizer.ggml.pre"].data == "gpt-2"
    assert not any("--pre-tokenizer" in one for one in named.warnings)


def test_a_space_before_every_text_is_told_and_kept():
    row = PreTokenizer("mine", (byte_level(use_regex=True) | {"add_prefix_space": True},))
    files = cutting(row)
    result = to_gguf(files, {}, vocab_size=vocabulary_size(files))
    assert result.metadata["tokenizer.ggml.pre"].data == "gpt-2"
    assert ["puts no space" in warning for warning in result.warnings] == [True]
    built = json.loads(from_gguf(arrays_of(result.metadata))["tokenizer.json"])
    assert built["pre_tokenizer"]["add_prefix_space"] is True


def test_other_normalizers_are_refused():
    document = _document(BYTES) | {"normalizer": {"type": "Lowercase"}}
    with pytest.raises(Unsupported) as refused:
        recognise(document)
    assert refused.value.rule == "normalizer"


def test_a_name_given_by_the_user_wins():
    files = cutting(TABLE["qwen2"])
    size = vocabulary_size(files)
    metadata = to_gguf(files, {}, vocab_size=size, pre="llama-bpe").metadata
    assert metadata["tokenizer.ggml.pre"].data == "llama-bpe"
    with pytest.raises(Unsupported) as refused:
        to_gguf(files, {}, vocab_size=size, pre="nobody")
    assert refused.value.rule == "pre-tokenizer"


def test_a_file_without_a_name_means_the_default():
    files = cutting(TABLE["default"])
    metadata = arrays_of(to_gguf(files, {}, vocab_size=vocabulary_size(files)).metadata)
    del metadata["tokenizer.ggml.pre"]
    document = json.loads(from_gguf(metadata)["tokenizer.json"])
    assert document["pre_tokenizer"]["pretokenizers"] == list(TABLE["default"].steps)
