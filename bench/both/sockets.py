"""Over sockets on this machine, with the embedded pair itself: ``auto``, cold, and each fixed mode.

Both ends share the machine, and have a process each. In each of some turns every mode goes on with
the same prompt for 100 tokens; nobody is always the first. The fixed modes keep what their device
has found out, ``auto`` begins anew each time.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from typing import Any

from rich.console import Console

import tinypair
from device_runtime.device import Coupled, Device, Sampling
from device_runtime.drafting.estimators import Estimates
from tinypair.loopback import base_station, draft_bundle

TURNS, TOKENS = 15, 100
WAYS: dict[str, dict[str, Any]] = {
    "auto": {"mode": "auto"},
    "stream": {"mode": "stream"},
    "run-ahead": {"mode": "run-ahead"},
    **{f"stop-and-wait {gamma}": {"mode": "stop-and-wait", "gamma": gamma} for gamma in (3, 5, 8)},
}


def rates(turns: int = TURNS, tokens: int = TOKENS) -> dict[str, list[float]]:
    """Tokens/s of each way, turn by turn, behind one that warms up."""
    err = Console(stderr=True)
    bundle = draft_bundle(err)

    async def run(url: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        prompts, rng = tinypair.prompts(10), random.Random(0)
        async with Device(bundle, url) as device:
            for turn in range(turns + 1):
                texts = set()
                for name in rng.sample(list(WAYS), len(WAYS)):
                    if name == "auto":
                        kept = device._estimates, device._acceptance
                        device._estimates, device._acceptance = Estimates(), {}
                        device._estimates.rtt.add(kept[0].rtt.typical)
                    generation = device.generate(
                        prompts[turn % len(prompts)], max_tokens=tokens, scheme=Coupled(),
                        seed=turn, sampling=Sampling(1.0), eos_ids=(), **WAYS[name],
                    )  # fmt: skip
                    async for _ in generation:
                        pass
                    if name == "auto":
                        device._estimates, device._acceptance = kept
                    texts.add(tuple(generation.result.tokens))
                    if turn:
                        found[name].append(generation.result.tokens_per_s)
                if len(texts) != 1:
                    err.print(f"turn {turn}: {len(texts)} texts, after a near-tie")
        return found

    with base_station(err) as url:
        return asyncio.run(run(url))


def ratios(found: dict[str, list[float]]) -> tuple[str, list[float]]:
    """The best fixed mode by its median, and ``auto`` over it in each turn."""
    best = max(
        (name for name in found if name != "auto"), key=lambda n: statistics.median(found[n])
    )
    return best, [a / b for a, b in zip(found["auto"], found[best], strict=True)]


def interval(values: list[float], seed: int = 0) -> tuple[float, float]:
    """The 95% interval of their median, by bootstrap."""
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[-51]
