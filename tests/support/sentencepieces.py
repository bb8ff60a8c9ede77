"""SentencePiece's tokenizers: real ones, and ones that are trained on the corpus."""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece
import tokenizers
import transformers

from support import packages
from support.vocabularies import corpus, llama_cpp
from weighbridge.converters.tokenizers import from_gguf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.metadata import Metadata

    Files = Mapping[str, bytes]
    Lines = Sequence[str]

PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
"""A text is taken as it is: all BPE models in use are trained so."""

LLAMA = {**PLAIN, "model_type": "bpe", "byte_fallback": True, "vocab_size": 3000}
BARE = {**LLAMA, "byte_fallback": False}
MAPPED = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 3000}
GEMMA = {
    **LLAMA,
    "add_dummy_prefix": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "pad_id": 0,
    "eos_id": 1,
    "bos_id": 2,
    "unk_id": 3,
    "pad_piece": "<pad>",
    "eos_piece": "<eos>",
    "bos_piece": "<bos>",
    "user_defined_symbols": ["<mask>", "<unused0>", "\n", "\n\n", "▁▁", "▁▁▁", "<table>"],
}
UNIGRAM = {"model_type": "unigram", "vocab_size": 2000}
T5 = {**UNIGRAM, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
KEEPING = {**T5, **PLAIN}
"""Settings of the training that give models built as those families' are."""

BETWEEN = -1
"""What stands between lines that llama.cpp encodes at once: no token."""

BATCH = 250
"""Lines that llama.cpp encodes at once."""


def trained(settings: Mapping[str, Any], *, ascii_only: bool = False) -> bytes:
    """Train a model file on the corpus, or on its lines in ASCII alone."""
    return _trained(json.dumps(settings), ascii_only=ascii_only)


@cache
def _trained(settings: str, *, ascii_only: bool) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for line in corpus() if line.isascii() or not ascii_only),
        model_writer=written,
        num_threads=1,
        minloglevel=2,
        **json.loads(settings),
    )
    return written.getvalue()


@cache
def mistral(version: int) -> Files:
    """Return the model file of Mistral 7B's first or third tokenizer."""
    name = {1: "tokenizer.model.v1", 3: "mistral_instruct_tokenizer_240323.model.v3"}[version]
    return {"tokenizer.model": packages.files("mistral_common", name)[name]}


@cache
def llama2() -> Files:
    """Return the tokenizer.json of Llama 2."""
    name = "l2_supercat_tokenizer_config.json"
    return {"tokenizer.json": packages.files("wordllama", name)[name]}


@cache
def seqio() -> Files:
    """Return the model file that T5's own tests use: few pieces, and the real character map."""
    name = "sentencepiece.model"
    return {"spiece.model": packages.files("seqio", name)[name]}


def saved(tokenizer_class: str, name: str, model: bytes, **settings: Any) -> Files:
    """Return the files that a class of transformers makes of a model file.

    Args:
        tokenizer_class: the class.
        name: what it wants the model file to be called.
        model: the model file.
        settings: arguments of the class.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made")
        Path(folder, name).write_bytes(model)
        loaded = getattr(transformers, tokenizer_class).from_pretrained(folder, **settings)
        loaded.save_pretrained(made)
        return {path.name: path.read_bytes() for path in made.iterdir()}


HUB_SETTINGS: Mapping[str, Any] = {
    "tokenizer_class": "GemmaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
"""tokenizer_config.json of a Gemma, but for its added tokens."""


@cache
def gemma() -> Files:
    """Return a Gemma's files as hubs have them, which llama.cpp's converter reads: 3000 tokens.

    Gemma itself has a token for every number of spaces; a few of them alone would be cut otherwise
    by every library.
    """
    symbols = [symbol for symbol in GEMMA["user_defined_symbols"] if symbol.strip("▁")]
    model = trained({**GEMMA, "user_defined_symbols": symbols})
    made = saved("GemmaTokenizer", "tokenizer.model", model, add_bos_token=True)
    added = {
        str(token["id"]): {key: token[key] for key in token if key != "id"}
        for token in json.loads(made["tokenizer.json"])["added_tokens"]
    }
    settings = {**HUB_SETTINGS, "added_tokens_decoder": added}
    return {
        "tokenizer.model": model,
        "tokenizer.json": made["tokenizer.json"],
        "tokenizer_config.json": json.dumps(settings).encode(),
    }


def load(files: Files) -> tokenizers.Tokenizer:
    """Return the tokenizer of a tokenizer.json."""
    return tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())


def processor(files: Files) -> sentencepiece.SentencePieceProcessor:
    """Return SentencePiece itself with the model file."""
    (model,) = (content for name, content in files.items() if name.endswith(".model"))
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def encode(files: Files, texts: Lines, *, special: bool) -> list[list[int]]:
    """Encode with tokenizer.json where there is one, else with SentencePiece.

    Args:
        files: the side files.
        texts: the lines.
        special: whether special tokens in them are taken for such; SentencePiece never does.
    """
    if "tokenizer.json" not in files:
        ids: list[list[int]] = processor(files).encode(list(texts))
        return ids
    tokenizer = load(files)
    tokenizer.encode_special_tokens = not special
    return [one.ids for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def encode_rebuilt(arrays: Metadata, texts: Lines, *, special: bool) -> list[list[int]]:
    """Encode with the tokenizer.json that is made from key-values alone."""
    return encode(from_gguf(arrays), texts, special=special)


def encode_by_llama_cpp(
    arrays: Metadata, texts: Lines, folder: Path, *, special: bool
) -> list[list[int]]:
    """Encode with llama.cpp."""
    found: list[list[int]] = []
    with llama_cpp(arrays, folder) as encode_all:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            parts: Any = [part for text in batch for part in (text, BETWEEN)]
            found += _cut(encode_all(parts, special))
    return found


def _cut(ids: list[int]) -> list[list[int]]:
    lines: list[list[int]] = [[]]
    for token in ids:
        if token == BETWEEN:
            lines.append([])
        else:
            lines[-1].append(token)
    return lines[:-1]


def different(texts: Lines, ours: list[list[int]], others: list[list[int]]) -> list[str]:
    """Return the lines that two encode otherwise."""
    return [text for text, a, b in zip(texts, ours, others, strict=True) if a != b]
