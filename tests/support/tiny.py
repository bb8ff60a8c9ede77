"""Tiny checkpoints: real classes of transformers, small sizes, weights from a seed.

    checkpoint(tmp_path / "model", dtype="bfloat16", num_key_value_heads=2)

Nothing is at its default value: vectors (norms, biases) are random too, so that a tensor that is
lost, swapped or shifted by one shows. Weights are made of random integers, so that every machine
makes the same ones.
"""

from __future__ import annotations

import functools
import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
import transformers

from support.gguf_files import smollm2
from weighbridge.converters.tokenizers import from_gguf
from weighbridge.formats.gguf import FORMAT as GGUF

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
"""A small Llama: what a checkpoint has unless the caller says otherwise."""

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config(model: str, **entries: Any) -> transformers.PreTrainedConfig:
    """Return a config for a class of transformers."""
    made = getattr(transformers, model).config_class(**entries)
    made.architectures = [model]
    return made


def model(settings: transformers.PreTrainedConfig, seed: int = 0) -> transformers.PreTrainedModel:
    """Return a model in float32 with every parameter random: about 0.1, norms about 1."""
    made = getattr(transformers, settings.architectures[0])(settings).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            middle = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.copy_(_random(parameter.shape, generator) + middle)
    return made


def _random(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Return numbers from -0.25 to 0.25, bell-shaped: sums of integers, which are exact."""
    draws = [torch.randint(-(1 << 19), 1 << 19, shape, generator=generator) for _ in range(4)]
    return sum(draws).to(torch.float32) * 2.0**-23  # type: ignore[union-attr]


def checkpoint(
    directory: Path,
    model_class: str = "LlamaForCausalLM",
    *,
    entries: Mapping[str, Any] = COMMON,
    dtype: str = "float32",
    seed: int = 0,
    shard_size: int | str | None = None,
    tokenizer: Mapping[str, bytes] | None = None,
    old_spelling: bool = False,
    **changes: Any,
) -> Path:
    """Save a tiny model as transformers does, and return its directory.

    Args:
        directory: where; it is made.
        model_class: its class in transformers.
        entries: its config.
        dtype: what the weights are rounded to.
        seed: equal seeds give equal weights.
        shard_size: the most bytes of a weight file, None for a single one.
        tokenizer: the tokenizer's files; None leaves the model without one.
        old_spelling: whether config.json is spelled as by transformers 4.
        changes: entries of the config that differ from `entries`.
    """
    settings = config(model_class, **{**entries, **changes})
    made = model(settings, seed).to(getattr(torch, dtype))
    made.save_pretrained(directory, max_shard_size=shard_size or "5GB")
    if old_spelling:
        edit_json(directory / "config.json", spell_old)
    for name, content in (tokenizer or {}).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def spell_old(settings: dict[str, Any]) -> None:
    """Spell a config as transformers 4 does."""
    settings["torch_dtype"] = settings.pop("dtype", None)
    rope = settings.pop("rope_parameters", None)
    if rope:
        settings["rope_theta"] = rope.pop("rope_theta", 10000.0)
        scaled = rope.get("rope_type", "default") != "default"
        settings["rope_scaling"] = rope if scaled else None


def edit_json(path: Path, change: Any) -> None:
    """Change a JSON file in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2) + "\n")


def copied(directory: Path, target: Path, change: Any = None) -> Path:
    """Copy a checkpoint; `change` edits its config.json."""
    shutil.copytree(directory, target)
    if change:
        edit_json(target / "config.json", change)
    return target


def small_tokenizer(**settings: Any) -> Mapping[str, bytes]:
    """Return a byte-level BPE of 64 tokens, for tests that look at everything but tokens.

    Args:
        settings: entries of tokenizer_config.json.
    """
    letters = [chr(number) for number in range(33, 90)]
    specials = ["<unk>", "<s>", "</s>"]
    vocabulary = {text: number for number, text in enumerate([*specials, *letters, "AB", "CD"])}
    added = [
        {"id": n, "content": text, "special": True, "normalized": False, "single_word": False,
         "lstrip": False, "rstrip": False}
        for n, text in enumerate(specials)
    ]  # fmt: skip
    document = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["A", "B"], ["C", "D"]]},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        **settings,
    }
    return {
        "tokenizer.json": json.dumps(document).encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "chat_template.jinja": b"{% for m in messages %}{{ m.content }}{% endfor %}",
    }


@functools.cache
def smollm2_tokenizer() -> Mapping[str, bytes]:
    """Return SmolLM2's tokenizer (49152 tokens), which llama.cpp's converter recognises."""
    with GGUF.open(smollm2()) as opened:
        return from_gguf(opened.metadata)
