"""Checkpoints that keep their weights in few bits: by which method, and what reads that here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import transformers
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from bs_runtime.checkpoint.config import MAJOR
from bs_runtime.checkpoint.errors import CheckpointError

# What must be importable, by method; transformers' own messages are code of its insides in part.
NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "torchao": ("torchao", "accelerate") if MAJOR < 5 else ("torchao",),
    "gptq": ("gptqmodel", "optimum", "accelerate"),
    "fp8": ("accelerate",),
    "mxfp4": ("accelerate",),
    "compressed-tensors": ("compressed_tensors",),
    "hqq": ("hqq",),
    "quanto": ("optimum.quanto", "accelerate"),
}
FLOATS: Final = "use the same model's checkpoint in floats"


def method_of(config: Any, source: str) -> str | None:
    """How a checkpoint's weights are quantized; None where they are floats.

    Raises CheckpointError where that is said in no way that is known: transformers would take such
    weights for floats.
    """
    said = getattr(config, "quantization_config", None)
    if said is None:
        return None
    method = said.get("quant_method") if isinstance(said, dict) else None
    if isinstance(said, dict) and method is None and said.get("load_in_4bit"):
        method = "bitsandbytes"  # of its first versions
    method = getattr(method, "value", method)
    names = {name.removesuffix("_4bit").removesuffix("_8bit") for name in _known()}
    if not isinstance(method, str) or method not in names:
        raise CheckpointError(
            f"{source} is quantized in a way that transformers {transformers.__version__} does not"
            f" know (quant_method {method!r}); {FLOATS}"
        )
    return method


def _known() -> list[str]:
    return [str(getattr(name, "value", name)) for name in AUTO_QUANTIZATION_CONFIG_MAPPING]


def need(method: str, source: str) -> None:
    """Raise CheckpointError where a package is missing that reads weights of this method."""
    missing = [name for name in NEEDS.get(method, ()) if not _is_there(name)]
    if missing:
        names = " ".join(name.replace("_", "-").replace(".", "-") for name in missing)
        raise CheckpointError(
            f"{source} is quantized by {method}, which needs more to be read: pip install {names};"
            f" or {FLOATS}"
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False
