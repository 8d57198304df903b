"""The cost of the ``coupled`` scheme's shared noise: milliseconds to pick 8 tokens of 151,936.

    python -m bench.noise [--forward]

With ``--forward`` a forward of 8 tokens at context 512 in Qwen2.5-0.5B's shape (random weights,
float32, all threads) is timed before it. numpy and torch (on the CPU) are timed in turns, medians.
The largest weight of every block of ids is part of the time, the softmax that makes the rows is
not. torch runs on one thread: its threads spin between operators, which slows numpy beside it, and
most arrays here are too small to share.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache, Qwen2Config

from draftlink.distribution.gumbel import pick_many
from draftlink.distribution.noise import key_from_seed

POSITIONS = 8
VOCABULARY = 151_936  # Qwen2.5
REPEATS = 41


def rows(spread: float) -> np.ndarray:
    """Softmax rows (POSITIONS, VOCABULARY) of normal logits times ``spread``."""
    logits = np.random.default_rng(0).standard_normal((POSITIONS, VOCABULARY)) * spread
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def forward_ms() -> float:
    """Milliseconds of a 0.5B model's forward of POSITIONS tokens at context 512, median of 5."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    times = []
    with torch.inference_mode():
        cache = DynamicCache()
        model(torch.ones(1, 512, dtype=torch.long), past_key_values=cache, logits_to_keep=1)
        for _ in range(5):
            start = time.perf_counter()
            model(torch.ones(1, POSITIONS, dtype=torch.long), past_key_values=cache)
            times.append(time.perf_counter() - start)
            cache.crop(-POSITIONS)
    return statistics.median(times) * 1e3


def main() -> None:
    """Print one line for each shape of row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--forward", action="store_true", help="time a 0.5B model's forward too")
    if parser.parse_args().forward:
        print(f"forward of {POSITIONS} tokens, 0.5B, float32: {forward_ms():.0f} ms")
    torch.set_num_threads(1)
    keys, positions = [key_from_seed(1, "coupled")] * POSITIONS, range(POSITIONS)
    single = rows(1.0) * 1e-9
    single[:, 4321] = 1.0
    sparse = np.zeros((POSITIONS, VOCABULARY))
    sparse[:, ::64] = 1.0
    shapes = {
        "flat (all equal)": np.ones((POSITIONS, VOCABULARY)),
        "softmax of 2 normal": rows(2.0),
        "softmax of 4 normal": rows(4.0),
        "one token, 1e-9 elsewhere": single,
        "one in 64": sparse,
    }
    print(f"ms for {POSITIONS} positions, V = {VOCABULARY}")
    for name, p in shapes.items():
        both = {"numpy": p, "torch": torch.from_numpy(p)}
        times: dict[str, list[float]] = {"numpy": [], "torch": []}
        for _ in range(REPEATS):
            for library, weights in both.items():
                start = time.perf_counter()
                pick_many(keys, positions, weights)
                times[library].append(time.perf_counter() - start)
        medians = [f"{key} {statistics.median(ts) * 1e3:6.2f}" for key, ts in times.items()]
        print(f"{name:28}", *medians, sep="  ")


if __name__ == "__main__":
    main()
