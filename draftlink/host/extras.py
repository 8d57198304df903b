"""What to install where a part of Draftlink lacks a library: the extras of pyproject.toml."""

from __future__ import annotations

import importlib.util
from typing import Final

_GGUF, _PLOT = "gguf", "plot"
# What each extra brings, by the names that it is imported by; `serve` brings the device's, too.
_OF: Final = {
    "device": ("onnxruntime", "tokenizers", "websockets", "jinja2", "prompt_toolkit"),
    "bs": (
        "torch", "transformers", "huggingface_hub", "prometheus_client", "starlette", "uvicorn",
        "websockets", "cryptography", "segno",
    ),
    "export": ("torch", "transformers", "optimum", "onnx", "onnxruntime", "onnxscript"),
    "serve": ("starlette", "uvicorn", "prometheus_client"),
    _GGUF: ("gguf",),
    _PLOT: ("matplotlib",),
}  # fmt: skip
# Where several bring a library, the first of those is the one that a message can name for sure:
# PyTorch is the base station's, unless the exporter asks for it.
_BY_MODULE: Final = {
    "onnx_ir": "export",  # with onnxscript
    **{module: extra for extra in reversed(_OF) for module in _OF[extra]},
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
    return sorted(_OF)


def missing() -> dict[str, list[str]]:
    """Of each extra that is not whole here, the libraries that it lacks."""
    lacks = {extra: [m for m in _OF[extra] if not _is_here(m)] for extra in names()}
    return {extra: modules for extra, modules in lacks.items() if modules}


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # somebody has put it off
        return False
