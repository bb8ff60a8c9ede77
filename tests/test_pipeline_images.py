"""Pipelines over exported directories answer as those over the checkpoint do: images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from support import encoders, exports, tiny
from support.answers import assert_same

import weighbridge as wb
from weighbridge import errors

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32

EYE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": 8,
}

MOUTH = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}

PIXELS = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def picture(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    return Image.fromarray(noise)


PICTURES = [picture(0), picture(1)]


def processor(kind: str) -> dict[str, bytes]:
    """Return the file by which transformers makes an image processor."""
    size = {"height": SIDE, "width": SIDE}
    settings = {"image_processor_type": kind, "size": size, "do_center_crop": False}
    return {"preprocessor_config.json": json.dumps(settings).encode()}


def parts(ours: Any) -> dict[str, Any]:
    """Return what a pipeline has beside its model."""
    names = ("tokenizer", "image_processor")
    found = {name: getattr(ours, name) for name in names}
    return {name: part for name, part in found.items() if part is not None}


def compared(task: str, place: Path, model: Any, *inputs: Any, **options: Any) -> Any:
    """Assert that our pipeline and theirs say the same, and return what they say."""
    ours = wb.pipeline(task, place)
    theirs = transformers.pipeline(task, model=model, **parts(ours))
    found = ours(*inputs, **options)
    assert_same(found, theirs(*inputs, **options))
    return found


def test_images_are_classified(tmp_path: Path) -> None:
    model = tiny.model(tiny.config("ViTForImageClassification", **EYE, num_labels=3))
    exports.whole(tmp_path, model, {"pixel_values": PIXELS}, processor("ViTImageProcessor"))
    compared("image-classification", tmp_path, model, PICTURES, batch_size=2)
    assert wb.pipeline(path=tmp_path).task == "image-classification"


def test_images_have_features(tmp_path: Path) -> None:
    model = tiny.model(tiny.config("ViTModel", **EYE))
    exports.whole(tmp_path, model, {"pixel_values": PIXELS}, processor("ViTImageProcessor"))
    compared("image-feature-extraction", tmp_path, model, PICTURES, batch_size=2)
    assert wb.pipeline(path=tmp_path).task == "image-feature-extraction"


def test_objects_are_found(tmp_path: Path) -> None:
    sizes = EYE | {"image_size": [SIDE, SIDE], "num_detection_tokens": 5, "num_labels": 3}
    model = tiny.model(tiny.config("YolosForObjectDetection", **sizes))
    exports.whole(tmp_path, model, {"pixel_values": PIXELS}, processor("YolosImageProcessor"))
    found = compared("object-detection", tmp_path, model, PICTURES, threshold=0.1)
    assert all(found)


def test_images_are_classified_by_names(tmp_path: Path) -> None:
    settings = tiny.config("CLIPModel", text_config=MOUTH, vision_config=EYE, projection_dim=16)
    model = tiny.model(settings)
    inputs = exports.texts(400, pixel_values=PIXELS)
    inputs["input_ids"][:, -1] = MOUTH["eos_token_id"]
    files = encoders.roberta() | processor("CLIPImageProcessor")
    exports.whole(tmp_path, model, inputs, files)
    labels = ["a cat", "a weighbridge at night"]
    options = {"candidate_labels": labels, "hypothesis_template": "{}"}
    compared("zero-shot-image-classification", tmp_path, model, PICTURES[0], **options)


Case = tuple["transformers.PreTrainedModel", "Path"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """ViT and GPT-2."""
    eye = transformers.ViTConfig(**EYE)
    roles = {name: MOUTH[name] for name in ("vocab_size", "bos_token_id", "eos_token_id")}
    mouth = transformers.GPT2Config(
        n_embd=32, n_layer=1, n_head=4, n_positions=64, add_cross_attention=True, **roles
    )
    settings = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(eye, mouth)
    settings.architectures = ["VisionEncoderDecoderModel"]
    settings.decoder_start_token_id, settings.pad_token_id = 0, 1
    model = tiny.model(settings)
    told = {"decoder_start_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    model.generation_config.update(**told)
    place = tmp_path_factory.mktemp("reader")
    files = encoders.roberta() | processor("ViTImageProcessor")
    return model, exports.encoder_decoder(place, model, {"pixel_values": PIXELS}, files)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Case:
    mouth = MOUTH | {"sep_token_id": 2, "encoder_hidden_size": 32, "projection_dim": 16}
    settings = tiny.config(
        "BlipForConditionalGeneration",
        text_config=mouth,
        vision_config=EYE | {"projection_dim": 16},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    model = tiny.model(settings)
    place = tmp_path_factory.mktemp("blip")
    files = encoders.roberta() | processor("BlipImageProcessor")
    return model, exports.captioner(place, model, PIXELS, files)


@pytest.mark.parametrize("case", ["reader", "blip"])
@pytest.mark.parametrize("beams", [1, 3])
def test_images_are_described(case: str, beams: int, request: pytest.FixtureRequest) -> None:
    model, place = request.getfixturevalue(case)
    ours = wb.pipeline("image-to-text", place)
    pixels = ours.image_processor(PICTURES, return_tensors="pt")["pixel_values"]
    options = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False}
    with torch.no_grad():
        made = model.generate(pixels, **options)
    texts = ours.tokenizer.batch_decode(made, skip_special_tokens=True)
    expected = [[{"generated_text": text}] for text in texts]
    assert ours(PICTURES, batch_size=2, **options) == expected
    assert ours(PICTURES[0], **options) == expected[0]
    assert wb.pipeline(path=place).task == "image-to-text"


def test_a_caption_goes_on_from_a_prompt(blip: Case) -> None:
    model, place = blip
    ours = wb.pipeline("image-to-text", place)
    told = ours.tokenizer("a picture", return_tensors="pt")
    pixels = ours.image_processor(PICTURES[:1], return_tensors="pt")["pixel_values"]
    options = {"max_new_tokens": 5, "do_sample": False}
    with torch.no_grad():
        made = model.generate(pixels, told["input_ids"], told["attention_mask"], **options)
    expected = ours.tokenizer.decode(made[0], skip_special_tokens=True)
    assert ours(PICTURES[0], prompt="a picture", **options) == [{"generated_text": expected}]


def test_an_image_processor_has_to_be_there(reader: Case, tmp_path: Path) -> None:
    place = tiny.copied(reader[1], tmp_path / "bare")
    (place / "preprocessor_config.json").unlink()
    with pytest.raises(errors.InvalidInput) as caught:
        wb.pipeline("image-to-text", place)
    assert caught.value.rule == "pipeline-part"
