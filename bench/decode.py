"""Decoding on one board: this runtime against onnxruntime-genai and llama.cpp.

    python -m bench.decode [--cache DIR] [--threads 2] [--json FILE]
    python -m bench.decode --model smollm2 [--bundles DIR ...] [--plot FILE] [--json FILE]

Each runtime has a process of its own, which reads both contexts once, and is stopped while another
is measured; a token at a time after 128 and after 1,024 tokens of context, turns of 24 tokens
interleaved, and medians quoted. Peers that are not installed are named; they go into a virtual
environment, or a folder on PYTHONPATH, of their own:

    pip install onnxruntime-genai onnx_ir llama-cpp-python gguf 'transformers>=5'

Without ``--model``: speed alone, of Qwen2.5-0.5B's shape with random weights (``bench.shape`` makes
it), in each runtime's own 4-bit form. onnxruntime-genai runs with one thread too (its default), and
its better count is what the ratio is taken to. The share of the read bandwidth counts the weights
that a token reads, over what the same threads read at best from a large array.

With ``--model``: at equal acceptance. A pretrained model's float32 reference (``bench.real``) goes
to everybody, who makes of it what he can: bundles of ours, five formats of llama.cpp, genai's 4
bits. Σ min(p, q) to the reference is measured on its own text, first, and kept beside it, so that
``--repeats 0`` can do that on a busy machine, and another run the times on a quiet one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import shape
from bench.real import fronts
from bench.runtimes import turns
from bench.runtimes.turns import Entry

CONTEXTS = (128, 1024)
REPEATS = 31


def peers(cache: Path, threads: int, console: Console) -> list[Entry]:
    """What is installed."""
    found = [Entry("Draftlink", "Draftlink", shape.bundle(cache), threads)]
    if shape.installed("onnxruntime_genai"):
        version = importlib.metadata.version("onnxruntime-genai")
        for count in sorted({1, threads}, reverse=True):
            found.append(Entry(f"genai {version}", "genai", shape.genai(cache), count))
    else:
        console.print("onnxruntime-genai is not installed, and left out")
    if shape.installed("llama_cpp", "gguf"):
        version = importlib.metadata.version("llama-cpp-python")
        found.append(Entry(f"llama.cpp ({version})", "llama.cpp", shape.gguf(cache), threads))
    else:
        console.print("llama-cpp-python (and gguf) is not installed, and left out")
    return found


def random_weights(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Speed alone: tokens/s of each runtime, and ours over theirs."""
    listed = peers(options.cache, options.threads, console)
    taken, read = [], []
    with ExitStack() as stack:
        asks = [
            stack.enter_context(
                turns.process(turns.worker, e.kind, e.path, e.threads, title=e.title)
            )
            for e in listed
        ]
        reader = stack.enter_context(turns.process(turns.probe, options.threads))
        for _ in range(options.repeats):
            taken.append(turns.interleaved(asks, [CONTEXTS] * len(asks)))
            read.append(reader(True))
        peaks = [ask(turns.Peak()) for ask in asks]
    best_read = max(read)
    rows: list[dict[str, Any]] = [
        {"runtime": entry.title, "kind": entry.kind, "threads": entry.threads,
         "file_bytes": entry.bytes, "peak_bytes": peak,
         "bandwidth_share": entry.bytes / seconds[CONTEXTS[0]] / best_read,
         "tokens_per_s": {str(context): 1 / s for context, s in seconds.items()}}
        for entry, peak, seconds in zip(listed, peaks, turns.medians(taken), strict=True)
    ]  # fmt: skip
    table = Table("int4", "threads", "file MB", "peak MB",
                  *(f"tokens/s at {c}" for c in CONTEXTS), "of read bandwidth",
                  title=f"medians of {options.repeats}")  # fmt: skip
    for row in rows:
        table.add_row(
            row["runtime"], str(row["threads"]), f"{row['file_bytes'] / 1e6:.0f}",
            f"{row['peak_bytes'] / 1e6:.0f}", *(f"{t:.1f}" for t in row["tokens_per_s"].values()),
            f"{row['bandwidth_share']:.0%}",
        )  # fmt: skip
    console.print(table)
    ratios = {}
    for kind in ("genai", "llama.cpp"):
        them = [r["tokens_per_s"] for r in rows if r["kind"] == kind]
        if them:
            ratios[kind] = {
                c: rows[0]["tokens_per_s"][c] / max(t[c] for t in them) for c in map(str, CONTEXTS)
            }
            told = ", ".join(f"{ratio:.2f} at {c}" for c, ratio in ratios[kind].items())
            console.print(f"Draftlink / {kind} at its best: {told}")
    console.print(f"read bandwidth, {options.threads} threads: {best_read / 1e9:.1f} GB/s at best")
    return {"runtimes": rows, "ratios": ratios, "read_bytes_per_s": best_read}


def main() -> None:
    """Print what each runtime takes for a token."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=shape.CACHE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--model", help="smollm2, gemma3, or a reference's folder")
    parser.add_argument("--bundles", type=Path, nargs="+", help="ours; exported if not given")
    parser.add_argument("--context", type=int, help="of bundles that are exported")
    parser.add_argument("--short", action="store_true", help="few positions of text: a trial")
    parser.add_argument("--plot", type=Path, help="PNG or SVG, with --model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "active")  # llama.cpp's threads, at their best
    console = Console(width=None if Console().is_terminal else 170)
    if options.model is None:
        found = random_weights(options, console)
    else:
        found = fronts.compare(options, CONTEXTS, console)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
