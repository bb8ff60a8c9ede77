"""Checkpoints as graphs that ONNX Runtime runs.

transformers builds a model and its exporter traces it, as for an export of its own; but for the
weights, in whose place there are tensors without memory that know what they are of. What becomes of
such a tensor, in transformers' loader and in the exporter's optimiser, is an expression over the
checkpoint's tensors, and these are streamed into the target like those of any other conversion.

torch, transformers, onnx_ir and onnxscript are imported by most modules here: they are themselves
imported only where a graph is wanted.
"""
