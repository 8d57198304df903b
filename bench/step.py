"""What drafting costs beside the draft model's forward, at a vocabulary of 151,936; and a rollback.

    python -m bench.step [--bundle DIR] [--threads N] [--json FILE]

The whole step (forward, Top-K, lattice, draw, encode) against bare forwards of the same tokens, in
turns, at a context of 128; then the parts that are not the forward, alone; then rollbacks. Without
``--bundle``: Qwen2.5-0.5B's shape with random weights (``bench.shape`` makes it), int4.

Random weights make rows that are all but flat, which no language model's are: nearly every draw
then falls on the rest of a row, and on the rest of the next. So rows are put in their place: behind
each forward a step sees one of the embedded draft's on held-out prompts, its ids spread over all of
the vocabulary. ``flat`` leaves the rows as they are: the worst case.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import tinypair
from bench import shape
from device_runtime.drafting.drafter import Drafter
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from draftlink.coding.ids import IdModel
from draftlink.distribution import noise, sampling
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes import AnyScheme, topk
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tinypair.loopback import draft_bundle

CONTEXT = 128
GAMMA = 4
REPEATS = 120
TEXT_ROWS = 64
SCHEMES: tuple[AnyScheme, ...] = (topk.usual(), TopK(64, 1024), TopK(320, coding="fp16"), Split(),
                                  Coupled())  # fmt: skip
REQUESTS = (Sampling(0.8), Sampling(0.8, top_k=50), Sampling(0.8, top_p=0.9))


def median_s(call: Callable[[], object], repeats: int = 200) -> float:
    """The median time of a call, in seconds."""
    call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def started(scheme: AnyScheme, params: Sampling) -> frames.Start:
    """A request."""
    return frames.Start(
        generation=1, base=0, ids=[1], sampling=params, scheme=scheme, mode="draft",
        max_tokens=100, eos_ids=[], seed=1, surprisals=False,
    )  # fmt: skip


class LikeText:
    """A model whose rows are replaced by others, in turn, once its forward has run."""

    def __init__(self, model: DraftModel, rows: Sequence[NDArray[np.float32]]) -> None:
        self._model = model
        self._rows = itertools.cycle(rows)
        self.rollback = model.rollback

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""
        return self._model.length

    @property
    def bytes(self) -> int:
        """Memory of the KV cache."""
        return self._model.bytes

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed ids; another row's logits (V,)."""
        self._model.forward(ids)
        return next(self._rows)


def text_rows(vocab_size: int) -> list[NDArray[np.float32]]:
    """Logits (V,) of the embedded draft, TEXT_ROWS tokens into prompts; ids that it lacks get few.

    More rows than the processor's caches hold, as a row that a forward has just written is found
    in a cache no better than these.
    """
    bundle = load_bundle(draft_bundle(Console(stderr=True)))
    draft = DraftModel(bundle, threads=1)
    tokenizer = bundle.tokenizer()
    places = np.random.default_rng(0).permutation(vocab_size)[: draft.vocab_size]
    rows = []
    for prompt in tinypair.prompts(TEXT_ROWS // 8):
        ids = tokenizer.encode(prompt).ids
        draft.rollback(0)
        for _ in range(8):
            logits = draft.forward(ids)
            wide = np.full(vocab_size, logits.min(), dtype=np.float32)
            wide[places] = logits
            rows.append(wide)
            ids = [int(logits.argmax())]
    return rows


def whole_step(
    model: DraftModel, scheme: AnyScheme, rows: Sequence[NDArray[np.float32]]
) -> tuple[float, float]:
    """Seconds a token: bare forwards, and drafts of GAMMA tokens, interleaved."""
    history = np.random.default_rng(0).integers(1, 8000, CONTEXT).tolist()
    seen = LikeText(model, rows) if rows else model
    drafter = Drafter(
        seen, started(scheme, Sampling(0.8)), model.vocab_size, noise.key_from_seed(1, "device")
    )
    model.rollback(0)
    model.forward(history[:-1])

    def draft() -> list[int]:
        proposals = drafter.propose(list(history), GAMMA, CONTEXT)
        drafted = [proposal.drafted for proposal in proposals]
        drafter.encode(history, drafted)
        return [one.token for one in drafted]

    draft()  # the id model learns the history once
    bare, whole = [], []
    for _ in range(REPEATS):
        drafter.rollback(CONTEXT - 1)
        begun = time.perf_counter()
        tokens = draft()
        whole.append((time.perf_counter() - begun) / GAMMA)
        drafter.rollback(CONTEXT - 1)
        fed = [history[-1], *tokens[:-1]]
        begun = time.perf_counter()
        for token in fed:
            seen.forward([token])
        bare.append((time.perf_counter() - begun) / GAMMA)
    return statistics.median(bare), statistics.median(whole)


def parts(vocab_size: int, scheme: AnyScheme, params: Sampling) -> dict[str, float]:
    """Seconds a token of what follows the forward, on logits as peaked as a language model's."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 3.0, vocab_size).astype(np.float32)
    q = np.empty_like(logits)
    key = noise.key_from_seed(1, "device")
    with sampling.overflowing():
        spent = median_s(lambda: sampling.weights_in(q, logits, params, ()))
    q /= q.sum()
    drafted = scheme.propose(q, key, 7)
    ids = IdModel(vocab_size)
    return {
        "distribution_s": spent,
        "truncate_round_draw_s": median_s(lambda: scheme.propose(q, key, 7)),
        "encode_s": median_s(lambda: scheme.encode([drafted] * GAMMA, ids)) / GAMMA,
    }


def rollbacks(model: DraftModel) -> float:
    """The median time of rollbacks of 1 to 100 tokens, in seconds."""
    times = []
    for length in range(1, 101):
        model.forward([5] * length)
        begun = time.perf_counter()
        model.rollback(model.length - length)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--cache", type=Path, default=shape.CACHE)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    bundle = load_bundle(options.bundle or shape.bundle(options.cache))
    model = DraftModel(bundle, threads=options.threads)
    found: dict[str, list[dict[str, object]]] = {"step": [], "parts": []}

    table = Table("scheme", "rows", "forward, ms", "whole step, ms", "more",
                  title=f"a drafted token, context {CONTEXT}, {model.threads} threads")  # fmt: skip
    kinds = {"like text": text_rows(model.vocab_size), "flat": []}
    for kind, rows in kinds.items():
        for scheme in SCHEMES:
            bare, whole = whole_step(model, scheme, rows)
            found["step"].append(
                {"scheme": f"{scheme}", "rows": kind, "forward_s": bare, "step_s": whole}
            )
            table.add_row(f"{scheme}", kind, f"{bare * 1e3:.2f}", f"{whole * 1e3:.2f}",
                          f"{whole / bare - 1:.1%}")  # fmt: skip
    console.print(table)
    table = Table("scheme", "request", "distribution, µs", "truncate, round, draw, µs",
                  "encode, µs", title=f"its parts, V = {model.vocab_size:,}")  # fmt: skip
    for params in REQUESTS:
        for scheme in SCHEMES:
            spent = parts(model.vocab_size, scheme, params)
            asked = f"T={params.temperature} top_k={params.top_k} top_p={params.top_p}"
            found["parts"].append({"scheme": f"{scheme}", "request": asked, **spent})
            table.add_row(f"{scheme}", asked, *(f"{value * 1e6:.0f}" for value in spent.values()))
    console.print(table)
    rollback = rollbacks(model)
    console.print(f"a rollback of 1 to 100 tokens: {rollback * 1e6:.2f} µs")
    if options.json:
        told = found | {"rollback_s": rollback, "threads": model.threads}
        options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
