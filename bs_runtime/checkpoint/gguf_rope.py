"""How a GGUF file turns its queries and keys."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from bs_runtime.checkpoint.gguf_file import GgufFile
from bs_runtime.checkpoint.gguf_keys import Keys

FREQUENCIES: Final = "rope_freqs.weight"
# Llama 3's scaling: https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py keeps
# what each frequency is divided by, computed of these and one factor.
LOW, HIGH, ORIGINAL = 1.0, 4.0, 8192


def rope(said: Keys, head: int, *, alike: bool) -> dict[str, Any]:
    """The rotary embedding of layers that see everything, in transformers 5's words.

    ``head``: the size of one. ``alike``: all layers are. Raises CheckpointError for a scaling that
    is not known.
    """
    file = said.file
    theta = said.number("rope.freq_base", 10_000.0)
    kind = file.text(f"{said.name}.rope.scaling.type") or "none"
    if kind == "none":
        found: dict[str, Any] = {"rope_type": "default"}
    elif kind == "linear":
        found = {"rope_type": "linear", "factor": said.number("rope.scaling.factor")}
    elif kind == "yarn" and alike:
        original = said.size("rope.scaling.original_context_length")
        found = {
            "rope_type": "yarn",
            "factor": said.number("rope.scaling.factor"),
            "original_max_position_embeddings": original,
        }
    else:
        file.refuse(f"its {said.name}.rope.scaling.type {kind} is not read")
    if FREQUENCIES in file.tensors:
        if kind != "none":
            file.refuse(f"it scales its rotary embedding twice, by {kind} and by {FREQUENCIES}")
        found = _llama3(file, theta, head)
    return {"rope_theta": theta, **found}


def _llama3(file: GgufFile, theta: float, head: int) -> dict[str, Any]:
    """Llama 3's scaling, found again from what each frequency is divided by."""
    stored = file.tensors[FREQUENCIES]
    if stored.kind != "F32":
        file.refuse(f"its {FREQUENCIES} is of kind {stored.kind}, not F32")
    divisors = np.fromfile(file.path, "<f4", head // 2, offset=stored.begin).astype(np.float64)
    factor = float(divisors.max())
    lengths = 2 * math.pi * theta ** (np.arange(0, head, 2) / head)
    smooth = np.clip((ORIGINAL / lengths - LOW) / (HIGH - LOW), 0.0, 1.0)
    expected = 1.0 / ((1.0 - smooth) / factor + smooth)
    if not 1.0 <= factor <= 1e6 or not np.allclose(divisors, expected, rtol=1e-3):
        file.refuse(f"its {FREQUENCIES} is not Llama 3's scaling, the one that is read")
    if factor == 1.0:
        return {"rope_type": "default"}
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL,
    }
