"""One base station, many devices: total tokens/s, verdict delay and batch size for 1 to 8 devices.

    python -m bench.batch

The embedded pair over loopback, greedy. The base station has a process of its own, with one thread
for the model; the devices share another, each with its own int8 draft and connection. All of them
draft in earnest, so on a small machine they compete with the base station for its cores: the share
of the time in which the model was at work says how far. The counts of devices are interleaved, and
medians over the repeats are printed. A verdict's delay is what the device waits for it.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from rich.console import Console

import bench
from device_runtime.device import Device, Sampling
from draftlink import frames
from draftlink.cli.demo import draft_bundle

DEVICES = (1, 2, 4, 8)
REPEATS = 3
GAMMA = 4
TOKENS = 64


@dataclass(frozen=True)
class Run:
    """What one run measured; delays in seconds."""

    tokens_per_s: float
    p50_s: float
    p99_s: float
    batch: float  # sessions in a step, on average
    busy: float  # share of the time in which the model was at work


def station(pipe: Connection) -> None:
    """A base station: sends its address, then its scheduler's totals whenever it is asked."""
    import torch
    import uvicorn

    import tinypair
    from bs_runtime.app import create_app
    from bs_runtime.target import Target

    torch.set_num_threads(1)
    app = create_app(Target.load(tinypair.TARGET))
    config = uvicorn.Config(
        app, port=0, ws="websockets-sansio", ws_per_message_deflate=False, log_level="error"
    )
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    pipe.send(f"ws://127.0.0.1:{port}")
    while pipe.recv():
        pipe.send(asdict(app.state.scheduler.totals))


@contextmanager
def running() -> Iterator[tuple[str, Connection]]:
    """A base station in a process of its own: its address, and the pipe to it."""
    pipe, end = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=station, args=(end,))
    process.start()
    try:
        yield pipe.recv(), pipe
    finally:
        pipe.send(None)
        process.join(10)
        process.kill()


def watch(device: Device, delays: list[float]) -> None:
    """Note how long each verdict is waited for."""
    client = device.client
    send, receive = client.send, client.receive
    sent = 0.0

    async def timed_send(frame: frames.Frame, payload_bits: int | None = None) -> None:
        nonlocal sent
        sent = time.perf_counter()
        await send(frame, payload_bits)

    async def timed_receive() -> frames.Frame:
        frame = await receive()
        if isinstance(frame, frames.Verdict):
            delays.append(time.perf_counter() - sent)
        return frame

    client.send = timed_send  # type: ignore[method-assign]
    client.receive = timed_receive  # type: ignore[method-assign]


async def write(device: Device, prompt: str, tokens: int) -> int:
    """The number of tokens written."""
    generation = device.generate(
        prompt, max_tokens=tokens, sampling=Sampling(temperature=0.0), gamma=GAMMA
    )
    return len([token async for token in generation])


async def measure(bundle: Path, url: str, pipe: Connection, prompts: Sequence[str]) -> Run:
    """Let one device for each prompt write at once."""
    delays: list[float] = []
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(Device(bundle, url)) for _ in prompts]
        # The first forwards of a process are slow.
        await asyncio.gather(*(write(d, p, 8) for d, p in zip(devices, prompts, strict=True)))
        for device in devices:
            watch(device, delays)
        pipe.send("totals")
        before = pipe.recv()
        begun = time.perf_counter()
        counts = await asyncio.gather(
            *(write(d, p, TOKENS) for d, p in zip(devices, prompts, strict=True))
        )
        seconds = time.perf_counter() - begun
        pipe.send("totals")
        after = pipe.recv()
    p50, p99 = np.quantile(delays, [0.5, 0.99])
    return Run(
        tokens_per_s=sum(counts) / seconds,
        p50_s=float(p50),
        p99_s=float(p99),
        batch=(after["rounds"] - before["rounds"]) / (after["steps"] - before["steps"]),
        busy=(after["busy_s"] - before["busy_s"]) / seconds,
    )


def main() -> None:
    """Print one line for each number of devices."""
    listed = json.loads((Path(bench.__file__).parent / "prompts.json").read_text())
    prompts = [entry["prompt"] for entry in listed]
    bundle = draft_bundle(Console(stderr=True))
    runs: dict[int, list[Run]] = {count: [] for count in DEVICES}
    with running() as (url, pipe):
        for _ in range(REPEATS):
            for count, found in runs.items():
                found.append(asyncio.run(measure(bundle, url, pipe, prompts[:count])))
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} at the end; γ={GAMMA}, {TOKENS} tokens")
    print("devices  tokens/s  of one  p50 ms  p99 ms  batch  model busy")
    one = statistics.median(run.tokens_per_s for run in runs[DEVICES[0]])
    for count, found in runs.items():
        rate, p50, p99, batch, busy = (
            statistics.median(getattr(run, name) for run in found)
            for name in ("tokens_per_s", "p50_s", "p99_s", "batch", "busy")
        )
        print(
            f"{count:7}  {rate:8.1f}  {rate / one:6.2f}  {p50 * 1e3:6.1f}  {p99 * 1e3:6.1f}"
            f"  {batch:5.2f}  {busy:10.2f}"
        )


if __name__ == "__main__":
    main()
