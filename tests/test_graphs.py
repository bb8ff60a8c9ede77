"""Checkpoints as ONNX graphs: what ONNX Runtime makes of them is what torch makes of the model."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from support.graph_cases import CASES, VOCABULARY, make
from transformers import DynamicCache
from transformers.exporters.base import ExportedModel
from transformers.exporters.utils import get_leaf_tensors
from transformers.modeling_outputs import BaseModelOutput

import weighbridge as wb
from weighbridge.pipelines.manifest import read_manifest
from weighbridge.pipelines.network import network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from transformers import PreTrainedModel

    Call = tuple[str, torch.nn.Module, dict[str, Any]]

TOLERANCE = 1e-4

BATCHES = (1, 3)

WINDOW = "_sliding_window_tensor"
"""A setting that the caches of transformers carry for layers with a window."""

LENGTHS = (2, 7, 11)
"""None of them was traced."""


GENERATIVE = [
    name
    for name, (task, _) in CASES.items()
    if task in {"text-generation", "text2text-generation", "image-to-text"} or name == "whisper"
]


class Case:
    """A model of transformers, and the same as exported."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.model = make(name)
        self.model.save_pretrained(folder / "hf")
        self.path = folder / "onnx"
        wb.convert(folder / "hf", self.path, to="onnx")
        self.exported = ExportedModel.from_pretrained(self.path, device="cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Give each case, exported when it is first asked for."""
    return cache(lambda name: Case(name, tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize("name", CASES)
def test_the_task_is_that_of_the_class(exported: Callable[[str], Case], name: str) -> None:
    case = exported(name)
    manifest = json.loads((case.path / "export.json").read_bytes())
    assert manifest["weighbridge"]["task"] == CASES[case.name][0]


@pytest.mark.parametrize("name", CASES)
def test_onnx_accepts_every_component(exported: Callable[[str], Case], name: str) -> None:
    for file in exported(name).path.glob("*.onnx"):
        onnx.checker.check_model(str(file))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_torch(
    exported: Callable[[str], Case], name: str, batch: int, length: int
) -> None:
    case = exported(name)
    torch.manual_seed(batch * 100 + length)
    called = set()
    for component, module, inputs in _calls(case.model, batch, length):
        with torch.no_grad():
            expected = module(**_copied(inputs))
        _compare(case.exported.runners[component](**_copied(inputs)), expected)
        called.add(component)
    assert called == set(case.exported.components)


@pytest.mark.parametrize("name", GENERATIVE)
@pytest.mark.parametrize("beams", [1, 3])
def test_generated_tokens_are_those_of_torch(
    exported: Callable[[str], Case], name: str, beams: int
) -> None:
    case = exported(name)
    torch.manual_seed(5)
    inputs = _prompt(case.model)
    options = {"max_new_tokens": 9, "num_beams": beams, "do_sample": False}
    expected = case.model.generate(**inputs, **options)
    found = network(read_manifest(case.path)).generate(**inputs, **options)
    assert found.tolist() == expected.tolist()


def _prompt(model: PreTrainedModel) -> dict[str, Any]:
    """Return what a text is made from: two prompts of other lengths, pictures, or sounds."""
    main = model.main_input_name
    if main != "input_ids":
        config = getattr(model.config, "vision_config", model.config)
        return {main: _MAIN[main](getattr(config, "encoder", config), 2)}
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    return {"input_ids": torch.randint(4, VOCABULARY - 2, (2, 6)), "attention_mask": mask}


def _compare(found: Any, expected: Any) -> None:
    given, wanted = get_leaf_tensors(dict(found)), get_leaf_tensors(dict(expected))
    assert {name for name in given if not name.endswith(WINDOW)} == set(wanted)
    for name, tensor in wanted.items():
        torch.testing.assert_close(given[name], tensor, rtol=0, atol=TOLERANCE)


def _copied(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs whose cache is another: a model adds to the one that it is given."""
    return torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, inputs)


def _calls(model: PreTrainedModel, batch: int, length: int) -> Iterator[Call]:
    """Yield each component's name, the module that it was made from, and inputs for both."""
    if hasattr(model, "text_decoder"):
        yield from _captioning(model, batch, length)
    elif model.config.is_encoder_decoder and model.can_generate():
        yield from _encoder_decoder(model, batch, length)
    elif model.can_generate():
        yield from _decoder(model, batch, length)
    else:
        yield "model", model, _inputs(model, batch, length)


def _decoder(model: PreTrainedModel, batch: int, length: int) -> Iterator[Call]:
    """Yield a text without a past, and a token and a few tokens after one."""
    cache = DynamicCache()
    with torch.no_grad():
        model(**_text(model, batch, length), past_key_values=cache)
    for new, held in ((length, 0), (1, length), (4, length)):
        ids = _ids(model, batch, new)
        mask = torch.ones(batch, held + new, dtype=torch.long)
        mask[0, : held // 2] = 0
        places = torch.arange(held, held + new).expand(batch, new)
        yield (
            "model",
            model,
            {
                "input_ids": ids,
                "attention_mask": mask,
                "position_ids": places,
                "past_key_values": _cut(cache, held),
            },
        )


def _cut(cache: DynamicCache, length: int) -> DynamicCache:
    """Return the cache's beginning, whole for layers with a window, too: a graph keeps all."""
    made = DynamicCache()
    for number, layer in enumerate(cache.layers):
        made.update(layer.keys[:, :, :length], layer.values[:, :, :length], number)
    return made


def _encoder_decoder(model: PreTrainedModel, batch: int, length: int) -> Iterator[Call]:
    encoder = model.get_encoder()
    inputs = _inputs(encoder, batch, length)
    yield "encoder", encoder, inputs
    with torch.no_grad():
        states = encoder(**inputs).last_hidden_state
    shared = {"encoder_outputs": BaseModelOutput(last_hidden_state=states)}
    if "attention_mask" in inputs:
        shared["attention_mask"] = inputs["attention_mask"]
    yield from _steps(model, "decoder_input_ids", shared, batch, length)


def _captioning(model: PreTrainedModel, batch: int, length: int) -> Iterator[Call]:
    inputs = {"pixel_values": _image(model.config.vision_config, batch)}
    yield "encoder", model.vision_model, inputs
    with torch.no_grad():
        states = model.vision_model(**inputs).last_hidden_state
    yield from _steps(
        model.text_decoder, "input_ids", {"encoder_hidden_states": states}, batch, length
    )


def _steps(
    module: PreTrainedModel, tokens: str, shared: dict[str, Any], batch: int, length: int
) -> Iterator[Call]:
    masked = tokens == "input_ids"
    first = {tokens: _ids(module, batch, length), **shared, **_mask(masked, batch, length)}
    yield "prefill", module, first
    with torch.no_grad():
        cache = module(**_copied(first), use_cache=True).past_key_values
    later = {tokens: _ids(module, batch, 1), **shared, **_mask(masked, batch, length + 1)}
    yield "decode", module, {**later, "past_key_values": cache}


def _mask(wanted: bool, batch: int, length: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, : length // 2 - 1] = 0
    return {"attention_mask": mask} if wanted else {}


def _inputs(model: PreTrainedModel, batch: int, length: int) -> dict[str, Any]:
    main = model.main_input_name
    if hasattr(model, "logit_scale"):
        images = {"pixel_values": _image(model.config.vision_config, batch + 1)}
        return _text(model, batch, length) | images
    if main == "input_ids":
        return _text(model, batch, length)
    return {main: _MAIN[main](model.config, batch)} | _image_mask(model, batch)


def _text(model: PreTrainedModel, batch: int, length: int) -> dict[str, Any]:
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, length - 1 :] = 0 if batch > 1 and length > 2 else 1
    made = {"input_ids": _ids(model, batch, length), "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        made["token_type_ids"] = torch.randint(0, 2, (batch, length))
    return made


def _ids(model: PreTrainedModel, batch: int, length: int) -> torch.Tensor:
    """Return ids, each row with one end of a text, which some classifiers look for."""
    end = model.config.get_text_config(decoder=True).eos_token_id
    ids = torch.randint(4, VOCABULARY - 2, (batch, length))
    ids[:, -1] = end if end is not None else 3
    return ids


def _image(config: Any, batch: int) -> torch.Tensor:
    size = getattr(config, "image_size", None) or (48, 80)
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, 3, height, width)


def _image_mask(model: PreTrainedModel, batch: int) -> dict[str, torch.Tensor]:
    if model.config.model_type != "detr":
        return {}
    mask = torch.ones(batch, 48, 80, dtype=torch.long)
    mask[0, 32:] = 0
    return {"pixel_mask": mask}


def _sound(config: Any, batch: int) -> torch.Tensor:
    if hasattr(config, "num_mel_bins"):
        return torch.randn(batch, config.max_length, config.num_mel_bins)
    return torch.randn(batch, 3500)


_MAIN = {
    "pixel_values": _image,
    "input_values": _sound,
    "input_features": lambda config, batch: torch.randn(
        batch, config.num_mel_bins, 2 * config.max_source_positions
    ),
}
