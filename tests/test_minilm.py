"""The real MiniLM, a sentence-transformers model, to GGUF and back: converter, llama.cpp, torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support import llamacpp, packages
from support.encoders import MINILM
from transformers import AutoModel, AutoTokenizer

import weighbridge as wb
from weighbridge.runtimes.llama_cpp import RUNTIME
from weighbridge.steps import Route

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SENTENCES = (
    "A man is eating food.",
    "The girl carried the baby through Trondheim's oldest street, twice!",
    "def mean(values): return sum(values) / len(values)",
    "γρήγορος σκύλος. 你好 世界 🙂",
    "x",
)

LOST = {"embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight"}


@pytest.fixture(scope="module")
def source() -> Path:
    return packages.folder(MINILM) / "model"


@pytest.fixture(scope="module")
def stored(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("minilm") / "minilm.gguf"
    wb.convert(source, path)
    return path


@pytest.fixture(scope="module")
def expected(source: Path) -> NDArray[np.float64]:
    return by_transformers(source)


@pytest.fixture(scope="module")
def theirs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llamacpp.convert(source, tmp_path_factory.mktemp("theirs") / "minilm.gguf")


def test_every_byte_is_the_converters(stored: Path, theirs: Path) -> None:
    assert llamacpp.different_tensors(stored, theirs) == {}


def test_every_key_value_is_the_converters(source: Path, stored: Path, theirs: Path) -> None:
    with wb.open(source) as model:
        carried = {f"weighbridge.file.{name}" for name in model.files}
    different = set(llamacpp.different_keys(stored, theirs))
    assert different <= set(llamacpp.EXPECTED_DIFFERENCES) | carried


def test_what_is_lost_is_told(source: Path, tmp_path: Path) -> None:
    plan = wb.plan(source, tmp_path / "x.gguf")
    assert {note.subject for note in plan.notes if note.kind == "dropped"} == LOST
    assert {step.route for step in plan.steps} == {Route.COPY}


def test_it_comes_back_bit_for_bit_but_for_what_is_lost(
    source: Path, stored: Path, tmp_path: Path
) -> None:
    wb.convert(stored, tmp_path / "back")
    with wb.open(source) as before, wb.open(tmp_path / "back") as after:
        assert set(before.tensors) - set(after.tensors) == LOST
        for name, tensor in after.tensors.items():
            assert tensor.encoding == before.tensors[name].encoding
            assert tensor.part().tobytes() == before.tensors[name].part().tobytes()
        assert dict(after.files) == dict(before.files)
        assert after.config == before.config


def test_a_foreign_file_comes_back_as_sentence_transformers(
    theirs: Path, expected: NDArray[np.float64], tmp_path: Path
) -> None:
    wb.convert(theirs, tmp_path / "back")
    for name in ("modules.json", "sentence_bert_config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).exists()
    settings = json.loads((tmp_path / "back" / "1_Pooling" / "config.json").read_text())
    assert settings["word_embedding_dimension"] == 384
    assert settings["pooling_mode_mean_tokens"] is True
    assert sum(settings[name] for name in settings if name.startswith("pooling_mode")) == 1
    assert np.array_equal(by_transformers(tmp_path / "back"), expected)


def by_transformers(directory: Path) -> NDArray[np.float64]:
    """Return embeddings as sentence-transformers makes them: the mean of states, of length 1."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    network = AutoModel.from_pretrained(directory).eval()
    rows = []
    for sentence in SENTENCES:
        with torch.no_grad():
            ids = tokenizer(sentence, padding=False, return_tensors="pt")
            states = network(**ids).last_hidden_state[0].double()
        mean = states.mean(0)
        rows.append((mean / mean.norm()).numpy())
    return np.stack(rows)


def by_llama_cpp(path: Path) -> NDArray[np.float64]:
    """Return llama.cpp's embeddings, tokens and pooling by its own reading of the file."""
    with wb.open(path) as model:
        facts = RUNTIME.facts(model)
        assert facts.pooling == "mean"
        with RUNTIME.start(model, facts, room=256) as runner:
            rows = [runner.embed(runner.tokens(text), facts.pooling) for text in SENTENCES]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def test_llama_cpp_makes_the_embeddings_of_sentence_transformers(
    stored: Path, expected: NDArray[np.float64]
) -> None:
    cosines = (expected * by_llama_cpp(stored)).sum(axis=1)
    assert cosines.min() > 0.99999


def test_half_the_size_is_nearly_as_good(
    source: Path, expected: NDArray[np.float64], tmp_path: Path
) -> None:
    wb.convert(source, tmp_path / "half.gguf", quantize="f16")
    cosines = (expected * by_llama_cpp(tmp_path / "half.gguf")).sum(axis=1)
    assert cosines.min() > 0.9999


def test_verify_agrees(source: Path, stored: Path) -> None:
    verification = wb.verify(source, stored)
    assert verification.passed
    assert verification.same_ids
    assert verification.cosine is not None
    assert verification.cosine > 0.99999
