"""Memory of a draft: a table by size and context, and a bundle's measured peak.

    python -m bench.memory [--bundle DIR] [--target MODEL ...] [--threads N] [--json FILE]

The table is computed: weights (each is read once from the memory-mapped file, and held once more as
the CPU's kernels want it), the KV cache in float32, and what the runtime itself takes. A bundle is
measured in a fresh process: peak resident memory after loading it, a prompt of half its context,
and decoding; to be at most file + KV cache + 150 MB. So is a target, on the CPU and in float32: its
weights, what is resident once it is loaded, the peak until then, the keys and values of 1,000
tokens, and what is resident once it was fed 256.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.table import Table

import tinypair
from device_runtime.model.bundle import Manifest, load_bundle
from device_runtime.model.draft_model import DraftModel

CONTEXTS = (512, 1024, 2048, 4096)
BYTES_PER_WEIGHT = {"int4": 0.5 + 4 / 128, "int8": 1 + 4 / 128}  # codes, and a scale for each 128
RUNTIME_BYTES = 150e6  # Python, onnxruntime, activations: what is granted beside file and cache


@dataclass(frozen=True)
class Shape:
    """A published draft model's."""

    name: str
    weights: float
    layers: int
    kv_heads: int
    head_dim: int


SHAPES = (
    Shape("tinypair draft", 3.2e6, 2, 1, 64),
    Shape("SmolLM2 135M", 134.5e6, 30, 3, 64),
    Shape("Qwen2.5 0.5B", 494.0e6, 24, 2, 64),
    Shape("Qwen3 0.6B", 596.0e6, 28, 8, 128),
    Shape("Llama 3.2 1B", 1235.8e6, 16, 8, 64),
    Shape("Qwen2.5 1.5B", 1543.7e6, 28, 2, 128),
)


def cache_bytes(layers: int, kv_heads: int, head_dim: int, context: int) -> int:
    """Keys and values in float32."""
    return 2 * layers * kv_heads * head_dim * context * 4


def peak_bytes() -> int:
    """The most that this process has held, its memory-mapped files counted (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def fresh(pipe: Connection, path: Path, threads: int | None) -> None:
    """Load, prefill, decode; peak bytes before and after."""
    before = peak_bytes()
    model = DraftModel(load_bundle(path), threads=threads)
    loaded = peak_bytes()
    model.forward([5] * (model.context // 2))
    for token in range(16):
        model.forward([token])
    pipe.send((before, loaded, peak_bytes()))


def resident_bytes() -> int:
    """What this process holds now (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def fresh_target(pipe: Connection, model: str) -> None:
    """Load, feed 1,000 tokens of a history, write a few."""
    from bs_runtime.model.target import Target

    before = resident_bytes()
    target = Target.load(model)
    weights = sum(p.numel() * p.element_size() for p in target.model.parameters())
    slot = target.open()
    slot.forward([5], last=True)
    loaded, peak = resident_bytes(), peak_bytes()
    slot.forward([5] * 239, last=True)
    for token in range(16):
        slot.forward([token])
    pipe.send({"imports": before, "weights": weights, "loaded": loaded, "loading": peak,
               "KV of 1,000": slot.bytes_for(1000), "fed 256": resident_bytes(),
               "peak": peak_bytes()})  # fmt: skip


def of_target(model: str) -> dict[str, float]:
    """A target's bytes, in a fresh process."""
    pipe, end = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=fresh_target, args=(end, model))
    process.start()
    found: dict[str, float] = pipe.recv()
    process.join()
    return found


def measured(path: Path, threads: int | None) -> dict[str, float]:
    """A bundle's bytes: file, cache, limit, and the peaks of a fresh process."""
    bundle = load_bundle(path)
    manifest: Manifest = bundle.manifest
    file = sum(f.bytes for f in manifest.files.values())
    cache = cache_bytes(manifest.layers, manifest.kv_heads, manifest.head_dim, manifest.context)
    pipe, end = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=fresh, args=(end, path, threads))
    process.start()
    before, loaded, peak = pipe.recv()
    process.join()
    return {"file": file, "cache": cache, "limit": file + cache + RUNTIME_BYTES,
            "imports": before, "loaded": loaded, "peak": peak}  # fmt: skip


def main() -> None:
    """Print the table, and what a bundle takes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--target", nargs="+", default=[])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    table = Table("draft", "precision", "file MB", *(f"{c:,} tokens" for c in CONTEXTS),
                  title="file + KV cache + 150 MB, in MB")  # fmt: skip
    for shape in SHAPES:
        for precision, each in BYTES_PER_WEIGHT.items():
            file = shape.weights * each
            caches = [cache_bytes(shape.layers, shape.kv_heads, shape.head_dim, c)
                      for c in CONTEXTS]  # fmt: skip
            sums = [f"{(file + cache + RUNTIME_BYTES) / 1e6:.0f}" for cache in caches]
            table.add_row(shape.name, precision, f"{file / 1e6:.0f}", *sums)
    console.print(table)
    results = {}

    def told(name: str, found: dict[str, float]) -> None:
        results[name] = found
        parts = ", ".join(f"{part} {value / 1e6:.0f}" for part, value in found.items())
        console.print(f"{name}, MB: {parts}")

    if options.bundle:
        told(str(options.bundle), measured(options.bundle, options.threads))
    for model in options.target:
        told(model, of_target(str(tinypair.TARGET) if model == "tinypair" else model))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
