"""A target's forwards in this checkout against those in another, on the CPU.

    git worktree add ../before COMMIT
    python -m bench.revisions ../before [--pairs 15] [--only llama ...] [--json FILE]

Random models of the architectures whose sessions run in one forward, large enough that layers have
work and small enough that what is beside them shows. Each checkout has a process of its own, which
is stopped while the other runs; both have all cores. A pair is one turn of each, the order taking
turns; a turn's figure is the best of some forwards, as other work can only make one slower. Printed
are the medians over the pairs, and that of here / before with its 95% interval by the bootstrap.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.runtimes import turns

OURS = ("bs_runtime", "device_runtime", "draftlink", "export", "tinypair")
CACHED = 256
# Sessions in a step, and rows of each.
STEPS = ((1, 1), (1, 5), (1, 16), (8, 1), (8, 5))
FORWARDS = 5  # in a turn
WIDTH, LAYERS, HEADS, VOCAB = 512, 6, 8, 8192
TYPES = ("llama", "qwen2", "qwen3", "gemma", "gpt2", "gpt_neox", "olmo2", "granite", "cohere")
RESAMPLED = 2000

Took = dict[str, list[float]]  # seconds of each pair's turn, by step


def worker(pipe: Connection, checkout: Path, kind: str) -> None:
    """Answer each message with the seconds of each of ``STEPS``."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import tinypair
    from bs_runtime.model import target
    from bs_runtime.model.kv import Feed

    assert Path(target.__file__).is_relative_to(checkout)
    config = AutoConfig.for_model(
        kind,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        vocab_size=VOCAB,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    words = (tinypair.TARGET / "tokenizer.json").read_text(encoding="utf-8")  # of no account
    made = target.Target(model, words, kind)
    ids = torch.randint(VOCAB, (CACHED + 16,)).tolist()
    slots = [made.open() for _ in range(max(count for count, _ in STEPS))]
    for slot in slots:
        slot.forward(ids[:CACHED], last=True)
    pipe.send(None)
    while pipe.recv():
        found = []
        for count, rows in STEPS:
            fed, best = ids[CACHED : CACHED + rows], float("inf")
            for _ in range(FORWARDS + 1):  # the first of a shape is slow
                begun = time.perf_counter()
                made.forward([Feed(slot, fed, rows) for slot in slots[:count]])
                best = min(best, time.perf_counter() - begun)
                for slot in slots[:count]:
                    slot.rollback(CACHED)
            found.append(best)
        pipe.send(found)


def compare(kind: str, before: Path, pairs: int) -> tuple[Took, Took]:
    """What steps took in the checkout ``before``, and in this one."""
    here = Path(__file__).resolve().parent.parent
    names = [f"{count} x {rows}" for count, rows in STEPS]
    took: tuple[Took, Took] = ({name: [] for name in names}, {name: [] for name in names})
    with (
        turns.process(worker, before, kind, title=f"{kind} before") as old,
        turns.process(worker, here, kind, title=f"{kind} here") as new,
    ):
        for pair in range(pairs):
            asks = list(zip((old, new), took, strict=True))
            for ask, into in asks if pair % 2 else reversed(asks):
                for name, seconds in zip(names, ask(True), strict=True):
                    into[name].append(seconds)
    return took


def ratio(old: Sequence[float], new: Sequence[float]) -> tuple[float, float, float]:
    """Median of new / old over pairs, and the interval of it."""
    ratios = [after / before for before, after in zip(old, new, strict=True)]
    drawn = random.Random(0)
    medians = sorted(
        statistics.median(drawn.choices(ratios, k=len(ratios))) for _ in range(RESAMPLED)
    )
    tail = RESAMPLED // 40
    return statistics.median(ratios), medians[tail], medians[-tail - 1]


def main() -> None:
    """Print, for each architecture and step, milliseconds and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path, help="a checkout of the other revision")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=TYPES, default=TYPES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    before = options.before.resolve()
    if not (before / "bs_runtime").is_dir():
        parser.error(f"{before} is no checkout of this project")
    console, saved = Console(), []
    for kind in options.only:
        table = Table(kind, "before ms", "here ms", "here / before", "95%")
        old, new = compare(kind, before, options.pairs)
        for name in old:
            middle, low, high = ratio(old[name], new[name])
            was, now = (1e3 * statistics.median(each[name]) for each in (old, new))
            table.add_row(
                name, f"{was:.2f}", f"{now:.2f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}"
            )
            saved.append({"model": kind, "step": name, "before": old[name], "here": new[name]})
        console.print(table)
    if options.json:
        options.json.write_text(json.dumps(saved, indent=1))


if __name__ == "__main__":
    main()
