"""Over sockets on this machine, in real time: ``auto``, cold, and each fixed mode.

    python -m bench.both sockets [--link loopback|wifi|lte|far] [--scheme coupled|topk]
        [--target DIR --bundle DIR] [--busy 2] [--turns 15] [--tokens 100] [--json FILE]

The embedded pair, or a target in float32 and a bundle of its draft. Both ends share the machine,
and have a process each; a link is the project's proxy (``far``: 150 ms). In each turn every mode
goes on with the same prompt; nobody is always the first. The fixed modes keep what their device has
found out, ``auto`` begins anew each time. Behind ``TRIED`` turns those go on that may be the best:
the others are slower by more than turns differ. With ``--json`` a file's turns are joined by more
of them, so a long measurement can be made in parts. ``--busy``: other processes, as many as are
said, compute all the while. With ``topk``, where ``auto`` chooses one of three modes, each mode
writes a text of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

import tinypair
from bench.serving.links import over
from device_runtime.device import Coupled, Device, Result, Sampling
from device_runtime.drafting.estimators import Estimates
from draftlink.host import children
from draftlink.schemes import AnyScheme, topk
from tinypair.loopback import base_station, draft_bundle

TURNS, TOKENS = 15, 100
WAYS: dict[str, dict[str, Any]] = {
    "auto": {"mode": "auto"},
    "stream": {"mode": "stream"},
    "run-ahead": {"mode": "run-ahead"},
    **{f"stop-and-wait {gamma}": {"mode": "stop-and-wait", "gamma": gamma} for gamma in (3, 5, 8)},
}
SCHEMES: dict[str, AnyScheme] = {"coupled": Coupled(), "topk": topk.usual()}
LINKS = {"loopback": (), "wifi": ("wifi",), "lte": ("lte",), "far": ("wifi", "--rtt", "150ms")}
TRIED, NEAR = 2, 0.75  # turns, and of the best fixed mode's rate: who is below is left out
BUSY = "while True: pass"
Found = dict[str, list[float]]  # tokens/s of each way, turn by turn


async def one(
    device: Device, prompt: str, tokens: int, seed: int, name: str, scheme: str
) -> Result:
    """A text, written in one way."""
    kept = device._estimates, device._acceptance
    if name == "auto":
        device._estimates, device._acceptance = Estimates(), {}
        device.greeted(kept[0].rtt.typical, kept[0].told_step_s)
    generation = device.generate(
        prompt, max_tokens=tokens, scheme=SCHEMES[scheme], seed=seed, sampling=Sampling(1.0),
        eos_ids=(), **WAYS[name],
    )  # fmt: skip
    async for _ in generation:
        pass
    if name == "auto":
        device._estimates, device._acceptance = kept
    return generation.result


def rates(options: argparse.Namespace, before: int, err: Console) -> tuple[Found, list[str]]:
    """Tokens/s of each way behind a turn that warms up; and what ``auto`` did, as it says itself.

    ``before``: turns that were made before; the texts of these are others.
    """
    bundle = options.bundle or draft_bundle(err)

    async def run(url: str) -> tuple[Found, list[str]]:
        found: Found = {name: [] for name in WAYS}
        told, ways = [], list(WAYS)
        prompts, rng = tinypair.prompts(10), random.Random(before)
        async with Device(bundle, url) as device:
            for turn in range(before, before + options.turns + 1):
                texts = set()
                for name in rng.sample(ways, len(ways)):
                    result = await one(
                        device, prompts[turn % len(prompts)], options.tokens, turn, name,
                        options.scheme,
                    )  # fmt: skip
                    texts.add(tuple(result.tokens))
                    if turn > before:
                        found[name].append(result.tokens_per_s)
                        told += [result.summary] * (name == "auto")
                if len(texts) != 1 and options.scheme == "coupled":
                    err.print(f"turn {turn}: {len(texts)} texts, after a near-tie")
                if turn == before + TRIED:
                    ways = worth_it(found)
        return found, told

    with ExitStack() as stack:
        url = stack.enter_context(base_station(err, str(options.target)))
        address = stack.enter_context(over(LINKS[options.link], url, err))
        for _ in range(options.busy):
            stack.enter_context(children.child(["-c", BUSY], err.print))
        return children.run(run(address))


def worth_it(found: Found) -> list[str]:
    """``auto``, the stream, and the fixed modes that may be the best."""
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    best = max(rate for name, rate in medians.items() if name != "auto")
    kept = ("auto", "stream")
    return [name for name, rate in medians.items() if name in kept or rate >= NEAR * best]


def best_fixed(found: Found) -> str:
    """The best fixed mode by its median."""
    turns = len(found["auto"])
    whole = {n: each for n, each in found.items() if n != "auto" and len(each) == turns}
    return max(whole, key=lambda name: statistics.median(whole[name]))


def ratios(found: Found, name: str) -> list[float]:
    """``auto`` over a fixed mode in each turn."""
    return [a / b for a, b in zip(found["auto"], found[name], strict=True)]


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95% interval of their median, by bootstrap."""
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[-51]


def joined(parts: Sequence[Found]) -> Found:
    """Turns of several measurements as one; who was left out in one has fewer."""
    return {name: [rate for part in parts for rate in part.get(name, [])] for name in WAYS}


def told(found: Found) -> Iterator[str]:
    """What was measured, in lines."""
    for name, each in found.items():
        if each:
            yield f"{name}: {statistics.median(each):.1f} tokens/s ({len(each)} turns)"
    for name in dict.fromkeys((best_fixed(found), "stream")):
        each = ratios(found, name)
        low, high = interval(each)
        yield (
            f"auto / {name}, median of {len(each)} turns: {statistics.median(each):.3f}"
            f" [{low:.2f}, {high:.2f}]"
        )


def main(arguments: Sequence[str]) -> None:
    """Measure, join what was measured before, and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.both sockets", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--link", choices=LINKS, default="loopback")
    parser.add_argument("--scheme", choices=SCHEMES, default="coupled")
    parser.add_argument("--target", default="tinypair", help="transformers folder, or tinypair")
    parser.add_argument("--bundle", type=Path, help="its draft; tinypair's own if none")
    parser.add_argument("--busy", type=int, default=0, help="processes beside both ends")
    parser.add_argument("--turns", type=int, default=TURNS, help="0 to print what a file has")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--json", type=Path, help="joined by what is measured now")
    options = parser.parse_args(arguments)
    if options.bundle is None and options.target != "tinypair":
        parser.error("name the target's draft with --bundle")
    parts: list[Found] = []
    if options.json and options.json.exists():
        parts = json.loads(options.json.read_text())
    if options.turns:
        before = sum(len(part["auto"]) for part in parts)
        found, did = rates(options, before, Console(stderr=True))
        parts.append(found)
        print(f"auto: {did[-1]}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(parts) + "\n")
    print("\n".join(told(joined(parts))))
