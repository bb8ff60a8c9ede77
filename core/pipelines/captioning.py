"""``image-to-text``, as transformers 4 had it: an image in, a caption out."""

from __future__ import annotations

from typing import Any

from transformers.image_utils import load_image

from weighbridge.pipelines.generating import Generating


class ImageToText(Generating):
    """An image (a path, a URL, a PIL image) gives a list of ``{"generated_text": ...}``.

    ``prompt`` begins the caption, for models whose decoder takes one (BLIP).
    """

    _load_image_processor: Any = True

    def _sanitize_parameters(
        self,
        *,
        prompt: str | None = None,
        timeout: float | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        before = {"prompt": prompt, "timeout": timeout}
        told = {name: value for name, value in before.items() if value is not None}
        return told, options | (generate_kwargs or {}), {}

    def preprocess(
        self, image: Any, prompt: str | None = None, timeout: float | None = None
    ) -> Any:
        """Return the pixels of an image, and the tokens of a prompt."""
        pixels = self.image_processor(load_image(image, timeout=timeout), return_tensors="pt")
        inputs = {"pixel_values": pixels["pixel_values"].to(self.dtype)}
        if prompt is not None:
            told = self.tokenizer(prompt, return_tensors="pt")
            inputs |= {name: told[name] for name in ("input_ids", "attention_mask")}
        return inputs

    def _forward(self, model_inputs: Any, **options: Any) -> Any:
        return {"output_ids": self._generate(model_inputs, options)}

    def postprocess(self, model_outputs: Any) -> Any:
        """Return the captions of one image."""
        decode = self.tokenizer.decode
        return [
            {"generated_text": decode(ids, skip_special_tokens=True)}
            for ids in model_outputs["output_ids"][0]
        ]
