"""One base station, many devices: total tokens/s, verdict delay, batch size, event-loop lag.

    python -m bench.batch

The embedded pair over loopback, greedy. The base station has a process of its own, with one thread
for the model. Real devices, up to 8, share another process, and so the weights of the int8 draft:
each drafts in earnest, with one thread, its own KV cache and connection, so on a small machine they
compete with the base station for its cores.
Replayed devices, up to 64, are in that process too: each sends the draft frames of a real
generation that was recorded before, over its own socket, as soon as the verdict before is there,
and every verdict must be the recorded one, which checks the texts. They draft in no time at all,
so their one is faster than a real one. Each device writes its text again and again, prompt and all,
and a window is measured that opens when every device has had a verdict.

transformers' assisted generation, with the same target, the same draft as a torch model and the
same draft length, writes for the same 8 prompts one after another, with all cores. Its texts must
be the devices' texts. All counts and kinds are interleaved, and medians over the repeats printed. A
verdict's delay is what the device waits for it. Lag is how late a callback of every 5 ms comes in
the base station's event loop.
``busy`` is the share of the time in which the base station's model thread was at work, ``forward``
that of the model's forward alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import astuple, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from websockets.asyncio.client import connect

import tinypair
from bench.serving.processes import GAMMA, TOKENS, assistant, running, station
from device_runtime.device import Device, Sampling
from device_runtime.generation import Generation
from device_runtime.transport.connecting import PATH
from draftlink.protocol import frames
from tinypair.loopback import draft_bundle

REAL = (1, 2, 4, 8)
REPLAYED = (1, 2, 4, 8, 16, 32, 64)
REPEATS = 3
WINDOW_S = 2.5


@dataclass(frozen=True)
class Run:
    """What one run measured; times in seconds."""

    tokens_per_s: float
    p50_s: float
    p99_s: float
    batch: float  # sessions in a step, on average
    busy: float  # share of the time in which the model was at work
    forward: float  # share of the time that was its forward's alone
    lag_s: float  # of the base station's event loop, p99


@dataclass(frozen=True)
class Recording:
    """A generation: the frames that the device sent, and the verdict on each draft."""

    hello: bytes
    start: bytes
    drafts: list[bytes]
    verdicts: list[tuple[object, ...]]
    text: list[int]


def essence(frame: frames.Verdict) -> tuple[object, ...]:
    """What a verdict says, but for its times."""
    return frame.epoch, frame.base, frame.accepted, frame.next, frame.ended


class Load:
    """Devices that write text after text, each by its own ``play``, and what comes in a window.

    The window opens when every device has its first verdict.
    """

    def __init__(self, count: int) -> None:
        self.stopped = False
        self._missing = count
        self._started = asyncio.Event()
        self._open = False
        self._tokens = 0
        self._delays: list[float] = []

    def verdict(self, frame: frames.Verdict, delay_s: float, *, first: bool) -> None:
        """A device has had to wait ``delay_s`` for a verdict; ``first``: its first one."""
        self._missing -= first
        if not self._missing:
            self._started.set()
        if self._open:
            self._tokens += frame.accepted + (frame.next is not None)
            self._delays.append(delay_s)

    async def run(self, pipe: Connection, plays: Sequence[Coroutine[Any, Any, None]]) -> Run:
        """Measure while all devices play."""

        async def window() -> Run:
            await self._started.wait()
            pipe.send("totals")
            before, _ = pipe.recv()
            self._open, begun = True, time.perf_counter()
            await asyncio.sleep(WINDOW_S)
            self._open, seconds = False, time.perf_counter() - begun
            pipe.send("totals")
            after, lags = pipe.recv()
            self.stopped = True
            p50, p99 = np.quantile(self._delays, [0.5, 0.99])
            return Run(
                tokens_per_s=self._tokens / seconds,
                p50_s=float(p50),
                p99_s=float(p99),
                batch=(after["rounds"] - before["rounds"]) / (after["steps"] - before["steps"]),
                busy=(after["busy_s"] - before["busy_s"]) / seconds,
                forward=(after["forward_s"] - before["forward_s"]) / seconds,
                lag_s=float(np.quantile(lags, 0.99)),
            )

        async with asyncio.TaskGroup() as group:  # one that fails ends all
            for play in plays:
                group.create_task(play)
            measuring = group.create_task(window())
        return measuring.result()


def watch(device: Device, note: Callable[[frames.Verdict, float], None]) -> list[bytes]:
    """Stand between a device and its socket: what it sends from now on, and ``note`` verdicts."""
    client = device.client
    send, receive = client.send, client.receive
    sent: list[bytes] = []
    begun = 0.0

    async def timed_send(frame: frames.Frame, payload_bits: int | None = None) -> None:
        nonlocal begun
        sent.append(frames.encode(frame))
        begun = time.perf_counter()
        await send(frame, payload_bits)

    async def timed_receive() -> frames.Frame:
        frame = await receive()
        if isinstance(frame, frames.Verdict):
            note(frame, time.perf_counter() - begun)
        return frame

    client.send = timed_send  # type: ignore[method-assign]
    client.receive = timed_receive  # type: ignore[method-assign]
    return sent


def writing(device: Device, prompt: str) -> Generation:
    """The generation that all kinds write."""
    greedy = Sampling(temperature=0.0)
    return device.generate(
        prompt, max_tokens=TOKENS, sampling=greedy, mode="stop-and-wait", gamma=GAMMA
    )


async def record(
    bundle: Path, url: str, prompts: Sequence[str], token: str | None = None
) -> list[Recording]:
    """A real generation for each prompt, each on a connection of its own."""
    found = []
    for prompt in prompts:
        async with Device(bundle, url, threads=1, token=token) as device:
            told: list[frames.Verdict] = []
            sent = watch(device, lambda frame, _, told=told: told.append(frame))  # type: ignore[misc]
            text = [token.id async for token in writing(device, prompt)]
            welcome = device.client.welcome
            hello = frames.encode(
                frames.Hello(
                    frames.VERSION, welcome.tokenizer_hash, welcome.vocab_size, ["topk"], "bench"
                )
            )
            verdicts = [essence(frame) for frame in told]
            found.append(Recording(hello, sent[0], sent[1 : 1 + len(told)], verdicts, text))
    return found


async def real(
    bundle: Path, url: str, pipe: Connection, prompts: Sequence[str], texts: Sequence[list[int]]
) -> Run:
    """A device for each prompt; each must write its text of ``texts``."""
    load = Load(len(prompts))

    async def play(device: Device, prompt: str, text: list[int]) -> None:
        first = True

        def note(frame: frames.Verdict, delay_s: float) -> None:
            nonlocal first
            load.verdict(frame, delay_s, first=first)
            first = False

        watch(device, note)
        while not load.stopped:
            written: list[int] = []
            async for token in writing(device, prompt):
                written.append(token.id)
                if load.stopped:
                    break
            same = written == text[: len(written)]
            assert same, "a device among others wrote another text than alone"

    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(Device(bundle, url, threads=1)) for _ in prompts]
        return await load.run(pipe, list(map(play, devices, prompts, texts)))


async def replay(url: str, pipe: Connection, recordings: Sequence[Recording]) -> Run:
    """A device for each recording, that sends its frames again and again."""
    load = Load(len(recordings))

    async def play(one: Recording) -> None:
        first = True
        while not load.stopped:
            async with connect(url + PATH, compression=None) as socket:
                await socket.send(one.hello)
                await socket.recv()
                await socket.send(one.start)
                for draft, expected in zip(one.drafts, one.verdicts, strict=True):
                    sent = time.perf_counter()
                    await socket.send(draft)
                    data = await socket.recv()
                    assert isinstance(data, bytes)
                    verdict = frames.decode(data)
                    assert isinstance(verdict, frames.Verdict), verdict
                    found = essence(verdict)
                    assert found == expected, f"{found}, where {expected} was recorded"
                    load.verdict(verdict, time.perf_counter() - sent, first=first)
                    first = False
                    if load.stopped:
                        break

    return await load.run(pipe, list(map(play, recordings)))


def main() -> None:
    """Print one line for each kind and number of devices."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="of the base station, and of its peer")
    device: str = parser.parse_args().device
    prompts = tinypair.prompts(max(REAL))
    bundle = draft_bundle(Console(stderr=True))
    runs: dict[tuple[str, int], list[Run]] = {}
    assisted: list[float] = []
    with running(station, device) as (url, pipe), running(assistant, device) as (_, peer):
        recordings = asyncio.run(record(bundle, url, prompts))
        texts = [one.text for one in recordings]
        for _ in range(REPEATS):
            peer.send(prompts)
            rate, found = peer.recv()
            assert found == texts, "assisted generation writes other texts"
            assisted.append(rate)
            for count in REAL:
                run = asyncio.run(real(bundle, url, pipe, prompts[:count], texts[:count]))
                runs.setdefault(("real", count), []).append(run)
            for count in REPLAYED:
                chosen = [recordings[i % len(recordings)] for i in range(count)]
                run = asyncio.run(replay(url, pipe, chosen))
                runs.setdefault(("replayed", count), []).append(run)
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} at the end; γ={GAMMA}, {TOKENS} tokens")
    peer_rate = statistics.median(assisted)
    print(f"assisted generation, {len(prompts)} prompts in turn: {peer_rate:.1f} tokens/s")
    print(
        "kind      devices  tokens/s  of one  of assisted  p50 ms  p99 ms  batch  busy  forward"
        "  lag ms"
    )
    first: dict[str, float] = {}
    for (kind, count), found in runs.items():
        columns = zip(*(astuple(run) for run in found), strict=True)
        rate, p50, p99, batch, busy, forward, lag = (
            statistics.median(column) for column in columns
        )
        first.setdefault(kind, rate)
        print(
            f"{kind:8}  {count:7}  {rate:8.1f}  {rate / first[kind]:6.2f}"
            f"  {rate / peer_rate:11.2f}  {p50 * 1e3:6.1f}  {p99 * 1e3:6.1f}  {batch:5.2f}"
            f"  {busy:4.2f}  {forward:7.2f}  {lag * 1e3:6.1f}"
        )


if __name__ == "__main__":
    main()
