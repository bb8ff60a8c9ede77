"""WordPiece both ways: MiniLM's tokenizer, and what others do that llama.cpp does otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from support import llamacpp, packages
from support.bert_text import LONG, MARKS, NEWER
from support.bert_text import PLAIN as PLAIN_TEXT
from support.encoders import MINILM, cased_wordpiece, minilm
from support.vocabularies import (
    arrays_of,
    corpus,
    llama_cpp,
    read_gguf,
    vocabulary_size,
)
from transformers import AutoTokenizer

from weighbridge.converters.tokenizers import from_gguf, keys, to_gguf
from weighbridge.converters.tokenizers.behaviour import DIFFERENCES, differences
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.metadata import array, scalar, string

SIZE = 30522

BERT = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}

CASED = BERT | {"lowercase": False}

FOREIGN = {
    "tokenizer.ggml.token_type_count": "of the model, not of the tokenizer",
    "tokenizer.huggingface.json": "the whole file, which the converter never writes",
}
"""Keys that only one of us has."""

ONLY_DIFFERENT = ("truncation", "padding")
"""What a model's own tokenizer.json says for its use, and GGUF does not."""

LINES = [line for line in corpus() if not any(one.where(line) for one in (MARKS, NEWER, LONG))]


@pytest.fixture(scope="module")
def converted():
    return to_gguf(minilm(), {"pad_token_id": 0}, vocab_size=SIZE)


@pytest.fixture(scope="module")
def built(converted):
    return from_gguf(arrays_of(converted.metadata))


def load(files):
    tokenizer = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def changed(normalizer=None, files=None, **entries):
    """Return the trained tokenizer with another normalizer, or others of its entries."""
    files = files or cased_wordpiece()
    document = json.loads(files["tokenizer.json"]) | {"normalizer": normalizer} | entries
    return {**files, "tokenizer.json": json.dumps(document).encode()}


def test_key_values_are_those_of_llama_cpps_converter(converted, tmp_path):
    folder = next(Path(tokenizers.__file__).parents[1].glob(f"{MINILM}/model"))
    theirs = read_gguf(llamacpp.convert(folder, tmp_path / "minilm.gguf"))
    files = packages.files(MINILM, "tokenizer.json", "tokenizer_config.json", "config.json")
    ours = to_gguf(files, json.loads(files["config.json"]), vocab_size=SIZE).metadata
    assert {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)} == set(FOREIGN)
    assert [key for key in ours if key not in FOREIGN] == [
        key for key in theirs if key not in FOREIGN
    ]
    assert ours == converted.metadata


def test_the_whole_file_comes_back(converted, built):
    original, again = (json.loads(files["tokenizer.json"]) for files in (minilm(), built))
    assert {name for name in original if original[name] != again[name]} == set(ONLY_DIFFERENT)
    assert list(again["model"]["vocab"]) == list(original["model"]["vocab"])
    carried = from_gguf(converted.metadata)
    assert carried["tokenizer.json"] == minilm()["tokenizer.json"]


def test_another_way_changes_nothing(converted, built):
    again = to_gguf(built, {}, vocab_size=SIZE).metadata
    assert arrays_of(again) == arrays_of(converted.metadata)
    assert list(again) == list(converted.metadata)


PAIR = ["[CLS]", "how", "heavy", "?", "[SEP]", "twelve", "tonnes", ".", "[SEP]"]


def test_pairs_are_put_together_as_before(built):
    original, again = load(minilm()), load(built)
    for tokenizer in (original, again):
        encoding = tokenizer.encode("How heavy?", "Twelve tonnes.")
        assert encoding.tokens == PAIR
        assert encoding.type_ids == [0] * 5 + [1] * 4


def test_transformers_loads_the_files(built, tmp_path):
    for name, content in built.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    loaded, original = AutoTokenizer.from_pretrained(tmp_path), load(minilm())
    for line in corpus():
        assert loaded(line)["input_ids"] == original.encode(line).ids, line
    roles = ("cls", "sep", "pad", "unk", "mask")
    assert [getattr(loaded, f"{role}_token") for role in roles] == [
        f"[{role.upper()}]" for role in roles
    ]
    assert loaded.decode(loaded("It rains, we wait.")["input_ids"][1:-1]) == "it rains, we wait."


