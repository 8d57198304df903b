"""The device: draft model on ONNX Runtime, drafting loop, client. Runs without torch."""
