"""More devices than KV slots, while links break and the base station is killed.

Slots are emptied for others at any time, and devices come back with their histories: every text is
the one that its device writes alone. That a round is fed twice, or that a slot keeps a token of a
draft that was rejected, would show as a text that differs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import tinypair
from bs_runtime.model.kv import BLOCK
from device_runtime.device import Coupled, Device, Sampling
from export.bundle import export_bundle
from tests.fragile import Breaks, at_random, connector
from tests.killable import Station

GROWTH = 16 << 20  # of the base station's memory, at most, in the second half of the waves


def conversation_bytes(tokens: int) -> int:
    """Of the KV cache of a conversation of the longest kind, in float32."""
    tokenizer = Tokenizer.from_file(str(tinypair.TARGET / "tokenizer.json"))
    prompt = max(len(tokenizer.encode(text).ids) for text in tinypair.prompts(50))
    config = json.loads((tinypair.TARGET / "config.json").read_text(encoding="utf-8"))
    numbers = config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    return 4 * 2 * numbers * BLOCK * -(-(prompt + tokens) // BLOCK)


def options(number: int) -> dict:
    """Of a device, and its prompt; modes in which the text does not depend on what was drafted."""
    prompts = tinypair.prompts(50)
    scheme = [
        {"scheme": Coupled(), "seed": number},
        {"sampling": Sampling(temperature=0.0), "seed": number},
    ]
    mode = ["stop-and-wait", "run-ahead", "auto"]
    return {
        "prompt": prompts[number % len(prompts)],
        "gamma": 1 + number % 5,
        "mode": mode[number % 3],
        **scheme[number % 2],
    }


@dataclass
class Wave:
    """Devices that write at once."""

    station: Station
    bundle: Path
    tokens: int
    breaks: Breaks = lambda *_: False
    kill_at: list[int] = field(default_factory=list)  # counted over all devices
    reconnects: int = 0
    evicted: float = 0.0
    written: int = 0

    def texts(self, numbers: Sequence[int]) -> list[list[int]]:
        return asyncio.run(self._run(numbers))

    async def _run(self, numbers: Sequence[int]) -> list[list[int]]:
        self._restarting = asyncio.Lock()
        greeted = False  # who finds no base station at first is not to wait for one
        async with AsyncExitStack() as stack:
            devices = [
                Device(self.bundle, f"ws://127.0.0.1:{self.station.port}", threads=1)
                for _ in numbers
            ]
            for device in devices:
                device._connect = connector(lambda *what: greeted and self.breaks(*what))
                await stack.enter_async_context(device)
            greeted = True
            found = await asyncio.gather(*map(self._write, devices, numbers))
            self.reconnects = sum(device.client.reconnects for device in devices)
            await asyncio.to_thread(self._look)
        return found

    async def _write(self, device: Device, number: int) -> list[int]:
        found = []
        async for token in device.generate(**options(number), max_tokens=self.tokens):
            found.append(token.id)
            self.written += 1
            async with self._restarting:
                if self.kill_at and self.written >= self.kill_at[0]:
                    del self.kill_at[0]
                    await asyncio.to_thread(self._kill)
        return found

    def _look(self) -> None:
        self.evicted += self.station.metric("num_preemptions_total")

    def _kill(self) -> None:
        self._look()
        self.station.kill()
        self.station.start()


@pytest.mark.parametrize(
    "devices, slots, tokens, kills, cuts, more_waves",
    [(8, 2, 24, 0, 8, 0), pytest.param(64, 16, 128, 5, 200, 8, marks=pytest.mark.full)],
    ids=["8 devices", "64 devices"],
)
def test_texts_survive_overload(tmp_path, devices, slots, tokens, kills, cuts, more_waves):
    bundle = export_bundle(tinypair.DRAFT, tmp_path / "draft", "int8").path
    everyone, total = range(devices), devices * tokens
    chaos = at_random(3, cuts / total, 4 * cuts / total)
    station = Station(tmp_path, "--kv-bytes", str(slots * conversation_bytes(tokens)))
    station.start()
    try:
        alone = [Wave(station, bundle, tokens).texts([number])[0] for number in everyone]
        before = station.metric("num_preemptions_total")
        kill_at = [total * (2 * i + 1) // (2 * kills) for i in range(kills)]
        wild = Wave(station, bundle, tokens, chaos, kill_at, evicted=-before)
        assert wild.texts(everyone) == alone
        print(
            f"{total} tokens, {wild.reconnects} reconnects, {kills} kills,"
            f" {wild.evicted:.0f} slots emptied"
        )
        assert wild.reconnects >= kills + cuts // 2
        assert wild.evicted >= devices - slots
        sizes = []
        for _ in range(more_waves):
            assert Wave(station, bundle, tokens, chaos).texts(everyone) == alone
            sizes.append(station.resident_bytes)
        print(f"then {[size >> 20 for size in sizes]} MiB after each wave")
        half = len(sizes) // 2
        assert max(sizes[half:], default=0) - max(sizes[:half], default=0) < GROWTH
    finally:
        station.kill()
