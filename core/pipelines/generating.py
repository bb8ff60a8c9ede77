"""What the pipelines of ours share that write text."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig, Pipeline

PREFIX = "prefix"


class Generating(Pipeline):
    """A pipeline whose model writes, by ``generate``.

    What the caller gives that is an option of ``generate`` goes there; ``generate_kwargs`` holds
    what is to go there without being looked at.
    """

    _pipeline_calls_generate = True
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True
    _default_generation_config = GenerationConfig(max_new_tokens=256)

    def _specific(self, task: str) -> dict[str, Any]:
        """Return what config.json says of a task, as T5's does: a prefix and ways to generate."""
        known = getattr(self.model.config, "task_specific_params", None) or {}
        found = known.get(task)
        return dict(found) if isinstance(found, dict) else {}

    def _generate(self, inputs: Any, options: dict[str, Any]) -> Any:
        """Return token ids, (texts, answers for each, tokens)."""
        rows = len(next(iter(inputs.values())))
        model: Any = self.model
        made = model.generate(**inputs, **self._prepare_generate_kwargs(options))
        return made.reshape(rows, len(made) // rows, *made.shape[1:])
