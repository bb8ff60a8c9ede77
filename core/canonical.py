"""The canonical dialect: Hugging Face's names, shapes and config keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge import packing
from weighbridge.dialect import Dialect, DialectOptions
from weighbridge.encoding import DTYPE_NAMES, Dense
from weighbridge.model import HUGGING_FACE
from weighbridge.registry import dialect

if TYPE_CHECKING:
    from weighbridge.encoding import Encoding
    from weighbridge.model import Model
    from weighbridge.recipe import Recipe
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

TORCH_NAMES = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""What config.json calls the dtypes that a model can be run in."""


class HuggingFaceDialect(Dialect):
    """The dialect that all others are translated to: the identity, but for packed weights."""

    name = HUGGING_FACE

    def to_canonical(self, model: Model, report: Report, *, weights_only: bool = False) -> Model:
        """Return the model itself, with each quantised weight of a checkpoint as one tensor."""
        del weights_only
        return packing.unpacked(model, report)

    def from_canonical(self, model: Model, report: Report, options: DialectOptions) -> Model:
        """Return the model itself."""
        del report, options
        return model

    def recipe(self, name: str, *, pure: bool = False, weighted: bool = False) -> Recipe | None:
        """Return a way to quantise checkpoints, as ``fp8``: one for all matrices, unweighted."""
        del pure, weighted
        return packing.recipe(name)

    def encoding(self, name: str, tensor: Lazy, wanted: Encoding | None) -> Encoding:
        """Return what is wanted, or the tensor's own encoding."""
        del name
        return wanted or tensor.encoding

    def complete(self, model: Model) -> Model:
        """Return the model with the dtype that most of its weights have written in its config."""
        if model.config is None:
            return model
        sizes: Counter[str] = Counter()
        for tensor in model.tensors.values():
            if isinstance(tensor.encoding, Dense) and tensor.encoding.name in TORCH_NAMES:
                sizes[tensor.encoding.name] += tensor.nbytes
        key = "dtype" if "dtype" in model.config else "torch_dtype"
        (most, _), *_ = sizes.most_common(1) or [("", 0)]
        said = str(model.config.get(key) or "float32")  # what transformers takes for granted
        if not most or DTYPE_NAMES.get(said) == most:
            return model
        return replace(model, config={**model.config, key: TORCH_NAMES[most]})


DIALECT = HuggingFaceDialect()


def canonical(model: Model, report: Report, *, weights_only: bool = False) -> Model:
    """Return `model` with Hugging Face's names, shapes, config and side files.

    Nothing is read or raised; what is wrong goes into `report`. With `weights_only` the tensors
    alone are translated.
    """
    return dialect(model.dialect).to_canonical(model, report, weights_only=weights_only)
