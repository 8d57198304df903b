"""The draft model on ONNX Runtime: bundles, graphs, the KV cache, threads."""
