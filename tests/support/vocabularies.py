"""Tokenizers for the tests: real ones and a trained one, and llama.cpp to encode with them."""

from __future__ import annotations

import json
import urllib.request
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import tokenizers
import xllamacpp
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from weighbridge.metadata import Metadata, Value, array, scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from weighbridge.converters.tokenizers.patterns import PreTokenizer

    Encode = Callable[[str, bool], list[int]]

CORPUS = Path(__file__).parents[1] / "data" / "corpus.txt"

LINE_END = "<|line|>"
"""A token of the trained vocabulary that no line has."""

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "</s>", LINE_END)

SETTINGS = json.dumps({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}).encode()
"""tokenizer_config.json of the trained vocabulary."""

TOKENS = "tokenizer.ggml.tokens"

GGUF_TYPES = {
    gguf.GGUFValueType.UINT8: "u8",
    gguf.GGUFValueType.UINT32: "u32",
    gguf.GGUFValueType.INT32: "i32",
    gguf.GGUFValueType.FLOAT32: "f32",
    gguf.GGUFValueType.BOOL: "bool",
    gguf.GGUFValueType.STRING: "string",
}
NAMES = {name: kind for kind, name in GGUF_TYPES.items()}


@cache
def corpus() -> tuple[str, ...]:
    """Return the lines; only a line feed ends one, other breaks are part of it."""
    return tuple(CORPUS.read_bytes().decode().split("\n")[:-1])


def read_gguf(path: Path) -> dict[str, Value]:
    """Read the ``tokenizer.*`` key-values as the reference reader sees them."""
    fields = gguf.GGUFReader(path).fields
    return {key: _value(field) for key, field in fields.items() if key.startswith("tokenizer.")}


def _value(field: gguf.ReaderField) -> Value:
    kind, *items = (GGUF_TYPES.get(one, "array") for one in field.types)
    return array(items[0], field.contents()) if items else scalar(kind, field.contents())


def arrays_of(metadata: Metadata) -> dict[str, Value]:
    """Return the key-values as other programs write them: without the whole tokenizer.json."""
    return {key: value for key, value in metadata.items() if "huggingface" not in key}


@cache
def trained() -> Mapping[str, Any]:
    """Train a byte-level BPE on the corpus without cutting it and return its tokenizer.json.

    Its merges cross every border that a pre-tokenizer may draw, so that each one shows.
    """
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=10_000,
        max_token_length=6,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    return document


def cutting(row: PreTokenizer) -> dict[str, bytes]:
    """Return the files of the trained vocabulary that cut as a row of the table does."""
    document = trained()
    changed = {
        **document,
        "normalizer": row.normalizer and {"type": row.normalizer},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(row.steps)},
        "model": {**document["model"], "ignore_merges": row.ignore_merges},
    }
    return {"tokenizer.json": json.dumps(changed).encode(), "tokenizer_config.json": SETTINGS}


def vocabulary_size(files: Mapping[str, bytes]) -> int:
    """Return how many embeddings a tokenizer.json needs."""
    tokenizer = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    return max(tokenizer.get_vocab().values()) + 1


@contextmanager
def llama_cpp(metadata: Metadata, folder: Path) -> Iterator[Encode]:
    """Let llama.cpp encode with a tokenizer, in a model just big enough to be loaded."""
    path = folder / "vocabulary.gguf"
    write_gguf(path, metadata)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    params.n_parallel = params.cpuparams.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    address = f"{server.listening_address}/tokenize"

    def encode(text: str, special: bool) -> list[int]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": special})
        request = urllib.request.Request(
            address, body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            ids: list[int] = json.load(answer)["tokens"]
        return ids

    # Its loop has to be running before it can be stopped.
    server.handle_completions({"prompt": [0], "n_predict": 1})
    yield encode
    del server


def write_gguf(path: Path, metadata: Metadata) -> None:
    """Write a tokenizer into a Llama of one layer with the reference writer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in metadata.items():
        kind = NAMES[value.items or value.type]
        if value.type == "array":
            writer.add_key_value(key, list(value.data), gguf.GGUFValueType.ARRAY, kind)
        else:
            writer.add_key_value(key, value.data, kind)
    square = np.zeros((32, 32), np.float32)
    writer.add_tensor("token_embd.weight", np.zeros((len(metadata[TOKENS].data), 32), np.float16))
    writer.add_tensor("output_norm.weight", square[0])
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", square[0])
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", square)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def encoded_lines(ids: list[int], end: int) -> list[list[int]]:
    """Cut ids at the tokens that end lines."""
    lines: list[list[int]] = [[]]
    for token in ids:
        if token == end:
            lines.append([])
        else:
            lines[-1].append(token)
    return lines[:-1]
