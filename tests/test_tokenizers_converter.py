"""SentencePiece's kinds against llama.cpp's converter: the key-values of the same directory.

Where ours differ, `Difference` says which ids and why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from support import llamacpp, tiny
from support import sentencepieces as sp
from support.vocabularies import arrays_of, read_gguf

from weighbridge.aspects import same
from weighbridge.converters.tokenizers import keys, to_gguf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Files = Mapping[str, bytes]

ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
}

V4 = {
    **ROLES,
    "tokenizer_class": "LlamaTokenizer",
    "chat_template": "{{ messages }}",
    "added_tokens_decoder": {
        "0": {"content": "<unk>", "special": True},
        "1": {"content": "<s>", "special": True},
        "2": {"content": "</s>", "special": True},
        "3000": {"content": "<|im_start|>", "special": True},
        "3001": {"content": "<|sys|>", "special": False},
        "3002": {"content": "▁▁x", "special": False},
        "3003": {"content": "<tool>", "special": False},
    },
}
"""tokenizer_config.json of transformers 4."""

ADDED = {"<tool>": 3003, "<extra>": 3004, "<beyond>": 9999}

ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
}

SCORES = {
    keys.SCORES: "the converter has no scores from a tokenizer.json: -1000 for all, so that "
    "llama.cpp merges from left to right whatever the merges say",
}
TYPES = {
    keys.TOKEN_TYPE: "the converter takes tokens that a user defined for normal ones, so that "
    "llama.cpp merges across them",
}
SPACES = {keys.TOKENS: "they are found in a text as it stands, where a space is a space"}
NO_BOS = {
    keys.ADD_TOKEN["bos"]: "tokenizer.json adds none; llama.cpp would, if nothing is said",
}
UNKNOWN = {
    keys.TOKEN_IDS["unk"]: "a model file alone says it; llama.cpp would take another token",
}
ARRAYS = (keys.TOKENS, keys.SCORES, keys.TOKEN_TYPE)
MASK = dict.fromkeys(ARRAYS, "the converter leaves out the mask, and counts holes from one less")
NO_NAMES = {
    keys.TOKEN_TYPE: "without tokenizer_config.json the converter knows no special tokens",
}
MERGED = {
    keys.MERGES_SPACES: "the converter takes clean_up_tokenization_spaces for it, which is about "
    "decoding; tokenizer.json drops spaces",
}
SENTINELS = dict.fromkeys(
    ARRAYS, "tokenizer.json has tokens beyond the model file, which alone the converter reads"
)
SEGMENTS = {"tokenizer.ggml.token_type_count": "it comes from config.json: the family writes it"}


@dataclass(frozen=True)
class Case:
    """A directory.

    Attributes:
        model: the model's class.
        files: what makes the side files.
        size: how many embeddings it has.
        differences: key -> why ours is another.
        config: entries of config.json.
    """

    model: str
    files: Callable[[], Files]
    size: int
    differences: Mapping[str, str]
    config: Mapping[str, Any]


def _case(
    model: str,
    files: Callable[[], Files],
    size: int,
    *differences: Mapping[str, str],
    **config: Any,
) -> Case:
    told = {key: why for one in differences for key, why in one.items()}
    return Case(model, files, size, told, config)


def _llama() -> Files:
    return {"tokenizer.model": sp.trained(sp.LLAMA)}


def _gemma() -> Files:
    return {"tokenizer.model": sp.trained(sp.GEMMA)}


def _settings(settings: object) -> Files:
    return {"tokenizer_config.json": json.dumps(settings).encode()}


@cache
def _saved_llama() -> Files:
    return sp.saved("LlamaTokenizer", "tokenizer.model", sp.trained(sp.LLAMA), add_bos_token=True)


@cache
def _saved_gemma() -> Files:
    return sp.saved("GemmaTokenizer", "tokenizer.model", sp.trained(sp.GEMMA))


def _old_llama() -> Files:
    """Return what transformers 4 leaves: every file there is."""
    document = {"tokenizer.json": _saved_llama()["tokenizer.json"]}
    return {
        **_llama(),
        **document,
        **_settings(V4),
        "added_tokens.json": json.dumps(ADDED).encode(),
    }


def _old_gemma() -> Files:
    document = json.loads(_saved_gemma()["tokenizer.json"])
    decoder = {
        str(token["id"]): {"content": token["content"], "special": token["special"]}
        for token in document["added_tokens"]
    }
    return {**_gemma(), **_settings({"added_tokens_decoder": decoder, "unk_token": "<unk>"})}


@cache
def _t5() -> Files:
    return sp.saved("T5Tokenizer", "spiece.model", sp.trained(sp.T5))


@cache
def _xlm_roberta() -> Files:
    model = sp.trained(sp.UNIGRAM)
    return sp.saved("XLMRobertaTokenizer", "sentencepiece.bpe.model", model)


LLAMA, GEMMA, T5 = "LlamaForCausalLM", "Gemma2ForCausalLM", "T5ForConditionalGeneration"
XLM_ROBERTA = "XLMRobertaModel"
IDS = {"bos_token_id": 1, "eos_token_id": 2}
START = {"decoder_start_token_id": 0}

CASES = {
    "model file": _case(LLAMA, _llama, 3010, **IDS),
    "mistral": _case("MistralForCausalLM", lambda: sp.mistral(3), 32768, TYPES, **IDS),
    "old files": _case(LLAMA, _old_llama, 3010, **IDS),
    "phi3": _case("Phi3ForCausalLM", _old_llama, 3010, **IDS, pad_token_id=0),
    "model file and new files": _case(LLAMA, lambda: _llama() | _saved_llama(), 3010, **IDS),
    "new files": _case(LLAMA, _saved_llama, 3000, SCORES, **IDS),
    "llama 2": _case(LLAMA, sp.llama2, 32000, SCORES, NO_NAMES, **IDS),
    "gemma's model file": _case(GEMMA, _gemma, 3010, TYPES, SPACES, UNKNOWN),
    "gemma's old files": _case(GEMMA, _old_gemma, 3010),
    "gemma's new files": _case(
        "Gemma3ForCausalLM", lambda: _gemma() | _saved_gemma(), 3010, TYPES, SPACES, NO_BOS
    ),
    "t5's model file": _case(
        T5,
        lambda: {"spiece.model": sp.trained(sp.T5), "added_tokens.json": b'{"<x>": 2001}'},
        2010,
        **START,
    ),
    "t5's files": _case(
        T5, lambda: {"spiece.model": sp.trained(sp.T5), **_t5()}, 2128, SENTINELS, **START
    ),
    "xlm-roberta's model file": _case(
        XLM_ROBERTA,
        lambda: {"sentencepiece.bpe.model": sp.trained(sp.UNIGRAM)},
        2010,
        MASK,
        UNKNOWN,
        SEGMENTS,
        **ENCODER,
    ),
    "xlm-roberta's files": _case(XLM_ROBERTA, _xlm_roberta, 2002, MERGED, SEGMENTS, **ENCODER),
}


@pytest.fixture(params=CASES)
def both(request, tmp_path):
    """A case, our key-values and the converter's."""
    case = CASES[request.param]
    config = tiny.config(case.model, vocab_size=case.size, **case.config).to_dict()
    directory = tmp_path / "model"
    directory.mkdir()
    files = {**case.files(), "config.json": json.dumps(config).encode()}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    theirs = llamacpp.convert(directory, tmp_path / "theirs.gguf", "f32", "--vocab-only")
    ours = to_gguf(case.files(), config, vocab_size=case.size)
    return case, arrays_of(ours.metadata), read_gguf(theirs)


def test_key_values_are_the_converters(both):
    case, ours, theirs = both
    different = {key for key in {*ours, *theirs} if not _same(ours.get(key), theirs.get(key))}
    assert different == set(case.differences)


def _same(a: Any, b: Any) -> bool:
    return a is not None and b is not None and (a.type, a.items) == (b.type, b.items) and same(a, b)
