"""The initialisers of a graph whose weights are lazy: adding some, dropping what nobody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weighbridge.converters.graphs.quantized.uses import identity
from weighbridge.encoding import DENSE, Dense

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import onnx_ir

    from weighbridge.tensor import Lazy

DTYPES = {"u8": "UINT8", "f32": "FLOAT", "f16": "FLOAT16", "bf16": "BFLOAT16", "f64": "DOUBLE"}
"""What ONNX calls the encodings that weights may have here."""


class Initializers:
    """The initialisers of a graph, and what each is made from.

    Attributes:
        weights: name -> lazy tensor, of those with neither a value nor a use that is left out.
    """

    def __init__(self, graph: onnx_ir.Graph, weights: Mapping[str, Lazy]) -> None:
        """Take over what there is."""
        self.weights = dict(weights)
        self._graph = graph
        self._values: dict[Hashable, onnx_ir.Value] = {}
        self._names = {value.name for value in (*graph.inputs, *graph.initializers.values())}
        self._names |= {value.name for node in graph.all_nodes() for value in node.outputs}

    def weight(self, name: str, tensor: Lazy) -> onnx_ir.Value:
        """Return the initialiser that a lazy tensor is, one for equal ones.

        Args:
            name: what it is called if it is new and nothing else is called so.
            tensor: of shape and encoding of the initialiser.
        """
        key = identity(tensor)
        if key not in self._values:
            self._values[key] = self._registered(name, tensor)
        return self._values[key]

    def constant(self, numbers: Sequence[int]) -> onnx_ir.Value:
        """Return an initialiser with these integers for its value."""
        import onnx_ir

        key = tuple(numbers)
        if key not in self._values:
            tensor = onnx_ir.tensor(np.array(numbers, np.int64))
            name = self._unused(f"integers.{'x'.join(map(str, numbers))}")
            value = onnx_ir.val(name, const_value=tensor)
            self._graph.register_initializer(value)
            self._values[key] = value
        return self._values[key]

    def drop_unread(self, name: str) -> bool:
        """Take an initialiser away if nothing reads it; return whether it was so."""
        value = self._graph.initializers[name]
        if value.uses() or value.is_graph_output():
            return False
        del self._graph.initializers[name]
        del self.weights[name]
        return True

    def encoding(self, name: str) -> Dense | None:
        """Return the encoding that an initialiser's numbers have, None for one of another kind."""
        value = self._graph.initializers.get(name)
        dtype = None if value is None or value.dtype is None else value.dtype.name
        return next((DENSE[ours] for ours, theirs in DTYPES.items() if theirs == dtype), None)

    def _registered(self, name: str, tensor: Lazy) -> onnx_ir.Value:
        import onnx_ir

        dtype = onnx_ir.DataType[DTYPES[tensor.encoding.name]]
        value = onnx_ir.val(self._unused(name), dtype, tensor.shape)
        self._graph.initializers.add(value)
        assert value.name is not None
        self.weights[value.name] = tensor
        return value

    def _unused(self, name: str) -> str:
        number, found = 1, name
        while found in self._names:
            number += 1
            found = f"{name}.{number}"
        self._names.add(found)
        return found
