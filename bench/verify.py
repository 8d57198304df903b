"""What verifying several tokens costs on the CPU, in units of one token.

    python -m bench.verify

Qwen2.5-0.5B's shape with random weights, float32, 512 tokens cached, all cores. ``plain`` is the
model as transformers loads it, with its own cache, cut back after each forward; ``ours`` is the
same model as a target. Their logits are compared. Forwards are interleaved, and medians printed: a
machine has slow episodes, so the ratios within one run are what counts. The memory is what the
process holds for each of the two.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel, Qwen2Config

import tinypair
from bs_runtime.model.target import Target

CACHED = 512
TOKENS = (1, 2, 4, 8, 16)
REPEATS = 15
SHAPE = Qwen2Config(
    vocab_size=151_936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    max_position_embeddings=32_768,
    rope_theta=1e6,
    tie_word_embeddings=True,
)


def resident() -> int:
    """Bytes of memory that this process holds, on Linux."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def build() -> PreTrainedModel:
    """The model, the same each time."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        copy.deepcopy(SHAPE),
        dtype=torch.float32,  # a target changes its model's configuration
    )
    return model


def plain(model: PreTrainedModel, prompt: list[int]) -> Callable[[list[int]], torch.Tensor]:
    """Feed ids behind the prompt through transformers' own path; the logits (ids, V)."""
    cache = DynamicCache()
    with torch.inference_mode():
        model(torch.tensor([prompt]), past_key_values=cache, logits_to_keep=1)

    def run(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(torch.tensor([ids]), past_key_values=cache).logits[0]
        cache.crop(len(prompt))
        return logits

    return run


def ours(model: PreTrainedModel, prompt: list[int]) -> Callable[[list[int]], torch.Tensor]:
    """The same as a target does it."""
    tokenizer = (tinypair.TARGET / "tokenizer.json").read_text(encoding="utf-8")  # of no account
    slot = Target(model, tokenizer, "random").open()
    slot.forward(prompt, last=True)

    def run(ids: list[int]) -> torch.Tensor:
        logits = slot.forward(ids)
        slot.rollback(len(prompt))
        return logits

    return run


def main() -> None:
    """Print milliseconds and ratios."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(SHAPE.vocab_size, (CACHED + max(TOKENS),), generator=generator).tolist()
    prompt, following = ids[:CACHED], ids[CACHED:]
    held = [resident()]
    paths = {}
    for name, path in (("plain", plain), ("ours", ours)):
        paths[name] = path(build(), prompt)
        held.append(resident())
    times: dict[tuple[str, int], list[float]] = {}
    for repeat in range(REPEATS + 1):
        for count in TOKENS:
            rows = []
            for name, run in paths.items():
                begun = time.perf_counter()
                rows.append(run(following[:count]))
                if repeat:  # the first forward of a shape is slow
                    times.setdefault((name, count), []).append(time.perf_counter() - begun)
            assert float((rows[0] - rows[1]).abs().max()) < 1e-4
    threads = torch.get_num_threads()
    print(f"{threads} threads, load {os.getloadavg()[0]:.1f} at the end; {CACHED} tokens cached")
    for name, before, after in zip(paths, held, held[1:], strict=False):
        print(f"{name}: {(after - before) / 1e9:.2f} GB")
    print("tokens  plain ms  of one  ours ms  of one  ours / plain")
    ms = {key: statistics.median(found) * 1e3 for key, found in times.items()}
    for count in TOKENS:
        here, there = ms["plain", count], ms["ours", count]
        print(
            f"{count:6}  {here:8.1f}  {here / ms['plain', 1]:6.2f}"
            f"  {there:7.1f}  {there / ms['ours', 1]:6.2f}  {there / here:12.2f}"
        )


if __name__ == "__main__":
    main()
