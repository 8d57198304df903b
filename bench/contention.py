"""Beside other processes: tokens/s of ours, of fixed settings, and of transformers' ``generate``.

    python -m bench.contention [--busy 0 1 2 4] [--repeats 5] [--seconds 1.5] [--json FILE]

A base station and a device have a process each, on loopback, with the embedded pair; beside them 0,
1, 2 or 4 processes keep a core busy each. ``ours`` is what users get. The fixed settings are one
thread or all, which wait for one another actively or passively, at both ends. ``before`` is what
users got: all threads, libgomp's own waiting, and the device's count as measured at load.

All are started once, and stopped (SIGSTOP) while it is not their turn; the turns of a repeat go
through all counts of busy processes, and in each through all systems. A turn is a moment to get
used to what is beside it, unmeasured, then some seconds of each mode. ``generate`` has PyTorch's
defaults. Medians over the repeats; ratios are those of medians. About 21 minutes with the defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import tinypair
from device_runtime.device import Device, Sampling
from device_runtime.model import providers
from device_runtime.model.threads import Setting, available
from draftlink.host import children
from tinypair.loopback import base_station, draft_bundle

MODES = ("stream", "stop-and-wait", "auto")
BUSY = (0, 1, 2, 4)
REPEATS = 5
SETTLE_S, MEASURE_S = 3.0, 1.5
REST_S = 0.2
TOKENS = 128  # of a text
GENERATE = "transformers generate"
SPIN = "while True: pass"


@dataclass(frozen=True)
class System:
    """How both ends run: the base station's environment and options; the device's threads."""

    name: str
    environ: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    threads: int | None = None
    spins: bool = True  # the device's threads


def systems() -> list[System]:
    """Ours, what it was before, and the fixed settings."""
    every = available()
    fixed = [
        System(
            f"{name}, {waiting}",
            {"OMP_WAIT_POLICY": waiting},
            ("--threads", str(threads)),
            threads,
            waiting == "active",
        )
        for name, threads in (("one", 1), ("all", every))
        for waiting in ("active", "passive")
    ]
    before = System("before", {}, ("--threads", str(every)))
    return [System("ours"), before, *fixed]


async def write(device: Device, mode: str, seconds: float, number: int) -> tuple[float, int]:
    """Tokens/s of texts written one after the other for some time; the next text's number."""
    prompts = tinypair.prompts(10)
    tokens, begun = 0, time.perf_counter()
    until = begun + seconds
    while (now := time.perf_counter()) < until:
        generation = device.generate(
            prompts[number % len(prompts)],
            sampling=Sampling(temperature=0.8),
            max_tokens=TOKENS,
            mode=mode,  # type: ignore[arg-type]
            seed=number,
            eos_ids=(),
        )
        async for _ in generation:
            tokens += 1
            now = time.perf_counter()
            if now >= until:
                generation.cancel()
        number += 1
    return tokens / (now - begun), number


def pair(pipe: Connection, system: System, bundle: Path) -> None:
    """A device, and its base station as a child: tokens/s of a mode in some seconds, when asked."""
    os.setsid()  # both are stopped as one
    os.environ.update(system.environ)
    if not system.spins:
        made = providers.session

        def passive(path: Path, provider: str, setting: Setting, kind: str) -> Any:
            return made(path, provider, setting._replace(spins=False), kind)

        providers.session = passive

    async def run(url: str) -> None:
        number = 0
        async with Device(bundle, url, threads=system.threads) as device:
            pipe.send("ready")
            while asked := await asyncio.to_thread(pipe.recv):
                mode, seconds = asked
                rate, number = await write(device, mode, seconds, number)
                await asyncio.sleep(REST_S)  # or the base station would be stopped amid a step
                pipe.send(rate)

    with base_station(Console(stderr=True), "tinypair", *system.options) as url:
        children.run(run(url))


def generate(pipe: Connection) -> None:
    """transformers' ``generate``: tokens/s in some seconds, when asked."""
    os.setsid()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        tinypair.TARGET, dtype=torch.float32, trust_remote_code=False
    )
    model.generation_config.eos_token_id = None
    tokenizer: Any = AutoTokenizer.from_pretrained(tinypair.TARGET, trust_remote_code=False)
    ids = tokenizer(tinypair.prompts(1)[0], return_tensors="pt")

    def write(seconds: float) -> float:
        tokens, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            written = model.generate(
                **ids, do_sample=True, temperature=0.8, top_k=0, max_new_tokens=16, pad_token_id=0
            )
            tokens += int(written.shape[1] - ids["input_ids"].shape[1])
        return tokens / (time.perf_counter() - begun)

    pipe.send("ready")
    while asked := pipe.recv():
        pipe.send(write(asked[1]))


