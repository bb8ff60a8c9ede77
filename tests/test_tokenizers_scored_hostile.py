"""Model files, tokenizer.json and key-values that make no tokenizer of SentencePiece's kinds.

One rule for each, and nothing else is ever raised.
"""

from __future__ import annotations

import base64
import contextlib
import json
import struct

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.converters.tokenizers import from_gguf, keys, sentencepiece_model, to_gguf
from weighbridge.errors import Error, InvalidFile, InvalidInput, NotFound, Unsupported
from weighbridge.metadata import array, scalar, string
from weighbridge.protobuf import FIXED32, bytes_field, number_field, varint

SPACE = "▁"


def piece(text, score=0.0, kind=1):
    content = text if isinstance(text, bytes) else text.encode()
    number = varint(2 << 3 | FIXED32) + struct.pack("<f", score)
    return bytes_field(1, bytes_field(1, content) + number + number_field(3, kind))


UNK = piece("<unk>", 0.0, 2)
GOOD = UNK + piece(SPACE) + piece("a", -1.0)


def model(pieces=GOOD, kind=2, normalizer=b""):
    trainer = number_field(3, kind)
    return pieces + bytes_field(2, trainer) + bytes_field(3, normalizer)


def model_files(content, **others):
    return {"tokenizer.model": content, **others}


def settings(**entries):
    return {"tokenizer_config.json": json.dumps(entries).encode()}


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
BPE = {
    "type": "BPE",
    "vocab": {"<unk>": 0, SPACE: 1, "a": 2, "▁a": 3},
    "merges": [[SPACE, "a"]],
    "unk_token": "<unk>",
}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], [SPACE, -1.0], ["▁a", -2.5]]}
METASPACE = {"type": "Metaspace", "replacement": SPACE}


def bpe(normalizer=REPLACE, added=(), **entries):
    document = {"normalizer": normalizer, "added_tokens": list(added), "model": BPE | entries}
    return {"tokenizer.json": json.dumps(document).encode()}


def unigram(normalizer=None, pre_tokenizer=METASPACE, **entries):
    document = {
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "model": UNIGRAM | entries,
    }
    return {"tokenizer.json": json.dumps(document).encode()}


def precompiled(content):
    text = base64.b64encode(content).decode() if isinstance(content, bytes) else content
    return unigram({"type": "Precompiled", "precompiled_charsmap": text})


