"""Translation into the language that is named, by models that have a token for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from support import tiny

import weighbridge as wb

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["a b c d", "h"]

LANGUAGES = {"src_lang": "en_XX", "tgt_lang": "de_DE"}


@pytest.fixture
def mbart(tmp_path: Path) -> Path:
    """Save an mBART whose tokenizer knows eight letters and fifty languages."""
    marks = [(mark, 0.0) for mark in ("<s>", "<pad>", "</s>", "<unk>")]
    letters = [(f"{space}{letter}", -3.0) for space in ("▁", "") for letter in "abcdefgh"]
    tokenizer = transformers.MBart50Tokenizer(vocab=[*marks, *letters])
    settings = tiny.config(
        "MBartForConditionalGeneration",
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        decoder_start_token_id=2,
    )
    tiny.model(settings).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def translated(place: Path) -> list[str]:
    """Translate as the model's card says."""
    model = transformers.MBartForConditionalGeneration.from_pretrained(place)
    tokenizer: Any = transformers.MBart50Tokenizer.from_pretrained(place)
    tokenizer.src_lang = LANGUAGES["src_lang"]
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    first = tokenizer.convert_tokens_to_ids(LANGUAGES["tgt_lang"])
    with torch.no_grad():
        made = model.generate(**inputs, forced_bos_token_id=first, max_new_tokens=6)
    assert set(made[:, 1].tolist()) == {first}
    found: list[str] = tokenizer.batch_decode(made, skip_special_tokens=True)
    return found


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_language_is_told_by_its_token(mbart: Path, batch_size: int) -> None:
    ours = wb.pipeline(path=mbart, dtype="float32")
    assert ours.task == "translation"
    found = ours(TEXTS, **LANGUAGES, max_new_tokens=6, batch_size=batch_size)
    assert found == [{"translation_text": text} for text in translated(mbart)]


def test_the_task_names_the_languages(mbart: Path) -> None:
    ours = wb.pipeline("translation_en_XX_to_de_DE", mbart, dtype="float32")
    assert ours(TEXTS, max_new_tokens=6) == [
        {"translation_text": text} for text in translated(mbart)
    ]
