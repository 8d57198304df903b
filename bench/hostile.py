"""A well-behaved device's verdict delay, alone and beside each kind of hostile client.

    python -m bench.hostile

The base station with the embedded target has a process of its own; the device drafts greedily in
this one, and the attacker is a third process that begins again whenever it is refused or cut off.
An attacker brings a machine of its own; here it gets the time that nobody else wants (nice 19). Its
token has the default limits, but for prompts of 200 tokens: ``bombs`` exceed them, ``prompts`` do
not. The device is measured alone before each attack, and its p99 beside it is held against that.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import Frame, Opcode

import bench
import tinypair
from bench.batch import watch
from device_runtime.device import Device, Sampling
from draftlink import frames, schemes
from draftlink.cli.demo import base_station, draft_bundle
from draftlink.schemes.topk import TopK
from draftlink.tokenizer import tokenizer_hash

ATTACKS = ("strangers", "wrong", "tiny", "pings", "oversize", "bombs", "prompts", "deaf")
TOKENS = {"phone": "the-token-of-the-device", "thief": "the-token-of-the-attacker"}
PROMPT = 200  # tokens that the attacker's prompts may have
MEASURED_S = 10.0


async def _hello(socket: ClientConnection) -> frames.Welcome:
    digest = tokenizer_hash((tinypair.TARGET / "tokenizer.json").read_text())
    names = list(schemes.BY_NAME)
    await socket.send(frames.encode(frames.Hello(frames.VERSION, digest, 8192, names, "hostile")))
    welcome = frames.decode(await socket.recv(decode=False))
    assert isinstance(welcome, frames.Welcome), welcome
    return welcome


def _start(length: int, mode: Literal["draft", "stream"] = "draft") -> bytes:
    start = frames.Start(
        1,
        0,
        [5] * length,
        Sampling(temperature=0.0),
        TopK(),
        mode,
        400,
        [],
        None,
    )
    return frames.encode(start)


async def _once(kind: str, url: str) -> None:
    """One connection's worth of an attack."""
    if kind == "strangers":
        _, writer = await asyncio.open_connection(*url.removeprefix("ws://").split(":"))
        writer.write(b"GET / HTTP/1.1\r\nA: ")
        await asyncio.sleep(0.01)
        return
    token = "nobody-s-token-at-all" if kind == "wrong" else TOKENS["thief"]
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(
        url + "/v1/draft", additional_headers=headers, compression=None, max_size=None
    ) as socket:
        welcome = await _hello(socket)
        if kind in ("tiny", "pings"):
            opcode = Opcode.PING if kind == "pings" else Opcode.BINARY
            data = b"" if kind == "pings" else frames.encode(frames.Finish(0, 0))
            flood = Frame(opcode, data).serialize(mask=True) * 500
            for _ in range(2000):  # a million frames
                socket.transport.write(flood)
                await asyncio.sleep(0.001)
                if socket.transport.is_closing():
                    return
        elif kind == "oversize":
            await socket.send(bytes(frames.MAX_MESSAGE_BYTES + 1))
        elif kind in ("bombs", "prompts"):  # above what it may ask for, and within
            await socket.send(_start(welcome.context - 2 if kind == "bombs" else PROMPT))
            await socket.send(frames.encode(frames.Finish(1, 0)))
            await socket.recv()
        elif kind == "deaf":
            socket.transport.pause_reading()
            socket.transport.write(Frame(Opcode.BINARY, _start(3, "stream")).serialize(mask=True))
            await asyncio.sleep(1.0)


def attack(kind: str, url: str) -> None:
    """Attack until this process is ended."""

    os.nice(19)

    async def run() -> None:
        for _ in count():
            try:
                await _once(kind, url)
            except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
                await asyncio.sleep(0.01)

    asyncio.run(run())


async def measure(device: Device, seconds: float) -> np.ndarray:
    """Verdict delays in milliseconds."""
    delays: list[float] = []
    watch(device, lambda _, seconds: delays.append(seconds))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for prompt in bench.prompts(10):
            generation = device.generate(
                prompt,
                sampling=Sampling(temperature=0.0),
                mode="stop-and-wait",
                gamma=4,
                max_tokens=64,
            )
            async for _ in generation:
                pass
    return 1000 * np.array(delays)


async def run(console: Console, url: str, bundle: Path) -> None:
    """All attacks, each beside a run alone."""
    code = "import sys; from bench.hostile import attack; attack(*sys.argv[1:])"
    for kind in ATTACKS:
        row = []
        for beside in (False, True):
            async with AsyncExitStack() as stack:
                if beside:
                    command = (sys.executable, "-c", code, kind, url)
                    process = await asyncio.create_subprocess_exec(*command)
                    stack.push_async_callback(process.wait)
                    stack.callback(process.kill)
                    await asyncio.sleep(4.0)  # its imports are no attack
                async with Device(bundle, url, token=TOKENS["phone"]) as device:
                    delays = await measure(device, MEASURED_S)
                row.append((np.median(delays), np.quantile(delays, 0.99), len(delays)))
        (p50, p99, _), (p50_beside, p99_beside, number) = row
        console.print(
            f"{kind}: p50 {p50:.1f} -> {p50_beside:.1f} ms, p99 {p99:.1f} -> {p99_beside:.1f} ms"
            f" ({p99_beside / p99:.2f}x), {number} verdicts"
        )


def main() -> None:
    """The command."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    console = Console()
    bundle = draft_bundle(console)
    with tempfile.NamedTemporaryFile("w") as file:
        limits = {"phone": "tokens_per_s=1e6", "thief": f"prompt_tokens={PROMPT}"}
        for name, token in TOKENS.items():
            print(token, name, limits[name], file=file, flush=True)
        with base_station(console, "tinypair", "--tokens", file.name) as url:
            asyncio.run(run(console, url, bundle))


if __name__ == "__main__":
    main()