BAD_FILES = {
    "nothing": ({}, NotFound, "tokenizer-missing"),
    "an empty model": (model_files(b""), InvalidFile, "sentencepiece-model"),
    "text": (model_files(b"IQ== 0\nIg== 1\n"), InvalidFile, "sentencepiece-model"),
    "a model cut short": (model_files(model()[:-1]), InvalidFile, "truncated"),
    "a piece cut short": (model_files(model(bytes_field(1, b"\x0a\x09a"))), InvalidFile, "overrun"),
    "a piece without text": (
        model_files(model(bytes_field(1, b""))),
        InvalidFile,
        "sentencepiece-model",
    ),
    "a piece twice": (model_files(model(GOOD + piece("a"))), InvalidFile, "sentencepiece-model"),
    "a text twice": (
        model_files(model(bytes_field(1, bytes_field(1, "a") * 2))),
        InvalidFile,
        "duplicate-field",
    ),
    "a piece of no type": (
        model_files(model(piece("a", 0.0, 9))),
        InvalidFile,
        "sentencepiece-model",
    ),
    "a score that is no number": (
        model_files(model(piece("a", float("nan")))),
        InvalidFile,
        "sentencepiece-model",
    ),
    "bytes that are no text": (model_files(model(piece(b"\xff"))), InvalidFile, "utf-8"),
    "a score of two words": (
        model_files(model(bytes_field(1, bytes_field(1, "a") + number_field(2, 1)))),
        InvalidFile,
        "wire-type",
    ),
    "two trainers": (
        model_files(model() + bytes_field(2, b"")),
        InvalidFile,
        "duplicate-field",
    ),
    "words": (model_files(model(kind=3)), Unsupported, "tokenizer-model"),
    "more pieces than embeddings": (
        model_files(model(GOOD + b"".join(piece(f"{n}") for n in range(9)))),
        InvalidInput,
        "vocabulary-size",
    ),
    "a map that is cut short": (
        model_files(model(normalizer=bytes_field(2, b"\x04\0\0\0\0"))),
        InvalidFile,
        "charsmap",
    ),
    "a map that is no base64": (precompiled("?"), InvalidFile, "tokenizer-json"),
    "a map that is a number": (precompiled(5), InvalidFile, "tokenizer-json"),
    "a map of two bytes": (precompiled(b"ab"), InvalidFile, "charsmap"),
    "a map with half a word": (precompiled(b"\x03\0\0\0abcd\0"), InvalidFile, "charsmap"),
    "a map without an end": (precompiled(b"\x04\0\0\0abcdx"), InvalidFile, "charsmap"),
    "two tokenizers": (bpe() | model_files(model()), InvalidFile, "tokenizer-mismatch"),
    "two kinds": (bpe() | model_files(model(kind=1)), InvalidFile, "tokenizer-mismatch"),
    "added tokens in a list": (
        model_files(model(), **{"added_tokens.json": b"[]"}),
        InvalidFile,
        "json",
    ),
    "an added token without id": (
        model_files(model(), **{"added_tokens.json": b'{"x": "1"}'}),
        InvalidFile,
        "added-tokens",
    ),
    "an added token below zero": (
        model_files(model(), **{"added_tokens.json": b'{"x": -1}'}),
        InvalidFile,
        "added-tokens",
    ),
    "an added token twice": (
        model_files(model(), **{"added_tokens.json": b'{"a": 5}'}),
        InvalidFile,
        "duplicate-token",
    ),
    "a decoder that is a list": (
        model_files(model(), **settings(added_tokens_decoder=[1])),
        InvalidFile,
        "added-tokens",
    ),
    "a decoder without ids": (
        model_files(model(), **settings(added_tokens_decoder={"one": {"content": "x"}})),
        InvalidFile,
        "added-tokens",
    ),
    "a decoder without texts": (
        model_files(model(), **settings(added_tokens_decoder={"1": {"special": True}})),
        InvalidFile,
        "added-tokens",
    ),
    "a decoder with a huge id": (
        model_files(model(), **settings(added_tokens_decoder={"9" * 9999: {"content": "x"}})),
        InvalidFile,
        "added-tokens",
    ),
    "no merges": (bpe(merges=None), InvalidFile, "tokenizer-json"),
    "a merge of three": (bpe(merges=["a b c"]), InvalidFile, "tokenizer-json"),
    "an id too large": (bpe(vocab={"a": 10**20}), InvalidInput, "vocabulary-size"),
    "a list of texts": (unigram(vocab=["a"]), InvalidFile, "tokenizer-json"),
    "a score as text": (unigram(vocab=[["a", "1"]]), InvalidFile, "tokenizer-json"),
    "a score that is true": (unigram(vocab=[["a", True]]), InvalidFile, "tokenizer-json"),
    "a score without end": (unigram(vocab=[["a", 1e300]]), InvalidFile, "tokenizer-json"),
    "a score that is infinite": (
        unigram(vocab=[["a", float("-inf")]]),
        InvalidFile,
        "tokenizer-json",
    ),
    "a mapping of scores": (unigram(vocab={"a": 0}), InvalidFile, "tokenizer-json"),
    "half a surrogate pair": (unigram(vocab=[["\ud800", 0.0]]), InvalidFile, "utf-8"),
}


