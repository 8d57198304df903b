"""What device and base station must agree on: no torch, no onnxruntime, no clock.

Sockets are in ``proxy`` alone, a tool beside the protocol.
"""

__version__ = "0.1.0"
