"""SentencePiece's model file as a side file: to GGUF and back, with and without tokenizer.json."""

from __future__ import annotations

import json

import pytest
from support import sentencepieces as sp
from support import tiny
from support.vocabularies import read_gguf
from transformers import AutoTokenizer

import weighbridge as wb
from weighbridge.converters.tokenizers import sentencepiece_model

MODEL = sp.trained(sp.LLAMA)
SIZE = 3008
TEXT = "How heavy is it? 重さ 🦙"


def _directory(folder, files):
    return tiny.checkpoint(folder / "source", vocab_size=SIZE, tokenizer=files)


def _there_and_back(folder, files):
    """Convert to GGUF and back; return what is in the directory then."""
    wb.convert(_directory(folder, files), folder / "there.gguf")
    wb.convert(folder / "there.gguf", folder / "back")
    return {path.name: path.read_bytes() for path in (folder / "back").iterdir()}


def test_a_model_file_alone_comes_back_and_brings_a_tokenizer_json(tmp_path):
    back = _there_and_back(tmp_path, {"tokenizer.model": MODEL})
    assert back["tokenizer.model"] == MODEL
    ids = sp.load(back).encode(TEXT).ids
    assert ids == [1, *sp.processor({"x.model": MODEL}).encode(TEXT)]
    assert AutoTokenizer.from_pretrained(tmp_path / "back").encode(TEXT) == ids


def test_every_file_comes_back_as_it_was(tmp_path):
    files = {
        "tokenizer.model": MODEL,
        **sp.saved("LlamaTokenizer", "tokenizer.model", MODEL, add_bos_token=True),
        "added_tokens.json": json.dumps({"<extra>": 3001}).encode(),
        "special_tokens_map.json": b'{"bos_token": "<s>"}',
    }
    back = _there_and_back(tmp_path, files)
    assert {name: back[name] for name in files} == files


def test_without_our_own_key_values_the_tokenizer_is_rebuilt(tmp_path):
    saved = sp.saved("LlamaTokenizer", "tokenizer.model", MODEL, add_bos_token=True)
    wb.convert(_directory(tmp_path, saved), tmp_path / "there.gguf")
    metadata = read_gguf(tmp_path / "there.gguf")
    tokens = metadata["tokenizer.ggml.tokens"].data
    assert tokens[3000:] == [f"[PAD{n}]" for n in range(3000, SIZE)]
    assert metadata["tokenizer.ggml.scores"].data[-1] == -10000
    loaded = AutoTokenizer.from_pretrained(_directory(tmp_path / "again", saved))
    assert sp.encode_rebuilt(
        {key: value for key, value in metadata.items() if "huggingface" not in key},
        [TEXT],
        special=True,
    ) == [loaded.encode(TEXT, add_special_tokens=False)]


@pytest.mark.parametrize("settings", [sp.LLAMA, sp.GEMMA, sp.T5], ids=["llama", "gemma", "t5"])
def test_a_model_file_is_read_as_sentencepiece_reads_it(settings):
    content = sp.trained(settings)
    read = sentencepiece_model.parse(content, "x.model")
    theirs = sp.processor({"x.model": content})
    ids = range(len(theirs))
    assert list(read.texts) == [theirs.IdToPiece(n) for n in ids]
    assert list(read.scores) == [theirs.GetScore(n) for n in ids]
    for kind, says in {
        2: theirs.IsUnknown,
        3: theirs.IsControl,
        5: theirs.IsUnused,
        6: theirs.IsByte,
    }.items():
        assert [n for n in ids if read.types[n] == kind] == [n for n in ids if says(n)]
    assert read.type == {"bpe": 2, "unigram": 1}[settings["model_type"]]
    assert read.adds_prefix == settings.get("add_dummy_prefix", True)
    assert read.merges_spaces == settings.get("remove_extra_whitespaces", True)
    assert bool(read.charsmap) == ("normalization_rule_name" not in settings)