@pytest.mark.parametrize(("files", "kind", "rule"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused(files, kind, rule):
    with pytest.raises(kind) as refused:
        to_gguf(files, {}, vocab_size=8)
    assert refused.value.rule == rule
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("files", [model_files(model()), bpe(), unigram()])
def test_the_small_tokenizers_are_good(files):
    assert from_gguf(to_gguf(files, {}, vocab_size=8).metadata)


def test_a_vocabulary_of_holes_is_not_believed():
    with pytest.raises(InvalidInput) as refused:
        to_gguf(model_files(model()), {}, vocab_size=1 << 40)
    assert refused.value.rule == "vocabulary-size"


def test_a_pre_tokenizer_is_not_written():
    for files in (bpe(), unigram()):
        result = to_gguf(files, {}, vocab_size=8, pre="qwen2")
        assert any("'qwen2' is not written" in warning for warning in result.warnings)
        assert result.metadata[keys.PRE] == string("default")


SMALL = {
    keys.MODEL: string("llama"),
    keys.TOKENS: array("string", ["<unk>", SPACE, "a"]),
    keys.SCORES: array("f32", [0.0, -1.0, -2.0]),
    keys.TOKEN_TYPE: array("i32", [2, 1, 1]),
}

BAD_KEYS = {
    "no scores": ({keys.SCORES: None}, "missing-key"),
    "too few scores": ({keys.SCORES: array("f32", [0.0])}, "token-score"),
    "scores that are no numbers": (
        {keys.SCORES: array("f32", [0.0, float("nan"), 1.0])},
        "token-score",
    ),
    "scores as texts": ({keys.SCORES: array("string", ["0"] * 3)}, "value-type"),
    "too few types": ({keys.TOKEN_TYPE: array("i32", [1])}, "token-type"),
    "tokens twice": ({keys.TOKENS: array("string", ["a", "a", "b"])}, "duplicate-token"),
    "no tokens": ({keys.TOKENS: None}, "missing-key"),
    "an unknown beyond": ({keys.TOKEN_IDS["unk"]: scalar("u32", 3)}, "token-id"),
    "a flag as number": ({keys.ADD_PREFIX_SPACE: scalar("u32", 1)}, "value-type"),
}
BAD_MAPS = {
    "a map of numbers": ({keys.CHARSMAP: array("u32", [1])}, "value-type"),
    "a map that is cut short": ({keys.CHARSMAP: array("u8", [9, 0, 0, 0, 1])}, "charsmap"),
    "spaces as number": ({keys.MERGES_SPACES: scalar("u32", 1)}, "value-type"),
}


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize(("changes", "rule"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_key_values_are_refused(kind, changes, rule):
    _refused(SMALL | {keys.MODEL: string(kind)} | changes, rule)


@pytest.mark.parametrize(("changes", "rule"), BAD_MAPS.values(), ids=BAD_MAPS)
def test_bad_key_values_of_unigram_are_refused(changes, rule):
    _refused(SMALL | {keys.MODEL: string("t5")} | changes, rule)


def _refused(changed, rule):
    metadata = {key: value for key, value in changed.items() if value is not None}
    with pytest.raises(InvalidFile) as refused:
        from_gguf(metadata)
    assert refused.value.rule == rule
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=60), st.integers(0, 80), st.sampled_from([1, 2]))
def test_no_model_file_raises_anything_else(noise, at, kind):
    content = model(kind=kind)
    broken = content[:at] + noise + content[at + len(noise) :]
    for name in sentencepiece_model.FILES:
        with contextlib.suppress(Error):
            to_gguf({name: broken}, {"model_type": "xlm-roberta"}, vocab_size=8)


@given(st.binary(max_size=8), st.integers(0, 80))
def test_what_is_read_is_what_sentencepiece_reads(noise, at):
    content = model()
    broken = content[:at] + noise + content[at + len(noise) :]
    with contextlib.suppress(Error):
        read = sentencepiece_model.parse(broken, "x.model")
        theirs = sentencepiece.SentencePieceProcessor()
        with contextlib.suppress(RuntimeError):  # it refuses more than we do
            theirs.LoadFromSerializedProto(broken)
            assert list(read.texts) == [theirs.IdToPiece(n) for n in range(len(theirs))]


WORDS = """
type vocab merges unk_id unk_token content pattern String Regex replacement prepend prepend_scheme
split precompiled_charsmap normalizers pretokenizers
"""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS.split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    parts=st.dictionaries(st.sampled_from(["normalizer", "pre_tokenizer", "added_tokens"]), JSON),
    entries=st.dictionaries(st.sampled_from(["vocab", "merges", "unk_id", "unk_token"]), JSON),
    base=st.sampled_from([BPE, UNIGRAM]),
)
def test_no_tokenizer_json_raises_anything_else(parts, entries, base):
    document = {"normalizer": REPLACE, **parts, "model": base | entries}
    with contextlib.suppress(Error):
        to_gguf({"tokenizer.json": json.dumps(document).encode()}, {}, vocab_size=8)


VALUES = (
    st.builds(scalar, st.just("u32"), st.integers(0, 5))
    | st.builds(scalar, st.just("bool"), st.booleans())
    | st.builds(array, st.just("string"), st.lists(st.text("a▁ ", max_size=3), max_size=4))
    | st.builds(array, st.just("i32"), st.lists(st.integers(0, 7), max_size=4))
    | st.builds(array, st.just("f32"), st.lists(st.floats(width=32), max_size=4))
    | st.builds(array, st.just("u8"), st.lists(st.integers(0, 255), max_size=9))
)


@given(
    kind=st.sampled_from(["llama", "t5"]),
    changes=st.dictionaries(
        st.sampled_from(
            [
                keys.TOKENS,
                keys.SCORES,
                keys.TOKEN_TYPE,
                keys.CHARSMAP,
                keys.MERGES_SPACES,
                keys.ADD_PREFIX_SPACE,
                *keys.TOKEN_IDS.values(),
                *keys.ADD_TOKEN.values(),
            ]
        ),
        VALUES,
    ),
)
def test_no_key_value_raises_anything_else(kind, changes):
    with contextlib.suppress(Error):
        from_gguf(SMALL | {keys.MODEL: string(kind)} | changes)


def test_large_vocabularies_take_no_time():
    texts = ["<unk>", *(f"{n:x}" for n in range(100_000))]
    pieces = UNK + b"".join(piece(text, -float(n)) for n, text in enumerate(texts) if n)
    metadata = to_gguf(model_files(model(pieces)), {}, vocab_size=len(texts)).metadata
    assert from_gguf(metadata)