NORMALIZERS = {
    "uncased": (BERT, {"lowercase": True}),
    "cased": (CASED, {"lowercase": False}),
    "accents kept": (
        BERT | {"strip_accents": False},
        {"lowercase": True, "strip_accents": False},
    ),
    "accents alone": (
        BERT | {"lowercase": False, "strip_accents": True},
        {"lowercase": False, "strip_accents": True},
    ),
    "steps": (
        {
            "type": "Sequence",
            "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}],
        },
        {"lowercase": True, "strip_accents": True},
    ),
    # The converter says nothing here of what llama.cpp would do, and the tokenizer does not.
    "small letters alone": ({"type": "Lowercase"}, {"lowercase": True, "strip_accents": False}),
    "nothing": (None, {"lowercase": False, "strip_accents": False}),
}
"""Name -> the normalizer, and what the key-values say."""


@pytest.mark.parametrize(("normalizer", "said"), NORMALIZERS.values(), ids=NORMALIZERS)
def test_llama_cpp_is_told_what_is_done_to_letters(normalizer, said, tmp_path):
    files = changed(normalizer)
    result = to_gguf(files, {}, vocab_size=vocabulary_size(files))
    flags = {"lowercase": keys.LOWERCASE, "strip_accents": keys.STRIP_ACCENTS}
    found = {name: result.metadata.get(key) for name, key in flags.items()}
    assert {name: value.data for name, value in found.items() if value} == said
    original = load(files)
    lines = [line for line in LINES if "\u0130" not in line]
    if BERT["type"] not in str(normalizer):  # it would do more, and llama.cpp does
        lines = [line for line in lines if PLAIN_TEXT.normalize_str(line) == line]
    with llama_cpp(arrays_of(result.metadata), tmp_path) as encode:
        for line in lines:
            assert encode(line, True) == original.encode(line, add_special_tokens=False).ids, line
    again = load(from_gguf(arrays_of(result.metadata)))
    for line in lines:
        assert again.encode(line).ids == original.encode(line).ids, line


TOLD = {
    "llama.cpp takes every mark": {"normalizer": BERT},
    "an i with a dot": {"normalizer": BERT | {"strip_accents": False}},
    "newer versions of Unicode": {},
    "more than 7 characters": {
        "model": {"type": "WordPiece", "max_input_chars_per_word": 7},
    },
    "drops control characters": {"normalizer": CASED | {"clean_text": False}},
    "every Chinese character": {"normalizer": CASED | {"handle_chinese_chars": False}},
    "the normalizers ('NFKC',)": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, CASED]}
    },
    "this tokenizer with ('Whitespace',)": {"pre_tokenizer": {"type": "Whitespace"}},
    "one after every text": {"post_processor": None},
    "that users added: ('scale',)": {
        "added_tokens": [{"id": 5, "content": "scale", "special": False}]
    },
}
"""What is told -> the entries of a tokenizer.json that it is told of."""

PLAIN = {
    "normalizer": CASED,
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing"},
    "model": {"type": "WordPiece"},
}


@pytest.mark.parametrize(("told", "entries"), TOLD.items())
def test_differences_are_told_by_name(told, entries):
    always = 2
    sentences = differences(PLAIN | entries)
    assert [told in sentence for sentence in sentences].count(True) == 1
    assert len(sentences) <= always + 1
    assert len(differences(PLAIN)) == always


def test_every_difference_is_tested():
    assert len(TOLD) == len(DIFFERENCES)


