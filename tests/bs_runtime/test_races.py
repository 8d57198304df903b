"""A connection stopped at every await, once each, while something else happens.

There a verdict closes the epoch, the device ends its text, the link falls, or this end closes the
connection. The text must be the one that is written undisturbed, and nobody may wait for ever: what
the session has counted and nobody judges, or what is judged in an epoch that it was not drafted in,
shows here.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bench.virtual.link import Wire
from bench.virtual.loop import run
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.operations.limits import Closing, Limits, Tenant
from bs_runtime.serving import account
from bs_runtime.serving.account import Account
from bs_runtime.serving.connection import Connection
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.tickets import Sealer
from device_runtime.device import Coupled, Device, Sampling, Split, TopK
from draftlink.link.shaping import LinkProfile, make_link
from tests.fake_models import HASH, FakeModel, letters, random_logits
from tests.fakes import FakeTarget

SIZE, TOKENS = 20, 10
DRAFT_S, STEP_S, STOP_S = 0.01, 0.045, 3.0
TABLE = random_logits(7, SIZE, 1.5)
DRAFT = TABLE + np.random.default_rng(8).normal(0.0, 0.7, TABLE.shape)
LINK = LinkProfile(5e6, 5e6, 0.060)
Event = Callable[["Scene"], None]


class Stops:
    """Counts what a connection's tasks wait for; at wait number ``at`` something happens first."""

    def __init__(self, at: int, happens: Callable[[], None]) -> None:
        self.at = at
        self.seen = 0
        self._happens = happens

    async def stop(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            self._happens()
            await asyncio.sleep(STOP_S)  # of virtual time: all others go on


class Stopped:
    """A coroutine that asks ``stops`` before it goes on from anything that it has waited for."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], stops: Stops) -> None:
        self._coroutine, self._stops = coroutine, stops

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                if error is None:
                    waits_for = self._coroutine.send(None)
                else:
                    waits_for = self._coroutine.throw(error)
            except StopIteration as end:
                return end.value
            error = None
            try:
                yield waits_for
                yield from self._stops.stop().__await__()
            except BaseException as caught:
                error = caught


@dataclass
class Scene:
    """A device and a base station in virtual time, whose tenant has used up its tokens."""

    tenant: Tenant
    wires: list[Wire]
    closing: asyncio.Event
    device: Any = None
    generation: Any = None

    async def receive(self, wire: Wire) -> bytes | None:
        """The base station's end; raises Closing, once, when that is to be."""
        reading = asyncio.ensure_future(wire.receive())
        closing = asyncio.ensure_future(self.closing.wait())
        await asyncio.wait([reading, closing], return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if reading.done():
            return reading.result()
        reading.cancel()
        self.closing.clear()
        raise Closing(1001, "idle")


def nothing(scene: Scene) -> None:
    """The other task goes on: verdicts are sent."""


def finishes(scene: Scene) -> None:
    scene.generation.cancel()


def falls(scene: Scene) -> None:
    scene.wires[-1].lose()


def closes(scene: Scene) -> None:
    scene.closing.set()


def paced(forward: Any, seconds: float, loop: Any) -> Any:
    def slow(*args: Any, **options: Any) -> Any:
        loop.spend(seconds)
        return forward(*args, **options)

    return slow


def played(monkeypatch: Any, at: int, event: Event, options: dict[str, Any]) -> tuple[Any, int]:
    """The ids of two turns, ``event`` coming at await ``at``, and how many awaits there were."""

    async def main() -> tuple[Any, int]:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(account.time, "monotonic", loop.time)
        target = FakeTarget(TABLE)
        target.forward = paced(target.forward, STEP_S, loop)  # type: ignore[method-assign]
        draft = FakeModel(DRAFT, rows=False)
        draft.forward = paced(draft.forward, DRAFT_S, loop)  # type: ignore[method-assign]
        scheduler = Scheduler(target)  # type: ignore[arg-type]
        memory = Conversations(target.open, scheduler.close, Sealer(bytes(32)))  # type: ignore[arg-type]
        scene = Scene(Tenant("x", Limits(tokens_per_s=40.0)), [], asyncio.Event())
        scene.tenant.tokens.take(160.0, 0.0)  # each frame waits from here on
        stops = Stops(at, lambda: scene.generation and event(scene))  # once it is greeted

        def task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            if getattr(coroutine, "__qualname__", "") in ("Connection._read", "Worker.work"):
                stopped = Stopped(coroutine, stops)

                async def whole() -> Any:
                    return await stopped

                coroutine = whole()
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(task)
        serving: list[asyncio.Task[None]] = []

        async def serve(wire: Wire) -> None:
            await Connection(
                target,  # type: ignore[arg-type]
                scheduler,
                memory,
                lambda: scene.receive(wire),
                wire.answer,
                Account(scene.tenant),
            ).serve()
            wire.hang_up()

        async def connect(_: str) -> Wire:
            scene.wires.append(wire := Wire(make_link(LINK, seed=1)))
            serving.append(asyncio.create_task(serve(wire)))
            return wire

        scene.device = Device.from_parts(
            draft, letters(SIZE), "virtual", tokenizer_hash=HASH,
            vocab_size=SIZE, context=1 << 20, eos_ids=(), connect=connect,
        )  # fmt: skip
        turns = []
        async with asyncio.timeout(600), scene.device as device:
            for turn in range(2):
                scene.generation = device.generate(
                    [1, 2, 3], append=turn > 0, max_tokens=TOKENS, **options
                )
                async for _ in scene.generation:
                    pass
                turns.append(scene.generation.tokens)
            (here,) = memory._known.values()
            assert here.history[: len(here.slot.cache)] == here.slot.cache
            assert here.history[: len(device.history)] == device.history[: len(here.history)]
            assert not scheduler._waiting
        await asyncio.gather(*serving)
        return turns, stops.seen

    return run(main())


SCHEMES = {
    "topk": {"scheme": TopK(8, 64), "mode": "run-ahead", "seed": 3},
    "split": {"scheme": Split(8, 64), "mode": "stop-and-wait", "gamma": 3, "seed": 3},
    "coupled": {"scheme": Coupled(), "mode": "run-ahead", "seed": 3},
    "stream": {"sampling": Sampling(temperature=0.0), "mode": "stream"},
    "auto": {"scheme": Coupled(), "mode": "auto", "seed": 3},
}


@pytest.mark.parametrize("event", [nothing, finishes, falls, closes])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[pytest.mark.full] if name == "coupled" else [])
        for name, options in SCHEMES.items()
    ],
)
def test_stopped_at_every_await(monkeypatch, options, event):
    whole, awaits = played(monkeypatch, 0, nothing, options)
    assert [len(ids) for ids in whole] == [TOKENS, TOKENS] and awaits >= 20
    for at in itertools.count(1):
        turns, seen = played(monkeypatch, at, event, options)
        if event is finishes:  # what stands is the beginning of the text
            assert turns[0] == whole[0][: len(turns[0])]
        else:
            assert turns == whole, f"stopped at await {at}"
        if at >= seen:
            break
