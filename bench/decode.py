"""int4 decoding on one board: this runtime against onnxruntime-genai and llama.cpp.

    python -m bench.decode [--cache DIR] [--threads 2] [--json FILE]

One model, Qwen2.5-0.5B's shape with random weights (``bench.shape`` makes it), in each runtime's
own 4-bit form, a token at a time after 128 and after 1,024 tokens of context. Each runtime has a
process of its own, which reads both contexts once, and is stopped while another is measured; turns
of 24 tokens are interleaved, and medians quoted. Peers that are not installed are named.
onnxruntime-genai runs with one thread too (its default), and its better count is what the ratio is
taken to. The share of the read bandwidth counts the weights that a token reads, over what the same
threads read at best from a large array. Peers go into a virtual environment of their own:

    pip install onnxruntime-genai onnx_ir llama-cpp-python gguf 'transformers>=5'
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import shape
from bench.runtimes import KINDS, Cached, Runtime

CONTEXTS = (128, 1024)
REPEATS = 31
TOKENS = 24  # in a turn
PROBE_BYTES = 1 << 30


def peak_bytes() -> int:
    """The most memory that this process has held, its memory-mapped files counted (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def worker(pipe: Connection, kind: str, path: Path, threads: int) -> None:
    """Run a runtime in this process: a context's length in, seconds a token behind it out.

    A context is read when it is first asked for, into a cache that is then kept and cut back.
    """
    runtime: Runtime = KINDS[kind](path, threads)
    rng = np.random.default_rng(0)
    read: dict[int, Cached] = {}
    pipe.send(None)
    while order := pipe.recv():
        if order == "memory":
            pipe.send(peak_bytes())
            continue
        context: int = order
        if context not in read:
            read[context] = runtime.read(rng.integers(1, 8000, context).tolist())
        cached = read[context]
        cached.step(1)  # the first one after another's turn finds nothing in the caches
        times = []
        for token in rng.integers(1, 8000, TOKENS).tolist():
            begun = time.perf_counter()
            cached.step(token)
            times.append(time.perf_counter() - begun)
        cached.rollback(context)
        pipe.send(statistics.median(times))


def probe(pipe: Connection, threads: int) -> None:
    """Read 1 GiB with ``threads`` threads: bytes/s of the best of three ways, for each order."""
    import torch

    torch.set_num_threads(threads)
    matrix = torch.ones(PROBE_BYTES >> 17, 1 << 15)
    vector = torch.ones(1 << 15)
    readers: tuple[Callable[[], object], ...] = (
        lambda: matrix @ vector,
        lambda: matrix.sum(),
        lambda: matrix.max(),
    )
    pipe.send(None)
    while pipe.recv():
        least = math.inf
        for read in readers:
            begun = time.perf_counter()
            read()
            least = min(least, time.perf_counter() - begun)
        pipe.send(PROBE_BYTES / least)


@contextmanager
def process(target: Any, *arguments: Any) -> Iterator[Callable[[Any], Any]]:
    """A process of its own that answers what it is asked, and is stopped in between.

    Else threads that wait for work by spinning, as llama.cpp's and torch's do here, would take the
    cores that another's turn is measured on.
    """
    pipe, end = multiprocessing.Pipe()
    made = multiprocessing.get_context("spawn").Process(target=target, args=(end, *arguments))
    made.start()
    end.close()

    def answer() -> Any:
        try:
            return pipe.recv()
        finally:
            os.kill(made.pid or 0, signal.SIGSTOP)

    def ask(what: Any) -> Any:
        os.kill(made.pid or 0, signal.SIGCONT)
        pipe.send(what)
        return answer()

    try:
        answer()  # it is ready
        yield ask
    finally:
        made.kill()
        made.join(10)


def peers(cache: Path, threads: int, console: Console) -> list[tuple[str, str, Path, int]]:
    """(title, kind, files, threads) of what is installed."""
    found = [("Draftlink", "Draftlink", shape.bundle(cache), threads)]
    if shape.installed("onnxruntime_genai"):
        version = importlib.metadata.version("onnxruntime-genai")
        for count in sorted({1, threads}, reverse=True):
            found.append((f"genai {version}", "genai", shape.genai(cache), count))
    else:
        console.print("onnxruntime-genai is not installed, and left out")
    if shape.installed("llama_cpp", "gguf"):
        version = importlib.metadata.version("llama-cpp-python")
        found.append((f"llama.cpp ({version})", "llama.cpp", shape.gguf(cache), threads))
    else:
        console.print("llama-cpp-python (and gguf) is not installed, and left out")
    return found


def size(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    return sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir()))


def main() -> None:
    """Print tokens/s of each runtime and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=shape.CACHE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "active")  # llama.cpp's threads, at their best

    console = Console()
    listed = peers(options.cache, options.threads, console)
    seconds: dict[tuple[int, int], list[float]] = {}
    read: list[float] = []
    with ExitStack() as stack:
        asks = [stack.enter_context(process(worker, *entry[1:])) for entry in listed]
        reader = stack.enter_context(process(probe, options.threads))
        for repeat in range(options.repeats):
            for index, ask in enumerate(asks):
                for context in CONTEXTS:
                    with console.status(f"{listed[index][0]}, {context}, {repeat + 1}"):
                        seconds.setdefault((index, context), []).append(ask(context))
            read.append(reader(True))
        peaks = [ask("memory") for ask in asks]

    best_read = max(read)
    table = Table("int4", "threads", "file MB", "peak MB",
                  *(f"tokens/s at {c}" for c in CONTEXTS), "of read bandwidth",
                  title=f"medians of {options.repeats}")  # fmt: skip
    rows = []
    for index, (title, kind, path, threads) in enumerate(listed):
        medians = [statistics.median(seconds[index, context]) for context in CONTEXTS]
        share = size(path) / medians[0] / best_read
        rows.append(
            {"runtime": title, "kind": kind, "threads": threads, "file_bytes": size(path),
             "peak_bytes": peaks[index], "bandwidth_share": share,
             "tokens_per_s": dict(zip(map(str, CONTEXTS), (1 / m for m in medians), strict=True))}
        )  # fmt: skip
        table.add_row(
            title, str(threads), f"{size(path) / 1e6:.0f}", f"{peaks[index] / 1e6:.0f}",
            *(f"{1 / m:.1f}" for m in medians), f"{share:.0%}",
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
    if options.json:
        found = {"runtimes": rows, "ratios": ratios, "read_bytes_per_s": best_read}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
