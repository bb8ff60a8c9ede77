"""What runs models: transformers, llama.cpp and ONNX Runtime behind one interface."""
