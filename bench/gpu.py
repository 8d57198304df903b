"""Steps of many sessions on a GPU: the forward, what it costs at least, and the time beside it.

    python -m bench.gpu [--layers 28 --hidden 3584 --dtype bfloat16 --device cuda]

A target of Qwen2.5-7B's shape with random weights; 512 tokens cached in each session. First a
forward of each session's tokens: replayed from a CUDA graph, launched by the same kernels, and
launched session by session through PyTorch's attention; interleaved, medians, beside what reading
the weights and the caches takes at the bandwidth of a copy. Then the scheduler with as many devices
in the same process (their sockets are ``bench.batch``'s subject), each back with four random tokens
after a pause: verdicts/s, delays, and the share of the time that is not the forward's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

import tinypair
from bench.serving.timed import timed, wait
from bs_runtime.engine.generation import Generation
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.model.choice import DTYPES
from bs_runtime.model.forward import Engine
from bs_runtime.model.kv import Feed
from bs_runtime.model.target import Target
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes.coupled import Coupled

CACHED = 512
SESSIONS = (1, 8, 64)
TOKENS = (1, 5, 9)
GAMMA = 4
REPEATS = 20
WINDOW_S = 4.0
PAUSE_S = 0.02  # at the most, from a verdict to the next draft
VOCAB = 152_064


def build(args: argparse.Namespace) -> Target:
    """The target, with random weights made where they stay."""
    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 37 // 7,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 128,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        rope_theta=1e6,
    )
    torch.manual_seed(0)
    with torch.device(args.device):
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[args.dtype])
    tokenizer = (tinypair.TARGET / "tokenizer.json").read_text(encoding="utf-8")  # of no account
    return Target(model, tokenizer, "random")


def bandwidth(device: torch.device) -> float:
    """Bytes/s that a copy reads and writes, median."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    into = torch.empty_like(source)
    found = []
    for _ in range(REPEATS):
        begun = wait()
        into.copy_(source)
        found.append(2 * source.numel() / (wait() - begun))
    return statistics.median(found)


def ways(target: Target) -> dict[str, Callable[[Sequence[Feed]], torch.Tensor]]:
    """How a step may run."""
    engine, fused = target.engine, target.engine.fused
    by_slot = Engine(engine.model, engine.vocab_size, engine.context)
    by_slot.packed = True
    found: dict[str, Callable[[Sequence[Feed]], torch.Tensor]] = {"by slot": by_slot.forward}
    if fused is not None:

        def launched(feeds: Sequence[Feed]) -> torch.Tensor:
            captured, fused._captured = fused._captured, {}
            try:
                return engine.forward(feeds)
            finally:
                fused._captured = captured

        found |= {"launched": launched, "replayed": engine.forward}
    return found


def forwards(target: Target, rng: random.Random) -> None:
    """Print the first table."""
    device = target.model.device
    slots = [target.open() for _ in range(max(SESSIONS))]
    for slot in slots:
        slot.forward(rng.choices(range(VOCAB), k=CACHED), last=True)
    rate = bandwidth(device)
    weights = sum(p.numel() * p.element_size() for p in target.model.parameters())
    head = target.model.get_input_embeddings().weight  # looked up, not read
    weights -= head.numel() * head.element_size()
    cached = sum(slot.bytes * CACHED // slot.capacity for slot in slots) // len(slots)
    known = ways(target)
    print(
        f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'},"
        f" {rate / 1e12:.2f} TB/s, weights {weights / 1e9:.1f} GB"
    )
    print("sessions  tokens  " + "  ".join(f"{name + ' ms':>11}" for name in known) + "  bound ms")
    for count in SESSIONS:
        for tokens in TOKENS:
            feeds = [
                Feed(slot, rng.choices(range(VOCAB), k=tokens), tokens) for slot in slots[:count]
            ]
            times: dict[str, list[float]] = {name: [] for name in known}
            for repeat in range(REPEATS + 2):
                for name, run in known.items():
                    begun = wait()
                    run(feeds)
                    took = wait() - begun
                    if repeat > 1:
                        times[name].append(took)
                    for slot in slots[:count]:
                        slot.rollback(CACHED)
            bound = (weights + count * cached) / rate
            print(f"{count:8}  {tokens:6}  " + "  ".join(
                f"{statistics.median(found) * 1e3:11.2f}" for found in times.values()
            ) + f"  {bound * 1e3:8.2f}")  # fmt: skip
    for slot in slots:
        slot.close()


async def serve(
    target: Target,
    forward_s: Callable[[], float],
    count: int,
    temperature: float,
    rng: random.Random,
) -> None:
    """Print a line of the second table."""
    scheduler = Scheduler(target)
    delays: list[float] = []
    opened = False

    async def device(prompt: list[int]) -> None:
        start = frames.Start(
            1, 0, prompt, Sampling(temperature=temperature), Coupled(), "draft",
            1 << 14, [], 1,
        )  # fmt: skip
        generation = Generation(
            target.open(), start, prompt, VOCAB, target.context, bytes(32), "bench"
        )
        await scheduler.run(generation.prompt())
        if scheduler.totals.rounds >= count:
            warm.set()
        while not stopped.is_set():
            await asyncio.sleep(rng.uniform(0, PAUSE_S))
            drafted = [Drafted(rng.randrange(VOCAB)) for _ in range(GAMMA)]
            asked = time.perf_counter()
            await scheduler.run(generation.draft(drafted))
            if opened:
                delays.append(time.perf_counter() - asked)
        scheduler.close(generation.slot)

    warm, stopped = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(device(rng.choices(range(VOCAB), k=CACHED))) for _ in range(count)]
    await warm.wait()
    totals, forward, begun, opened = scheduler.totals, forward_s(), time.perf_counter(), True
    steps, rounds, busy = totals.steps, totals.rounds, totals.busy_s
    await asyncio.sleep(WINDOW_S)
    took, opened = time.perf_counter() - begun, False
    steps, rounds, busy = totals.steps - steps, totals.rounds - rounds, totals.busy_s - busy
    forward = forward_s() - forward
    stopped.set()
    await asyncio.gather(*tasks)
    name = "coupled" if temperature else "greedy"
    p50, p99 = np.quantile(delays, [0.5, 0.99])
    print(
        f"{name:8}  {count:7}  {rounds / took:10.0f}  {p50 * 1e3:6.1f}  {p99 * 1e3:6.1f}"
        f"  {rounds / steps:5.1f}  {forward / steps * 1e3:10.2f}  {busy / took:4.2f}"
        f"  {1 - forward / busy:11.3f}  {1 - forward / took:13.3f}"
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=3584, help="a multiple of 512")
    args: Any = parser.parse_args()
    rng = random.Random(0)
    target = build(args)
    forwards(target, rng)
    forward_s = timed(target)
    print("scheme    devices  verdicts/s  p50 ms  p99 ms  batch  forward ms  busy"
          "  beside/busy  beside/window")  # fmt: skip
    for temperature in (0.0, 1.0):
        for count in SESSIONS:
            asyncio.run(serve(target, forward_s, count, temperature, rng))


if __name__ == "__main__":
    main()
