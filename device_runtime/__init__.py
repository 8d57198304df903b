"""The device: draft model on ONNX Runtime, drafting loop, client. Runs without torch."""

import os

# Official wheels of onnxruntime carry telemetry; it must be off before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
