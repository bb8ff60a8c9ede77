"""``feature-extraction``: a state for each token, or one embedding for each text.

Without ``pooling`` this is transformers' own pipeline: nested lists of shape (1, tokens, width).
With it, each text gives one list of ``width`` numbers:

- ``auto`` does what sentence-transformers does with the directory: its pooling module, its
  normalisation, texts cut at its ``max_seq_length``;
- ``mean``, ``cls``, ``max`` and ``lasttoken`` say how; ``normalize=True`` scales to length 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import FeatureExtractionPipeline

from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.pooling import MODULES, config_name, modes_of, modules
from weighbridge.sidefiles import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AUTO = "auto"

LIMITS = "sentence_bert_config.json"
"""Where sentence-transformers says after how many tokens a text is cut."""


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


def _cls(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states[torch.arange(len(states)), mask[..., 0].argmax(1)]


def _max(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states.masked_fill(mask == 0, -torch.inf).amax(1)


def _last(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    last = mask.shape[1] - 1 - mask[..., 0].flip(1).argmax(1)
    return states[torch.arange(len(states)), last]


POOLINGS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": _mean,
    "cls": _cls,
    "max": _max,
    "lasttoken": _last,
}
"""States (batch, tokens, width) and a mask (batch, tokens, 1) -> embeddings (batch, width)."""


class Embedding(FeatureExtractionPipeline):
    """transformers' pipeline, which pools where it is asked to.

    Example:
        >>> states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
        >>> POOLINGS["mean"](states, torch.tensor([[[1.0], [1.0], [0.0]]])).tolist()
        [[2.0, 3.0]]
    """

    def _sanitize_parameters(
        self, pooling: str | None = None, normalize: bool | None = None, **others: Any
    ) -> Any:
        before, _, after = super()._sanitize_parameters(**others)
        if pooling == AUTO:
            pooling, normalize, limit = self._by_files(normalize)
            before = limit | before
        if pooling is not None and pooling not in POOLINGS:
            raise InvalidInput(
                "states cannot be pooled so",
                rule="pooling",
                got=pooling,
                expected=f"{AUTO}, {', '.join(POOLINGS)} or None",
            )
        chosen = {"pooling": pooling, "normalize": normalize}
        return before, {name: value for name, value in chosen.items() if value is not None}, after

    def _by_files(self, normalize: bool | None) -> tuple[str, bool, dict[str, Any]]:
        """Return the pooling, whether it is followed by a normalisation, and where texts are cut.

        Raises:
            InvalidInput: (rule ``pooling``) without sentence-transformers' files.
            Unsupported: (rule ``pooling``) for several modes at once.
        """
        place = Path(str(self.model.name_or_path))
        files = _files(place)
        named = config_name(files)
        if named is None:
            raise InvalidInput(
                f"has no {MODULES} that tells how to pool",
                rule="pooling",
                path=place,
                hint=f"name one: {', '.join(POOLINGS)}",
            )
        modes = modes_of(files, named)
        if len(modes) > 1:
            raise Unsupported("pools in several ways at once", rule="pooling", got=modes)
        kinds = {str(one.get("type")).rpartition(".")[2] for one in modules(files)}
        limit = parse_json(files[LIMITS], LIMITS).get("max_seq_length") if LIMITS in files else None
        cut = {"truncation": True, "max_length": limit} if limit else {"truncation": True}
        return modes[0], "Normalize" in kinds if normalize is None else normalize, cut

    def _forward(
        self, model_inputs: Any, pooling: str | None = None, normalize: bool = False
    ) -> Any:
        outputs = self.model(**model_inputs)
        if pooling is None:
            return outputs
        mask = model_inputs["attention_mask"][..., None].to(outputs[0].dtype)
        pooled = POOLINGS[pooling](outputs[0], mask)
        return {"embedding": torch.nn.functional.normalize(pooled) if normalize else pooled}

    def postprocess(self, model_outputs: Any, return_tensors: bool = False) -> Any:
        """Return the states of one text, or its embedding."""
        if "embedding" not in model_outputs:
            return super().postprocess(model_outputs, return_tensors)
        row = model_outputs["embedding"][0]
        return row if return_tensors else row.tolist()


def _files(place: Path) -> dict[str, bytes]:
    """Return sentence-transformers' files, by their names in the directory."""
    if not place.is_dir():
        return {}
    found = [place / MODULES, place / LIMITS, *place.glob("*/config.json")]
    return {str(one.relative_to(place)): one.read_bytes() for one in found if one.is_file()}
