"""Unigram both ways: the tokenizer of T5's tests, and trained ones built as T5's and XLM-RoBERTa's.

Thousands of lines are encoded by the original, by the tokenizer that is rebuilt from the arrays of
our GGUF, and by llama.cpp.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import tokenizers
from support import sentencepieces as sp
from support.corpus import Reason, lines
from support.vocabularies import arrays_of

from weighbridge.converters.tokenizers import from_gguf, keys, to_gguf
from weighbridge.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from weighbridge.metadata import Metadata

    Files = Mapping[str, bytes]

SPECIALS = ("<s>", "</s>", "<unk>", "<pad>", "<mask>", "<extra_id_7>", "<extra_id_70>")

TRAINED = {"spiece.model": sp.trained(sp.T5)}
"""A model file; all character maps here are the same one."""


@cache
def _normalizers() -> tuple[tokenizers.normalizers.Normalizer, Callable[[str], str]]:
    """Return what uses the character map: `tokenizers`, and SentencePiece."""
    return sp.load(_t5()).normalizer, sp.processor(TRAINED).normalize


def _mapped(line: str) -> str:
    return str(_normalizers()[0].normalize_str(line))


def _without_spaces(line: str) -> str:
    return "".join(line.replace("▁", "").split())


GRAPHEMES = Reason(
    "HF looks for what people see as one character in the map first, and for its beginning alone",
    lambda line: _without_spaces(_mapped(line)) != _without_spaces(_normalizers()[1](line)),
    "marks upon letters",
)
WHITE_SPACE = Reason(
    "HF cuts at white space that the map of characters leaves, SentencePiece and llama.cpp do not",
    lambda line: any(c.isspace() and c != " " for c in _mapped(line)),
    "not at other white space",
)
SPECIAL_TEXT = Reason(
    "HF takes a special token's text for the token even where it is to be read as text",
    lambda line: any(token in line for token in SPECIALS),
)
ONLY_SPACES = Reason(
    "llama.cpp puts no space before a text of spaces alone",
    lambda line: not line.strip(" ") or any(token in line for token in SPECIALS),
    "spaces alone",
)


@dataclass(frozen=True)
class Case:
    """A tokenizer.

    Attributes:
        files: what makes its side files.
        size: how many embeddings the model has.
        to_llama_cpp: why and where llama.cpp differs from the rebuilt one.
        to_rebuilt: why and where the rebuilt one differs from the original.
        config: config.json.
    """

    files: Callable[[], Files]
    size: int
    to_llama_cpp: tuple[Reason, ...]
    to_rebuilt: tuple[Reason, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


@cache
def _t5() -> Files:
    return sp.saved("T5Tokenizer", "spiece.model", sp.trained(sp.T5))


@cache
def _xlm_roberta() -> Files:
    model = sp.trained(sp.UNIGRAM)
    return sp.saved("XLMRobertaTokenizer", "sentencepiece.bpe.model", model)


HF = (GRAPHEMES, WHITE_SPACE)

CASES = {
    "t5": Case(_t5, 2128, HF),
    "t5, model file": Case(lambda: TRAINED, 2010, HF, HF),
    "t5, all spaces kept": Case(
        lambda: {"spiece.model": sp.trained(sp.KEEPING)}, 2000, (ONLY_SPACES,)
    ),
    "seqio, model file": Case(sp.seqio, 26, HF, HF),
    "xlm-roberta": Case(_xlm_roberta, 2002, HF),
    "xlm-roberta, model file": Case(
        lambda: {"sentencepiece.bpe.model": sp.trained(sp.UNIGRAM)},
        2002,
        HF,
        HF,
        {"model_type": "xlm-roberta"},
    ),
}


def _result(case: Case):
    return to_gguf(case.files(), {"eos_token_id": 1, **case.config}, vocab_size=case.size)


def _unexplained(different: Sequence[str], reasons: Sequence[Reason]) -> list[str]:
    return [line for line in different if not any(reason.where(line) for reason in reasons)]


def _compare(case: Case, count: int, folder) -> None:
    files = case.files()
    arrays = arrays_of(_result(case).metadata)
    texts = lines(count, SPECIALS)
    found = []
    for special in (True, False):
        reasons = (*case.to_llama_cpp, *(() if special else (SPECIAL_TEXT,)))
        rebuilt = sp.encode_rebuilt(arrays, texts, special=special)
        theirs = sp.encode_by_llama_cpp(arrays, texts, folder, special=special)
        different = sp.different(texts, rebuilt, theirs)
        assert _unexplained(different, reasons) == []
        found += different
        if "tokenizer.json" in files:
            original = sp.encode(files, texts, special=special)
            assert sp.different(texts, original, rebuilt) == []
    if count > 1000 and case.size > 1000:  # a reason that is not needed goes
        assert all(any(map(reason.where, found)) for reason in case.to_llama_cpp)


@pytest.mark.parametrize("name", CASES)
def test_500_lines_are_encoded_alike(name, tmp_path):
    _compare(CASES[name], 500, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_5000_lines_are_encoded_alike(name, tmp_path):
    _compare(CASES[name], 5000, tmp_path)


MODEL_FILES = [name for name in CASES if name.endswith(("model file", "kept"))]


@pytest.mark.parametrize("name", MODEL_FILES)
def test_llama_cpp_encodes_as_sentencepiece_does(name, tmp_path):
    """But for ways to cut a text whose scores are the same in the end."""
    case = CASES[name]
    files, arrays = case.files(), arrays_of(_result(case).metadata)
    texts = [line for line in lines(1500) if line.strip(" ")]
    original = sp.encode(files, texts, special=False)
    if "xlm" in name:  # SentencePiece counts from another start
        original = [[3 if token == 0 else token + 1 for token in ids] for ids in original]
    theirs = sp.encode_by_llama_cpp(arrays, texts, tmp_path, special=False)
    different = [
        text
        for text, a, b in zip(texts, original, theirs, strict=True)
        if a != b and abs(_score(a, arrays) - _score(b, arrays)) > 1e-4
    ]
    assert different == []


def _score(ids: Sequence[int], arrays: Metadata) -> float:
    scores = arrays[keys.SCORES].data
    return sum(scores[token] for token in ids)


@pytest.mark.parametrize("name", CASES)
def test_the_conversion_warns_where_llama_cpp_differs(name):
    case = CASES[name]
    warnings = _result(case).warnings
    if "tokenizer.json" in case.files() or name.endswith("kept"):
        for reason in case.to_llama_cpp:
            assert any(reason.warning in warning for warning in warnings), reason.why
    else:  # llama.cpp does what SentencePiece does
        assert warnings == []


@pytest.mark.parametrize("name", [name for name in CASES if "seqio" not in name])  # few letters
def test_the_rebuilt_tokenizer_decodes(name):
    rebuilt = sp.load(from_gguf(arrays_of(_result(CASES[name]).metadata)))
    ids = rebuilt.encode("How heavy is it?", add_special_tokens=False).ids
    assert rebuilt.decode(ids) == "How heavy is it?"


@pytest.mark.parametrize(("name", "first", "between"), [("t5", [], 1), ("xlm-roberta", [0], 2)])
def test_special_tokens_are_put_around_texts(name, first, between):
    files = CASES[name].files()
    original, rebuilt = sp.load(files), sp.load(from_gguf(arrays_of(_result(CASES[name]).metadata)))
    a, b = (original.encode(text, add_special_tokens=False).ids for text in ("a text", "another"))
    end = original.token_to_id("</s>")
    assert original.encode("a text").ids == [*first, *a, end]
    assert rebuilt.encode("a text").ids == [*first, *a, end]
    pair = [*first, *a, *[end] * between, *b, end]
    assert original.encode("a text", "another").ids == pair
    assert rebuilt.encode("a text", "another").ids == pair


@pytest.mark.parametrize("name", ["t5", "xlm-roberta"])
def test_the_rebuilt_file_is_built_as_the_original(name):
    metadata = _result(CASES[name]).metadata
    original = json.loads(CASES[name].files()["tokenizer.json"])
    assert json.loads(from_gguf(metadata)["tokenizer.json"]) == original
    built = json.loads(from_gguf(arrays_of(metadata))["tokenizer.json"])
    assert built["model"].pop("vocab") == [
        [text, pytest.approx(score)] for text, score in original["model"].pop("vocab")
    ]
    for pair in (built, original):  # ids of second texts, which neither family tells apart
        for piece in pair["post_processor"].pop("pair"):
            (part,) = piece.values()
            part.pop("type_id")
        for token in pair["added_tokens"]:  # not kept: whether spaces before a mask are taken
            token.pop("lstrip")
    assert built == original


def test_the_character_map_comes_back():
    metadata = arrays_of(_result(CASES["t5"]).metadata)
    original = sp.load(_t5()).normalizer
    assert isinstance(original, tokenizers.normalizers.Precompiled)
    built = json.loads(from_gguf(metadata)["tokenizer.json"])["normalizer"]
    assert built == json.loads(_t5()["tokenizer.json"])["normalizer"]
    assert len(metadata[keys.CHARSMAP].data) > 200_000


def test_a_model_file_whose_ids_are_others_is_refused():
    files = {"sentencepiece.bpe.model": sp.trained(sp.UNIGRAM)}
    with pytest.raises(Unsupported) as refused:
        to_gguf(files, {"model_type": "camembert"}, vocab_size=2010)
    assert refused.value.rule == "tokenizer-model"
    assert "camembert" in str(refused.value)
