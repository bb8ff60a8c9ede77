"""Weights of ONNX graphs that stay quantised: ggml's blocks as ``MatMulNBits``, and what is near.

`quantize` is the pass over a graph, `Choice` what can be asked of it. `forms` is the table of what
is done with which type.
"""

from weighbridge.converters.graphs.quantized.choice import Choice
from weighbridge.converters.graphs.quantized.forms import FORMS, Aim, Form
from weighbridge.converters.graphs.quantized.parts import InBlocks
from weighbridge.converters.graphs.quantized.rewrite import quantize

__all__ = ["FORMS", "Aim", "Choice", "Form", "InBlocks", "quantize"]
