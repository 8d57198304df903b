"""The same cells over real sockets and in virtual time: do they agree?

    python -m bench.sockets

Six cells, paced. For sockets a base station and ``draftlink link`` have processes of their own, and
the device talks through the proxy in real time; virtual time is that of ``bench.link``. Links lose
nothing here, or luck would decide: losses are drawn per packet, and packets differ. The runs of a
cell are interleaved with those of the others.

Pacing holds forwards; what comes on top on this machine (drawing, judging, the proxy) virtual time
knows nothing of. So there are two figures: virtual time at the stated costs, and at those that the
device's own estimators found over the sockets (draft, verification, round trip; their means).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

import tinypair
from bench.link import DRAFT_S, RULES, Bench
from device_runtime.device import Device
from draftlink.host import children
from draftlink.link import shaping
from draftlink.link.pacing import pace
from tinypair.loopback import base_station, draft_bundle

PROMPTS, TOKENS = 2, 96


@dataclass(frozen=True)
class Case:
    """A cell and how it is written."""

    link: str
    target_s: float
    rule: str
    options: dict[str, Any]


CASES = (
    Case("wifi", 0.045, "coupled", {"mode": "stop-and-wait", "gamma": 4}),
    Case("wifi", 0.045, "greedy", {"mode": "run-ahead"}),
    Case("lte", 0.045, "coupled", {"mode": "run-ahead"}),
    Case("lte", 0.090, "greedy", {"mode": "auto"}),
    Case("satellite", 0.045, "coupled", {"mode": "auto"}),
    Case("satellite", 0.090, "greedy", {"mode": "run-ahead"}),
)


@contextmanager
def proxy(link: str, url: str) -> Iterator[str]:
    """``draftlink link`` in front of a base station; its address."""
    arguments = ["-m", "draftlink.cli", "link", link, "--loss", "0"]
    arguments += ["--to", url.removeprefix("ws://")]
    say = Console(stderr=True).print
    with children.child(arguments, say, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield "ws://" + process.stdout.readline().split()[2]


@dataclass(frozen=True)
class Real:
    """What a run over sockets measured."""

    tokens_per_s: float
    draft_s: float
    target_s: float
    rtt_s: float


async def real(case: Case, url: str, prompt: str) -> Real:
    """A run over sockets, of a device that starts cold."""
    device = Device(draft_bundle(Console(stderr=True)), url)
    device.model.forward([0])  # the first forward of a process is slow
    device.model.rollback(0)
    device.model.forward = pace(  # type: ignore[method-assign]
        device.model.forward, DRAFT_S, time.perf_counter, time.sleep
    )
    async with device:
        generation = device.generate(
            prompt, max_tokens=TOKENS, eos_ids=(), **case.options, **RULES[case.rule]
        )
        async for _ in generation:
            pass
        found = generation.estimates
        return Real(
            generation.result.tokens_per_s,
            found.draft.mean or DRAFT_S,
            found.verify.mean or found.target.mean,
            found.rtt.mean,
        )


def main() -> None:
    """Print one line a cell."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    err = Console(stderr=True)
    prompts = tinypair.prompts(PROMPTS)
    sockets: dict[int, list[Real]] = {number: [] for number in range(len(CASES))}
    with ExitStack() as stack:
        urls: dict[tuple[str, float], str] = {}
        for pace in sorted({case.target_s for case in CASES}):
            station = stack.enter_context(base_station(err, "tinypair", "--pace-target", str(pace)))
            children.run(real(CASES[1], station, prompts[0]))  # warms it up
            for link in sorted({case.link for case in CASES if case.target_s == pace}):
                urls[link, pace] = stack.enter_context(proxy(link, station))
        time.sleep(0.5)
        for prompt in prompts:
            for number, case in enumerate(CASES):
                sockets[number].append(
                    children.run(real(case, urls[case.link, case.target_s], prompt))
                )
    here = Bench()
    for number, case in enumerate(CASES):
        runs = sockets[number]
        found = shaping.adjusted(
            shaping.profile(case.link), loss=0.0, rtt_s=statistics.median(r.rtt_s for r in runs)
        )
        options = {**case.options, **RULES[case.rule]}
        stated, measured = [], []
        for prompt in prompts:
            lossless = shaping.adjusted(shaping.profile(case.link), loss=0.0)
            stated.append(here.write(lossless, case.target_s, prompt, TOKENS, 0, **options))
            costs: dict[str, Any] = {"draft_s": statistics.median(r.draft_s for r in runs)}
            target_s = statistics.median(r.target_s for r in runs)
            measured.append(here.write(found, target_s, prompt, TOKENS, 0, **costs, **options))
        over, at_stated, at_measured = (
            statistics.harmonic_mean([r.tokens_per_s for r in results])
            for results in (runs, stated, measured)
        )
        print(
            f"{case.link:10} {1e3 * case.target_s:3.0f} ms {case.rule:8}"
            f" {case.options['mode']:14} sockets {over:6.2f} tokens/s; virtual, stated costs"
            f" {at_stated:6.2f} ({over / at_stated:.3f}); measured costs {at_measured:6.2f}"
            f" ({over / at_measured:.3f})"
        )


if __name__ == "__main__":
    main()
