"""Waiting for what comes, or for a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from bench.virtual.loop import run
from device_runtime.writers.writing import Writing


def test_a_time_that_is_nearly_there_is_waited_for_once():
    """A timer goes off up to a nanosecond early, and whoever waits would find nothing changed."""

    async def busy() -> None:  # so that the loop does not wait for its clock
        for _ in range(50):
            await asyncio.sleep(0)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        connected = asyncio.Event()
        connected.set()
        writing: Any = SimpleNamespace(
            job=None,
            incoming=loop.create_future,
            device=SimpleNamespace(client=SimpleNamespace(connected=connected, reconnects=0)),
            now=loop.time,
            tally=SimpleNamespace(wait_s=0.0),
        )
        await asyncio.sleep(5.141940297900283)
        until_s = 5.141940297900285
        assert loop.time() < until_s
        others = asyncio.create_task(busy())
        await Writing.event(writing, until_s)
        assert loop.time() >= until_s
        others.cancel()
        await Writing.event(writing, until_s)  # which has passed
        assert loop.time() < until_s + 1e-5

    run(main())
