"""Files and key-values that make no tokenizer: one rule for each, and nothing else ever raised."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.converters.tokenizers import from_gguf, generation_ids, keys, to_gguf
from weighbridge.errors import Error, InvalidFile, InvalidInput, NotFound, Unsupported
from weighbridge.metadata import array, scalar, string

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
MODEL = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
SMALL = {"version": "1.0", "pre_tokenizer": GPT2, "model": MODEL, "added_tokens": []}


def files_of(document, **others):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {"tokenizer.json": content, **others}


def model(**entries):
    return SMALL | {"model": MODEL | entries}


def added(**entries):
    return SMALL | {"added_tokens": [{"id": 3, "content": "x", "special": True} | entries]}


SETTINGS = {"tokenizer_config.json": b"{}"}

BAD_FILES = {
    "no file": ({}, NotFound, "tokenizer-missing"),
    "no JSON": (files_of(b"{"), InvalidFile, "json"),
    "no object": (files_of(b"[]"), InvalidFile, "json"),
    "another encoding": (files_of(json.dumps(SMALL).encode("utf-16")), InvalidFile, "utf-8"),
    "half a surrogate pair": (
        files_of(model(vocab={"a": 0, "b": 1, "ab": 2, "\ud800": 3})),
        InvalidFile,
        "utf-8",
    ),
    "too deep": (files_of(b'{"model":' + b"[" * 10**5), InvalidFile, "json"),
    "a number without end": (files_of(b'{"model": 1' + b"0" * 10**4 + b"}"), InvalidFile, "json"),
    "no model": (files_of(SMALL | {"model": None}), InvalidFile, "tokenizer-json"),
    "no vocabulary": (files_of(model(vocab=[])), InvalidFile, "tokenizer-json"),
    "an id that is none": (files_of(model(vocab={"a": "0"})), InvalidFile, "tokenizer-json"),
    "an id that is true": (files_of(model(vocab={"a": True})), InvalidFile, "tokenizer-json"),
    "an id below zero": (files_of(model(vocab={"a": -1})), InvalidFile, "tokenizer-json"),
    "an id too large": (files_of(model(vocab={"a": 10**30})), InvalidInput, "vocabulary-size"),
    "an added id too large": (files_of(added(id=4)), InvalidInput, "vocabulary-size"),
    "an added token without id": (files_of(added(id=None)), InvalidFile, "tokenizer-json"),
    "an added token without text": (files_of(added(content=1)), InvalidFile, "tokenizer-json"),
    "an added token that is none": (
        files_of(SMALL | {"added_tokens": [3]}),
        InvalidFile,
        "tokenizer-json",
    ),
    "no merges": (files_of(model(merges=None)), InvalidFile, "tokenizer-json"),
    "a merge of three": (files_of(model(merges=["a b c"])), InvalidFile, "tokenizer-json"),
    "a merge of numbers": (files_of(model(merges=[[1, 2]])), InvalidFile, "tokenizer-json"),
    "a merge that is none": (files_of(model(merges=[5])), InvalidFile, "tokenizer-json"),
    "SentencePiece": (files_of(model(byte_fallback=True)), Unsupported, "tokenizer-model"),
    "word ends": (files_of(model(end_of_word_suffix="</w>")), Unsupported, "tokenizer-model"),
    "no bytes": (
        files_of(SMALL | {"pre_tokenizer": {"type": "Whitespace"}}),
        Unsupported,
        "tokenizer-model",
    ),
    "settings that are none": (
        files_of(SMALL, **{"tokenizer_config.json": b"[1]"}),
        InvalidFile,
        "json",
    ),
    "a template that is none": (
        files_of(SMALL, **{"tokenizer_config.json": b'{"chat_template": 5}'}),
        InvalidFile,
        "chat-template",
    ),
    "a template without a name": (
        files_of(SMALL, **{"tokenizer_config.json": b'{"chat_template": [{"template": "x"}]}'}),
        InvalidFile,
        "chat-template",
    ),
    "a template that is no text": (
        files_of(SMALL, **SETTINGS, **{"chat_template.jinja": b"\xff"}),
        InvalidFile,
        "utf-8",
    ),
}


@pytest.mark.parametrize(("files", "kind", "rule"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused(files, kind, rule):
    with pytest.raises(kind) as refused:
        to_gguf(files, {}, vocab_size=4)
    assert refused.value.rule == rule
    assert "\n" not in str(refused.value)


def test_the_small_tokenizer_is_good():
    assert to_gguf(files_of(SMALL), {}, vocab_size=4).metadata


def test_other_kinds_are_refused_by_name():
    document = {"model": {"type": "WordLevel"}, "pre_tokenizer": {"type": "Whitespace"}}
    with pytest.raises(Unsupported) as refused:
        to_gguf({"tokenizer.json": json.dumps(document).encode()}, {}, vocab_size=9)
    assert refused.value.rule == "tokenizer-model"
    assert "WordLevel after Whitespace" in str(refused.value)


ARRAYS = {
    keys.MODEL: string("gpt2"),
    keys.PRE: string("gpt-2"),
    keys.TOKENS: array("string", ["a", "b", "ab"]),
    keys.TOKEN_TYPE: array("i32", [1, 1, 1]),
    keys.MERGES: array("string", ["a b"]),
}

BAD_KEYS = {
    "no model": ({keys.MODEL: None}, InvalidFile, "missing-key"),
    "a number as the model": ({keys.MODEL: scalar("u32", 1)}, InvalidFile, "value-type"),
    "another model": ({keys.MODEL: string("rwkv")}, Unsupported, "tokenizer-model"),
    "another pre-tokenizer": ({keys.PRE: string("mine")}, Unsupported, "pre-tokenizer"),
    "no tokens": ({keys.TOKENS: None}, InvalidFile, "missing-key"),
    "an empty array": ({keys.TOKENS: array("string", [])}, InvalidFile, "missing-key"),
    "tokens of numbers": ({keys.TOKENS: array("u32", [1])}, InvalidFile, "value-type"),
    "a text as tokens": ({keys.TOKENS: string("ab")}, InvalidFile, "value-type"),
    "tokens twice": (
        {keys.TOKENS: array("string", ["a", "a", "ab"])},
        InvalidFile,
        "duplicate-token",
    ),
    "a token that is no text": (
        {keys.TOKENS: array("string", ["a", "b", "ab\udcff"]), keys.MERGES: array("string", [])},
        InvalidFile,
        "utf-8",
    ),
    "too few types": ({keys.TOKEN_TYPE: array("i32", [1])}, InvalidFile, "token-type"),
    "types of strings": ({keys.TOKEN_TYPE: array("string", ["1"] * 3)}, InvalidFile, "value-type"),
    "no merges": ({keys.MERGES: None}, InvalidFile, "missing-key"),
    "a merge without space": ({keys.MERGES: array("string", ["ab"])}, InvalidFile, "merge"),
    "a merge of strangers": ({keys.MERGES: array("string", ["b a"])}, InvalidFile, "merge"),
    "an empty merge": ({keys.MERGES: array("string", [""])}, InvalidFile, "merge"),
    "an id beyond": ({keys.TOKEN_IDS["eos"]: scalar("u32", 3)}, InvalidFile, "token-id"),
    "an id as text": ({keys.TOKEN_IDS["eos"]: string("b")}, InvalidFile, "value-type"),
    "a flag as number": ({keys.ADD_TOKEN["bos"]: scalar("u32", 1)}, InvalidFile, "value-type"),
    "a template as number": ({keys.CHAT_TEMPLATE: scalar("u32", 1)}, InvalidFile, "value-type"),
    "a template that climbs": (
        {f"{keys.CHAT_TEMPLATE}.../../x": string("x")},
        InvalidFile,
        "chat-template",
    ),
    "a carried file that is none": ({keys.HUGGING_FACE_JSON: string("{")}, InvalidFile, "json"),
    "a carried file of another": (
        {keys.HUGGING_FACE_JSON: string(json.dumps(model(vocab={"b": 0})))},
        InvalidFile,
        "tokenizer-mismatch",
    ),
    "a carried file of a larger one": (
        {keys.HUGGING_FACE_JSON: string(json.dumps(model(vocab={"x": 9})))},
        InvalidFile,
        "tokenizer-mismatch",
    ),
}


@pytest.mark.parametrize(("changes", "kind", "rule"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_key_values_are_refused(changes, kind, rule):
    metadata = {key: value for key, value in (ARRAYS | changes).items() if value is not None}
    with pytest.raises(kind) as refused:
        from_gguf(metadata)
    assert refused.value.rule == rule
    assert "\n" not in str(refused.value)


def test_the_small_arrays_are_good():
    assert from_gguf(ARRAYS)
    carried = {keys.HUGGING_FACE_JSON: string(json.dumps(SMALL))}
    assert json.loads(from_gguf(ARRAYS | carried)["tokenizer.json"]) == SMALL


WORDS = """
type model vocab merges added_tokens id content pattern Regex normalizer normalizers pre_tokenizer
pretokenizers post_processor processors single pair SpecialToken Sequence eos_token chat_template
name template
"""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["BPE", "ByteLevel"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS.split()),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(
    document=st.dictionaries(st.sampled_from(sorted(SMALL)), JSON),
    settings=JSON,
    config=st.dictionaries(st.sampled_from(["eos_token_id", "text_config"]), JSON),
)
def test_no_file_raises_anything_else(document, settings, config):
    files = files_of(SMALL | document, **{"tokenizer_config.json": json.dumps(settings).encode()})
    with contextlib.suppress(Error):
        to_gguf(files, config, vocab_size=4)
    with contextlib.suppress(Error):
        to_gguf(files, config, vocab_size=4, pre="gpt-2")


VALUES = (
    st.builds(scalar, st.just("u32"), st.integers(0, 5))
    | st.builds(scalar, st.just("bool"), st.booleans())
    | st.builds(string, st.text(max_size=3))
    | st.builds(array, st.just("string"), st.lists(st.text("ab ", max_size=3), max_size=4))
    | st.builds(array, st.just("i32"), st.lists(st.integers(0, 7), max_size=4))
)


@given(st.dictionaries(st.sampled_from([*ARRAYS, *keys.TOKEN_IDS.values(), *keys.ADD_TOKEN.values(),
    keys.CHAT_TEMPLATE, keys.HUGGING_FACE_JSON]), VALUES))  # fmt: skip
def test_no_key_value_raises_anything_else(changes):
    with contextlib.suppress(Error):
        from_gguf(ARRAYS | changes)
    with contextlib.suppress(Error):
        generation_ids(ARRAYS | changes)
