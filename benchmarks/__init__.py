"""Speed and memory of attnkit against PyTorch, ONNX Runtime, NumPy and the machine's own limits (docs/benchmarks.md)."""
