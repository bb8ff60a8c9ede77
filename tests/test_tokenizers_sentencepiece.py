"""SentencePiece BPE both ways: Llama 2's, Mistral's, and trained ones built as Llama's and Gemma's.

Thousands of lines are encoded by the original, by the tokenizer that is rebuilt from the arrays of
our GGUF, and by llama.cpp. The last two never differ.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from support import sentencepieces as sp
from support.corpus import Reason, lines
from support.vocabularies import arrays_of, llama_cpp

from weighbridge.converters.tokenizers import from_gguf, keys, to_gguf
from weighbridge.converters.tokenizers.keys import TokenType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Files = Mapping[str, bytes]

SPECIALS = ("<s>", "</s>", "<unk>", "<bos>", "<eos>", "<pad>", "[INST]", "[/INST]")

SPACE_FIRST = Reason(
    "Metaspace puts no space before a text that begins with one, and none after special tokens",
    lambda line: line.startswith((" ", "▁")) or any(token in line for token in SPECIALS),
    "also if it begins with one",
)
SPACES = Reason(
    "a token of spaces that a user defined is found before anything is merged; HF finds its ▁ only",
    lambda line: "  " in line or "▁▁" in line,
    "tokens of spaces",
)
PHANTOM = Reason(
    "SentencePiece finds a user's token of spaces in ▁ too",
    lambda line: "▁▁" in line or "▁ " in line or " ▁" in line,
)


@dataclass(frozen=True)
class Case:
    """A tokenizer.

    Attributes:
        files: what makes its side files.
        size: how many embeddings the model has.
        reasons: why and where llama.cpp, and the rebuilt one with it, differ from the original.
        config: config.json.
    """

    files: Callable[[], Files]
    size: int
    reasons: tuple[Reason, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


def _llama_model() -> Files:
    return {"tokenizer.model": sp.trained(sp.LLAMA)}


def _gemma_model() -> Files:
    return {"tokenizer.model": sp.trained(sp.GEMMA)}


@cache
def _llama_saved() -> Files:
    return sp.saved("LlamaTokenizer", "tokenizer.model", sp.trained(sp.LLAMA))


@cache
def _gemma_saved() -> Files:
    return sp.saved("GemmaTokenizer", "tokenizer.model", sp.trained(sp.GEMMA))


CASES = {
    "llama 2": Case(sp.llama2, 32000),
    "mistral 1": Case(lambda: sp.mistral(1), 32000),
    "mistral 3": Case(lambda: sp.mistral(3), 32768),
    "as llama, model file": Case(_llama_model, 3007),
    "as llama, saved": Case(_llama_saved, 3000, (SPACE_FIRST,)),
    "as gemma, model file": Case(_gemma_model, 3000, (PHANTOM,)),
    "as gemma, saved": Case(_gemma_saved, 3000, (SPACES,)),
}


def _result(case: Case):
    return to_gguf(case.files(), {"eos_token_id": 2, **case.config}, vocab_size=case.size)


def _compare(case: Case, count: int, folder) -> None:
    files = case.files()
    arrays = arrays_of(_result(case).metadata)
    texts = lines(count, SPECIALS)
    for special in (True, False):
        rebuilt = sp.encode_rebuilt(arrays, texts, special=special)
        theirs = sp.encode_by_llama_cpp(arrays, texts, folder, special=special)
        assert sp.different(texts, rebuilt, theirs) == []
        if special and "tokenizer.json" not in files:
            continue  # SentencePiece takes no text for a special token
        different = sp.different(texts, sp.encode(files, texts, special=special), rebuilt)
        assert [t for t in different if not any(r.where(t) for r in case.reasons)] == []
        for reason in case.reasons if count > 1000 else ():  # one that is not needed goes
            assert any(map(reason.where, different)), reason.why


@pytest.mark.parametrize("name", CASES)
def test_500_lines_are_encoded_alike(name, tmp_path):
    _compare(CASES[name], 500, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_5000_lines_are_encoded_alike(name, tmp_path):
    _compare(CASES[name], 5000, tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_the_conversion_warns_where_llama_cpp_differs(name):
    warnings = _result(CASES[name]).warnings
    for reason in CASES[name].reasons:
        assert any(reason.warning in warning for warning in warnings) or not reason.warning
    if not CASES[name].reasons:
        assert warnings == []


@pytest.mark.parametrize("name", CASES)
def test_the_rebuilt_tokenizer_decodes(name):
    arrays = arrays_of(_result(CASES[name]).metadata)
    rebuilt = sp.load(from_gguf(arrays))
    prefix = "Prepend" in str(rebuilt.normalizer)
    for text in ("How heavy is it?", " two  spaces ", "tab\tand 重さ 🦙"):
        ids = rebuilt.encode(text, add_special_tokens=False).ids
        assert rebuilt.decode(ids) == text, prefix


@pytest.mark.parametrize("name", CASES)
def test_tokenizers_serialises_the_rebuilt_file_as_it_is(name):
    files = from_gguf(arrays_of(_result(CASES[name]).metadata))
    assert json.loads(sp.load(files).to_str()) == json.loads(files["tokenizer.json"])


def test_llama_2_comes_back_as_it_was():
    original = json.loads(sp.llama2()["tokenizer.json"])
    metadata = _result(CASES["llama 2"]).metadata
    assert from_gguf(metadata)["tokenizer.json"] == sp.llama2()["tokenizer.json"]
    built = json.loads(from_gguf(arrays_of(metadata))["tokenizer.json"])
    original["model"]["merges"] = [merge.split(" ") for merge in original["model"]["merges"]]
    assert built == original


def test_scores_of_a_tokenizer_json_are_those_of_the_model_file():
    of_model = _result(CASES["as llama, model file"]).metadata
    of_document = _result(CASES["as llama, saved"]).metadata
    types = of_document[keys.TOKEN_TYPE].data
    normal = [n for n, kind in enumerate(types) if kind == TokenType.NORMAL]
    a, b = (metadata[keys.SCORES].data for metadata in (of_model, of_document))
    assert [a[n] for n in normal] == [b[n] for n in normal]


def test_characters_that_are_no_tokens_stop_llama_cpp_where_there_are_no_bytes(tmp_path):
    files = {"tokenizer.model": sp.trained(sp.BARE)}
    result = to_gguf(files, {"eos_token_id": 2}, vocab_size=3000)
    assert result.warnings == [
        "llama.cpp cannot encode characters that are no tokens: there are no bytes"
    ]
    known = set("".join(result.metadata[keys.TOKENS].data)) | {" "}
    texts = [line for line in lines(1000) if set(line) <= known]
    assert len(texts) > 200
    original = sp.encode(files, texts, special=False)
    assert sp.encode_rebuilt(result.metadata, texts, special=False) == original
    assert sp.encode_by_llama_cpp(result.metadata, texts, tmp_path, special=False) == original
    others = [line for line in lines(1000) if not set(line) <= known]
    original = sp.encode(files, others, special=False)
    assert sp.encode_rebuilt(result.metadata, others, special=False) == original
    with llama_cpp(result.metadata, tmp_path) as encode, pytest.raises(OSError, match="500"):
        encode("🦙", False)


def test_what_a_model_file_does_to_texts_and_llama_cpp_does_not_is_said(tmp_path):
    files = {"tokenizer.model": sp.trained(sp.MAPPED)}
    result = to_gguf(files, {"eos_token_id": 2}, vocab_size=3000)
    assert result.warnings == [
        "llama.cpp does not replace characters, of which this tokenizer has a map",
        "llama.cpp keeps all spaces, of which this tokenizer drops some",
    ]
    texts = lines(500)
    theirs = sp.encode_by_llama_cpp(result.metadata, texts, tmp_path, special=False)
    assert sp.encode_rebuilt(result.metadata, texts, special=False) == theirs
    normalize = sp.processor(files).normalize
    different = sp.different(texts, sp.encode(files, texts, special=False), theirs)
    assert different
    assert all(normalize(text) != "▁" + text.replace(" ", "▁") for text in different)


def _stepping(**parts) -> Files:
    """Return the files of Llama 2 with other parts of tokenizer.json."""
    document = json.loads(sp.llama2()["tokenizer.json"]) | parts
    return {"tokenizer.json": json.dumps(document).encode()}


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
METASPACE = {"type": "Metaspace", "replacement": "▁", "split": True}

WARNED = {
    "a normalizer": ({"normalizers": [{"type": "NFKC"}, REPLACE]}, None, "NFKC"),
    "dropped spaces": (
        {
            "normalizers": [
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                REPLACE,
            ]
        },
        None,
        "keeps all spaces",
    ),
    "a pre-tokenizer": (REPLACE, {"type": "Digits"}, "Digits"),
    "cut words": (None, METASPACE, "tokens with spaces inside"),
    "no space before a space": (None, METASPACE, "also if it begins with one"),
}


@pytest.mark.parametrize(("normalizer", "pre_tokenizer", "warning"), WARNED.values(), ids=WARNED)
def test_steps_that_llama_cpp_does_not_do_are_said(normalizer, pre_tokenizer, warning):
    if normalizer and "normalizers" in normalizer:
        normalizer = {"type": "Sequence", **normalizer}
    files = _stepping(normalizer=normalizer, pre_tokenizer=pre_tokenizer)
    warnings = to_gguf(files, {"eos_token_id": 2}, vocab_size=32000).warnings
    assert any(warning in one for one in warnings)


def test_merges_that_llama_cpp_does_not_know_are_said():
    model = json.loads(sp.llama2()["tokenizer.json"])["model"]
    results = [merge.replace(" ", "") for merge in model["merges"]]
    again = next(n for n in range(1, len(results)) if results[n] == results[n - 1])
    late = [*model["merges"][:again], *model["merges"][again + 1 :], model["merges"][again]]
    for merges in (model["merges"][:-1], late):
        files = _stepping(model={**model, "merges": merges})
        warnings = to_gguf(files, {"eos_token_id": 2}, vocab_size=32000).warnings
        assert any("merges any two tokens" in one for one in warnings)


def test_tokenizer_json_is_believed_about_the_space_before_a_text():
    settings = {"tokenizer_config.json": b'{"add_prefix_space": false}'}
    result = to_gguf({**sp.llama2(), **settings}, {"eos_token_id": 2}, vocab_size=32000)
    assert result.metadata[keys.ADD_PREFIX_SPACE].data is True
    assert any("add_prefix_space" in warning for warning in result.warnings)


def test_added_tokens_beyond_the_embeddings_are_left_out():
    added = {"added_tokens.json": b'{"<pad>": 32000}'}
    result = to_gguf({**sp.mistral(1), **added}, {"eos_token_id": 2}, vocab_size=32000)
    assert len(result.metadata[keys.TOKENS].data) == 32000
    assert any("'<pad>'" in warning for warning in result.warnings)
