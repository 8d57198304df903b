"""Where a target runs, and in which precision: as asked for, or what this machine has room for."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch

from bs_runtime.model.errors import TargetError
from bs_runtime.model.loading import Files
from bs_runtime.operations import memory

AUTO: Final = "auto"
DTYPES: Final = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip
NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
ROWS, SIDE, TRIALS = 8, 1024, 5  # of a product that precisions are compared by

log = logging.getLogger("draftlink.bs")


def find_device(device: str) -> torch.device:
    """The device; ``auto`` is a GPU where there is one, else the CPU.

    Raises TargetError where it is unknown or not there.
    """
    if device == AUTO:
        device = "cuda" if torch.cuda.device_count() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError:
        place = torch.device("meta")
    here = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if place.type not in here:
        raise TargetError(f"no device {device!r}; use {AUTO}, {', '.join(here)}, or cuda:1")
    if not here[place.type]:
        raise TargetError(f"PyTorch finds no {place.type} device here; use --device cpu")
    if (place.index or 0) >= here[place.type]:
        raise TargetError(f"no device {device!r}; there are {here[place.type]}, counted from 0")
    return place


@dataclass(frozen=True)
class Size:
    """What a checkpoint takes once it is loaded; None where that is not known before."""

    parameters: int | None
    table: int  # numbers of the embedding: a packed head lies beside it
    cached: int  # numbers that a token's keys and values are
    context: int  # tokens
    codes: int | None = None  # bytes of weights that are loaded as they are
    reads: int = 0  # bytes a number that its reader needs while it loads, at the least

    def bytes(self, dtype: torch.dtype, place: torch.device) -> int | None:
        """Of the weights where they are, and of what is held beside them while they are loaded."""
        if self.codes is not None or self.parameters is None:
            return self.codes
        packed = place.type == "cpu" and dtype == torch.float32
        converted = self.reads if self.reads and dtype != torch.float32 else 0
        return self.parameters * (dtype.itemsize + converted) + packed * 4 * self.table

    def sum(self, dtype: torch.dtype, place: torch.device) -> str:
        """The same as arithmetic, in GB."""
        total = self.bytes(dtype, place)
        if total is None:
            return "memory that cannot be told before it is loaded"
        if self.codes is not None or self.parameters is None:
            return f"{total / 1e9:.2f} GB of weights as they are"
        parts = [f"{self.parameters / 1e9:.3g} billion parameters × {dtype.itemsize} bytes"]
        if self.reads and dtype != torch.float32:
            parts.append(f"as much × {self.reads} while the file is read")
        if place.type == "cpu" and dtype == torch.float32:
            parts.append(f"a head of {4 * self.table / 1e9:.3g} GB beside its table")
        return f"{' + '.join(parts)} = {total / 1e9:.2f} GB"


def size_of(files: Files) -> Size:
    """Reckoned from the configuration, and a quantized folder's files."""
    text = files.config.get_text_config()

    def number(*names: str) -> int:
        found = (getattr(text, name, None) for name in names)
        return next((each for each in found if isinstance(each, int)), 0)

    width, heads = number("hidden_size"), number("num_attention_heads")
    head = number("head_dim") or (width // heads if heads else 0)
    shared = number("num_key_value_heads", "num_attention_heads")
    return Size(
        parameters=files.parameters if files.method is None else None,
        table=number("vocab_size") * width,
        cached=2 * number("num_hidden_layers") * shared * head,
        context=number("max_position_embeddings"),
        codes=None if files.method is None else files.bytes,
        reads=4 if files.gguf is not None else 0,
    )


def product_seconds(dtype: torch.dtype) -> float:
    """What a product of a few rows takes on the CPU, in seconds: the median of some."""
    with torch.inference_mode():
        x, weight = torch.ones(ROWS, SIDE, dtype=dtype), torch.ones(SIDE, SIDE, dtype=dtype)
        times = []
        for _ in range(TRIALS):
            begun = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def choose_dtype(
    asked: str,
    size: Size,
    place: torch.device,
    own: torch.dtype = torch.float32,
    *,
    name: str = "the model",
    free: Callable[[torch.device], int] = memory.free,
    seconds: Callable[[torch.dtype], float] = product_seconds,
) -> torch.dtype:
    """The precision of a target, as asked for or by ``auto``; the log tells what it takes.

    On a GPU ``auto`` is the checkpoint's ``own``; on a CPU float32 where it fits, else the one of
    the others that is the faster here. Raises TargetError, with the arithmetic, where it cannot
    fit.
    """
    there = free(place)

    def fits(dtype: torch.dtype) -> bool:
        return (size.bytes(dtype, place) or 0) <= there

    half = [torch.bfloat16, torch.float16]
    if asked != AUTO:
        chosen = DTYPES[asked]
    elif place.type != "cpu":
        chosen = own
    elif fits(torch.float32) or not fits(half[0]):
        chosen = torch.float32
    else:
        chosen = min(half, key=seconds)
    if not fits(chosen):
        smaller = next((d for d in half if fits(d) and d.itemsize < chosen.itemsize), None)
        other = "a smaller or a quantized model"
        if place.type != "cpu":
            other += ", or --device cpu"
        raise TargetError(
            f"{name} does not fit in {NAMES[chosen]}: {size.sum(chosen, place)}, and"
            f" {there / 1e9:.2f} GB are free on {place.type}; use "
            + (f"--dtype {NAMES[smaller]}, or " if smaller else "")
            + other
        )
    cache = size.cached * chosen.itemsize
    log.info(
        "loading %s in %s on %s: %s, and %.3g MB for each 1,000 tokens of a history; %.2f GB are"
        " free",
        name, NAMES[chosen], place.type, size.sum(chosen, place), cache / 1e3, there / 1e9,
    )  # fmt: skip
    return chosen


def own_dtype(files: Files) -> torch.dtype:
    """The precision that a checkpoint is in; bfloat16 for a GGUF file."""
    if files.gguf is not None:
        return torch.bfloat16
    said: Any = None
    for config in (files.config, files.config.get_text_config()):
        said = said or getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    said = getattr(torch, said, None) if isinstance(said, str) else said
    return said if said in NAMES else torch.float32
