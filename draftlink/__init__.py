"""What device and base station must agree on. numpy only: no torch, no onnxruntime, no sockets."""

__version__ = "0.1.0"
