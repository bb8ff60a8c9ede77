"""ONNX's dialect: tensors by the names that a graph gives them, to Hugging Face's and back.

Exporters keep most names of a state dict and lose some, mostly of matrices that they transpose
beforehand. What a graph, its nodes and its own notes say of them is read here; see `resolve`. The
other way graphs are made; see `weighbridge.converters.graphs`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.converters.onnx.recipes import recipe_of
from weighbridge.converters.onnx.resolve import resolved
from weighbridge.dialect import Dialect, DialectOptions
from weighbridge.errors import Unsupported
from weighbridge.model import HUGGING_FACE

if TYPE_CHECKING:
    from weighbridge.encoding import Encoding
    from weighbridge.model import Model
    from weighbridge.recipe import Recipe
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy


class OnnxDialect(Dialect):
    """Names and shapes as a graph has them."""

    name = "onnx"
    universal = False

    def to_canonical(self, model: Model, report: Report, *, weights_only: bool = False) -> Model:
        """Return the checkpoint that the model's graphs were made from.

        Config and side files are Hugging Face's already.
        """
        del weights_only
        return replace(model, dialect=HUGGING_FACE, tensors=resolved(model, report), metadata={})

    def from_canonical(self, model: Model, report: Report, options: DialectOptions) -> Model:
        """Return a canonical `model` as graphs with their weights; see `graphs.export`."""
        from weighbridge.converters.graphs.export import export  # brings torch and transformers

        return export(model, report, options)

    def recipe(self, name: str, *, pure: bool = False, weighted: bool = False) -> Recipe | None:
        """Return a way to quantise the matrices that states are multiplied with; see `recipes`.

        Raises:
            Unsupported: (rule ``importance``) with an importance matrix.
            InvalidInput: (rule ``quantize``) for a name that means none.
        """
        del pure
        if weighted:
            raise Unsupported("takes no importance matrix", rule="importance", got=name)
        return recipe_of(name)

    def encoding(self, name: str, tensor: Lazy, wanted: Encoding | None) -> Encoding:
        """Return the tensor's own encoding: it is what the graph reads."""
        del name, wanted
        return tensor.encoding


DIALECT = OnnxDialect()
