"""Lossless distributed speculative decoding: a draft on the device, the target at the base station.

    import draftlink

    async with draftlink.Device("draft", "ws://127.0.0.1:8765") as device: ...
    result = draftlink.generate("draft", "ws://127.0.0.1:8765", "Once upon a time")
    answer = draftlink.chat("draft", "ws://127.0.0.1:8765").say("Hello")

These names are loaded when they are first used (PEP 562), so that ``import draftlink`` needs
neither ONNX Runtime nor PyTorch. The rooms of this package are what both ends agree on.
"""

import importlib
from typing import Any

from draftlink.host.extras import advice

__version__ = "0.1.0"
__all__ = ["Device", "Sampling", "__version__", "chat", "generate"]

_PLACES = {
    "Device": ("device_runtime.device", "Device"),
    "Sampling": ("draftlink.distribution.sampling", "Sampling"),
    "chat": ("device_runtime.short", "chat"),
    "generate": ("device_runtime.short", "generate"),
}


def __getattr__(name: str) -> Any:
    """A public name. Raises ImportError, which says what to install, where an extra is missing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'draftlink' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        told = advice(error, f"draftlink.{name}")
        if told is None:
            raise
        raise ImportError(told, name=error.name) from None
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
