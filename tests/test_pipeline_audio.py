"""Pipelines over exported directories answer as those over the checkpoint do: sounds."""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from support import exports, tiny
from support.answers import assert_same

import weighbridge as wb

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RATE = 16000

EAR: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "classifier_proj_size": 16,
    "num_labels": 3,
    "vocab_size": 31,
}

LISTENING = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "sampling_rate": RATE,
    "padding_value": 0.0,
    "return_attention_mask": True,
}

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *string.ascii_uppercase]

SPELLING = {
    "vocab.json": {letter: number for number, letter in enumerate(LETTERS)},
    "tokenizer_config.json": {"tokenizer_class": "Wav2Vec2CTCTokenizer"},
    "preprocessor_config.json": LISTENING,
}


def sound(seed: int, length: int = 1600) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(length, dtype=np.float32)


SOUNDS = [sound(0), sound(1, 900)]


def written(files: dict[str, Any]) -> dict[str, bytes]:
    return {name: json.dumps(content).encode() for name, content in files.items()}


def heard() -> dict[str, torch.Tensor]:
    """Return a batch of sounds of three lengths."""
    mask = torch.ones(3, 1600, dtype=torch.int64)
    mask[0, 900:] = mask[1, 1200:] = 0
    return {"input_values": torch.from_numpy(np.stack([sound(n) for n in range(3)])) * mask,
            "attention_mask": mask}  # fmt: skip


def compared(task: str, place: Path, model: Any, *inputs: Any, **options: Any) -> Any:
    ours = wb.pipeline(task, place)
    parts = {"feature_extractor": ours.feature_extractor, "tokenizer": ours.tokenizer}
    theirs = transformers.pipeline(task, model=model, **parts)
    found = ours(*inputs, **options)
    assert_same(found, theirs(*inputs, **options))
    return found


def test_sounds_are_classified(tmp_path: Path) -> None:
    model = tiny.model(tiny.config("Wav2Vec2ForSequenceClassification", **EAR))
    exports.whole(tmp_path, model, heard(), written({"preprocessor_config.json": LISTENING}))
    compared("audio-classification", tmp_path, model, SOUNDS, batch_size=2)
    assert wb.pipeline(path=tmp_path).task == "audio-classification"


def test_speech_is_spelt(tmp_path: Path) -> None:
    model = tiny.model(tiny.config("Wav2Vec2ForCTC", **EAR))
    exports.whole(tmp_path, model, heard(), written(SPELLING))
    found = compared("automatic-speech-recognition", tmp_path, model, SOUNDS, batch_size=2)
    assert all(one["text"] for one in found)


# Whisper

WORDS = 260

MARKS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>",
         "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
         *(f"<|{n * 0.02:.2f}|>" for n in range(31))]  # fmt: skip

PLACES = {mark: WORDS + number for number, mark in enumerate(MARKS)}

HEARING = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 8,
    "sampling_rate": RATE,
    "chunk_length": 1,
    "n_fft": 400,
    "hop_length": 160,
}


def whisper_tokenizer() -> dict[str, bytes]:
    """Return a byte-level BPE of single bytes with Whisper's marks."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    rest = {f"<unused{n}>": n for n in range(len(vocabulary), WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary | rest, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(MARKS)
    settings = {
        "tokenizer_class": "WhisperTokenizer",
        **{f"{role}_token": MARKS[0] for role in ("bos", "eos", "unk", "pad")},
        "additional_special_tokens": MARKS[1:10],
    }
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "vocab.json": json.dumps(vocabulary | rest).encode(),
        "merges.txt": b"#version: 0.2\n",
    }


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    stack = {"layers": 1, "attention_heads": 4, "ffn_dim": 48}
    parts = ("encoder", "decoder")
    sizes = {f"{part}_{name}": size for part in parts for name, size in stack.items()}
    ends = PLACES["<|endoftext|>"]
    settings = tiny.config(
        "WhisperForConditionalGeneration",
        **sizes,
        vocab_size=WORDS + len(MARKS),
        d_model=32,
        num_mel_bins=8,
        max_source_positions=50,
        max_target_positions=40,
        decoder_start_token_id=PLACES["<|startoftranscript|>"],
        **{f"{role}_token_id": ends for role in ("bos", "eos", "pad")},
    )
    model = tiny.model(settings)
    model.generation_config = transformers.GenerationConfig(
        is_multilingual=True,
        lang_to_id={mark: PLACES[mark] for mark in ("<|en|>", "<|de|>")},
        task_to_id={name: PLACES[f"<|{name}|>"] for name in ("transcribe", "translate")},
        no_timestamps_token_id=PLACES["<|notimestamps|>"],
        decoder_start_token_id=settings.decoder_start_token_id,
        eos_token_id=ends,
        pad_token_id=ends,
        begin_suppress_tokens=[ends],
        max_length=30,
        return_timestamps=False,
    )
    features = torch.randn(3, 8, 100, generator=torch.Generator().manual_seed(0))
    place = tmp_path_factory.mktemp("whisper")
    files = written({"preprocessor_config.json": HEARING}) | whisper_tokenizer()
    inputs = {"input_features": features}
    return model, exports.encoder_decoder(place, model, inputs, files, {"language": "en"})


LANGUAGES = {"found": {}, "told": {"language": "de", "task": "translate"}}


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("options", LANGUAGES.values(), ids=LANGUAGES)
def test_speech_is_written_down(
    whisper: tuple[Any, Path], beams: int, options: dict[str, str]
) -> None:
    model, place = whisper
    told = {**options, "num_beams": beams, "max_new_tokens": 8}
    task = "automatic-speech-recognition"
    compared(task, place, model, SOUNDS, batch_size=2, generate_kwargs=told)