Ask = Callable[[str, float], float]


@contextmanager
def stopped(work: Callable[..., None], *arguments: Any) -> Iterator[Ask]:
    """``work`` and its children, which run only while they are asked something."""
    pipe, end = multiprocessing.Pipe()
    made = multiprocessing.get_context("spawn").Process(target=work, args=(end, *arguments))
    made.start()
    pid = made.pid or 0

    def answer() -> Any:
        while not pipe.poll(1):
            if not made.is_alive():
                raise RuntimeError(f"a process of the benchmark has ended: {arguments}")
        return pipe.recv()

    def ask(mode: str, seconds: float) -> float:
        os.killpg(pid, signal.SIGCONT)
        try:
            pipe.send((mode, seconds))
            return float(answer())
        finally:
            os.killpg(pid, signal.SIGSTOP)

    try:
        answer()
        os.killpg(pid, signal.SIGSTOP)
        yield ask
    finally:
        if made.is_alive():
            os.killpg(pid, signal.SIGCONT)
            pipe.send(None)
            made.join(20)
            made.kill()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that keep a core busy each."""
    spinning = [subprocess.Popen(children.python("-c", SPIN)) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


Rates = dict[tuple[str, int, str], list[float]]  # by system, busy processes and mode


def measure(options: argparse.Namespace, console: Console) -> Rates:
    """Tokens/s of each cell, a figure a repeat."""
    rates: Rates = {}
    bundle = draft_bundle(console)
    with ExitStack() as stack:
        asks: list[tuple[str, tuple[str, ...], Ask]] = []
        for system in systems():
            if options.systems and system.name not in options.systems:
                continue
            with console.status(f"starting {system.name}"):
                ask = stack.enter_context(stopped(pair, system, bundle))
            asks.append((system.name, MODES, ask))
        with console.status(f"starting {GENERATE}"):
            asks.append((GENERATE, ("stream",), stack.enter_context(stopped(generate))))
        for repeat in range(options.repeats):
            for count in options.busy:
                with busy(count):
                    # Nobody is always the first after the others have heated the machine up.
                    first = repeat % len(asks)
                    for name, modes, ask in asks[first:] + asks[:first]:
                        with console.status(f"{name}, {count} busy, repeat {repeat + 1}"):
                            ask("stream", options.settle)
                            for mode in modes:
                                rate = ask(mode, options.seconds)
                                rates.setdefault((name, count, mode), []).append(rate)
    return rates


def ratios(rates: Mapping[tuple[str, int, str], float]) -> list[dict[str, Any]]:
    """Ours against the best fixed setting of each cell, and against what it was before."""
    found = []
    for (name, count, mode), rate in rates.items():
        if name != "ours":
            continue
        fixed = {
            other: value
            for (other, *cell), value in rates.items()
            if cell == [count, mode] and other not in ("ours", "before", GENERATE)
        }
        best = max(fixed, key=fixed.__getitem__, default=None)
        before = rates.get(("before", count, mode))
        found.append(
            {"busy": count, "mode": mode, "best": best,
             "of_best": None if best is None else rate / fixed[best],
             "of_before": None if before is None else rate / before}
        )  # fmt: skip
    return found


def main() -> None:
    """Print tokens/s of each cell, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--busy", type=int, nargs="+", default=BUSY)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds before a turn")
    parser.add_argument("--seconds", type=float, default=MEASURE_S, help="of each mode in a turn")
    parser.add_argument("--systems", nargs="+", help="instead of all: ours, before, 'one, active'")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    begun = time.perf_counter()
    with children.terminable():  # through what ends the processes
        rates = measure(options, console)
    medians = {cell: statistics.median(found) for cell, found in rates.items()}
    names = list(dict.fromkeys(name for name, *_ in medians))
    table = Table("mode", "busy", *names, title=f"tokens/s, medians of {options.repeats}")
    for mode in MODES:
        for count in options.busy:
            cells = [medians.get((name, count, mode)) for name in names]
            table.add_row(mode, str(count), *("" if c is None else f"{c:.0f}" for c in cells))
    console.print(table)
    compared = ratios(medians)
    for row in compared:
        told = [f"{row['of_best']:.2f} of {row['best']}"] if row["best"] else []
        told += [f"{row['of_before']:.2f} of before"] if row["of_before"] else []
        if told:
            console.print(f"{row['mode']}, {row['busy']} busy: {', '.join(told)}", highlight=False)
    console.print(f"{time.perf_counter() - begun:.0f} s")
    if options.json:
        listed = [
            {"system": name, "busy": count, "mode": mode, "tokens_per_s": found}
            for (name, count, mode), found in rates.items()
        ]
        summary = {"cores": available(), "cells": listed, "ratios": compared}
        options.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
