"""Which products onnxruntime has fast kernels for on this processor, by what the system says."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Final

from device_runtime.model.bundle import Bundle
from draftlink.host.plain import printable

# What matters to products of int8 activations with 8-bit and 4-bit weights.
KNOWN: Final = ("asimddp", "i8mm", "avx2", "avx_vnni", "avx512f", "avx512_vnni")
ARM: Final = ("aarch64", "arm64")


def features() -> tuple[str, list[str]]:
    """The processor's architecture, and those of ``KNOWN`` that it has."""
    machine = platform.machine().lower()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: Apple's processors have all of it, others are not asked
        return machine, ["asimddp", "i8mm"] if machine in ARM else []
    words = set(text.split())
    return machine, [name for name in KNOWN if name in words]


def has_int8(machine: str, present: Collection[str]) -> bool:
    """Whether products of 8-bit weights are fast: ARM needs dot products (a Pi 5, no Pi 4)."""
    return machine not in ARM or "asimddp" in present


def takes_zero_points(machine: str) -> bool:
    """Whether 4 bits with zero points are as fast as without: not in KleidiAI's kernels, on ARM."""
    return machine not in ARM


def slow(bits: Collection[int], machine: str, present: Collection[str]) -> str | None:
    """Why a bundle of products of so many ``bits`` is slow on a processor; None where it is not."""
    if 8 in bits and not has_int8(machine, present):
        return (
            "this processor has no dot products (asimddp), so onnxruntime has no fast kernel for"
            " this bundle's 8-bit weights; export it with --precision int4, or with this board's"
            " costs (`draftlink device --measure-costs FILE`, `draftlink export --costs FILE`)"
        )
    return None


def warn(bundle: Bundle) -> None:
    """Say where this processor has no fast kernel for the bundle's products."""
    told = bundle.manifest.quantization
    bits = {one.kernel.bits for one in told.kernels} if told is not None else set()
    if (why := slow(bits, *features())) is not None:
        warnings.warn(f"{printable(str(bundle.path))}: {why}", stacklevel=3)
