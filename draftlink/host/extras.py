"""What to install where a part of Draftlink lacks a library: the extras of pyproject.toml."""

from __future__ import annotations

import importlib.util
from typing import Final

_DEVICE, _BS, _EXPORT, _GGUF, _PLOT = "device", "bs", "export", "gguf", "plot"
# Which extra brings a library, by the name that it is imported by. Where several do, the one that
# a message can name for sure: PyTorch is the base station's, unless the exporter asks for it.
_BY_MODULE: Final = {
    "onnxruntime": _DEVICE,
    "tokenizers": _DEVICE,
    "websockets": _DEVICE,
    "jinja2": _DEVICE,
    "prompt_toolkit": _DEVICE,
    "torch": _BS,
    "transformers": _BS,
    "huggingface_hub": _BS,
    "prometheus_client": _BS,
    "starlette": _BS,
    "uvicorn": _BS,
    "cryptography": _BS,
    "segno": _BS,
    "optimum": _EXPORT,
    "onnx": _EXPORT,
    "onnxscript": _EXPORT,
    "onnx_ir": _EXPORT,
    "gguf": _GGUF,
    "matplotlib": _PLOT,
}


def advice(error: ModuleNotFoundError, wants: str, whole: str | None = None) -> str | None:
    """What to do about a module that is not there; None where it is none that an extra brings.

    ``wants``: what needs it, for the message; ``whole``: the extra that has all of what that needs.
    """
    name = (error.name or "").partition(".")[0]
    extra = _BY_MODULE.get(name)
    if extra is None:
        return None
    if whole is not None and extra not in (_GGUF, _PLOT):
        extra = whole
    return f"{wants} needs {name}: pip install 'draftlink[{extra}]'"


def names() -> list[str]:
    """The extras that bring libraries, in alphabetical order."""
    return sorted(set(_BY_MODULE.values()))


def missing() -> dict[str, list[str]]:
    """Of each extra that is not whole here, the libraries that it lacks."""
    found: dict[str, list[str]] = {}
    for module, extra in sorted(_BY_MODULE.items()):
        if not _is_here(module):
            found.setdefault(extra, []).append(module)
    return found


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # somebody has put it off
        return False