def test_a_tokens_phantom_space_and_type():
    """As the converter does: what users added gets one too, though it is then not found."""
    vocab = {"[UNK]": 0, "a": 1, "##b": 2, "##\u2581": 3, "\u2581": 4, "[unused0]": 5}
    added = [
        {"id": 0, "content": "[UNK]", "special": True},
        {"id": 6, "content": "user", "special": False, "normalized": True},
        {"id": 7, "content": "<|looks|>", "special": False},
    ]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab}
    model |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    files = changed(BERT, model=model, added_tokens=added, post_processor=None)
    metadata = arrays_of(to_gguf(files, {}, vocab_size=9).metadata)
    assert list(zip(metadata[keys.TOKENS].data, metadata[keys.TOKEN_TYPE].data, strict=True)) == [
        ("[UNK]", 3),
        ("\u2581a", 1),
        ("b", 1),
        ("\u2581", 1),
        ("\u2581\u2581", 1),
        ("\u2581[unused0]", 1),
        ("\u2581user", 4),
        ("<|looks|>", 3),
        ("\u2581[PAD8]", 5),
    ]
    document = json.loads(from_gguf(metadata)["tokenizer.json"])
    assert document["model"]["vocab"] == vocab
    assert [(one["id"], one["content"], one["special"]) for one in document["added_tokens"]] == [
        (0, "[UNK]", True),
        (6, "user", False),
        (7, "<|looks|>", True),
    ]


def test_the_unknown_token_that_the_model_names():
    files = {"tokenizer.json": cased_wordpiece()["tokenizer.json"]}
    metadata = to_gguf(files, {}, vocab_size=3000).metadata
    assert metadata[keys.TOKEN_IDS["unk"]] == scalar("u32", 1)


def test_tokens_that_would_be_spelled_alike_are_refused():
    vocab = {"[UNK]": 0, "a": 1, "##\u2581a": 2}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab}
    files = changed(BERT, model=model, added_tokens=[])
    with pytest.raises(Unsupported) as refused:
        to_gguf(files, {}, vocab_size=3000)
    assert refused.value.rule == "duplicate-token"


def test_a_name_given_by_the_user_is_written_though_nobody_reads_it():
    result = to_gguf(cased_wordpiece(), {}, vocab_size=3000, pre="bert-bge")
    assert result.metadata[keys.PRE] == string("bert-bge")
    assert any("reads no pre-tokenizer" in warning for warning in result.warnings)


def small(**entries):
    """Return the key-values of a small vocabulary as an older converter wrote them."""
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "\u2581a", "b"]
    ids = {"unknown": 2, "bos": 3, "seperator": 4, "padding": 0}
    metadata = {
        keys.MODEL: string("bert"),
        keys.TOKENS: array("string", tokens),
        keys.TOKEN_TYPE: array("i32", [3, 1, 3, 3, 3, 1, 1]),
        **{f"tokenizer.ggml.{role}_token_id": scalar("u32", n) for role, n in ids.items()},
    }
    return metadata | entries


def test_files_of_older_converters_are_read():
    files = from_gguf(small())
    tokenizer = load(files)
    assert tokenizer.encode("A\u0301B").tokens == ["[CLS]", "a", "##b", "[SEP]"]
    assert tokenizer.token_to_id("[unused0]") == 1
    assert json.loads(files["tokenizer_config.json"])["cls_token"] == "[CLS]"


BAD = {
    "no unknown token": ({keys.TOKEN_IDS["unk"]: None}, "missing-key"),
    "an id beyond": ({keys.TOKEN_IDS["sep"]: scalar("u32", 7)}, "token-id"),
    "a number for a flag": ({keys.LOWERCASE: scalar("u32", 1)}, "value-type"),
    "types of others": ({keys.TOKEN_TYPE: array("i32", [1])}, "token-type"),
    "tokens twice": ({keys.TOKENS: array("string", ["a"] * 7)}, "duplicate-token"),
    "tokens twice, once marked": (
        {keys.TOKENS: array("string", ["[PAD]", "[PAD]", *"cdefg"])},
        "duplicate-token",
    ),
}


@pytest.mark.parametrize(("entries", "rule"), BAD.values(), ids=BAD)
def test_arrays_that_make_no_vocabulary_are_refused(entries, rule):
    metadata = {key: value for key, value in small(**entries).items() if value}
    with pytest.raises(InvalidFile) as refused:
        from_gguf(metadata)
    assert refused.value.rule == rule
