"""Work that takes long: the device hears of it, is not idle meanwhile, may come back at once."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from bench.virtual.loop import run
from bs_runtime.engine import turns
from bs_runtime.engine.generation import Generation
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.operations.limits import Closing, Limits, Tenant
from bs_runtime.serving import account, station
from bs_runtime.serving.account import Account
from bs_runtime.serving.connection import Connection
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.station import DeviceSocket
from bs_runtime.serving.tickets import Sealer
from draftlink.coding.ids import IdModel
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted, SparseRow
from draftlink.protocol import frames
from draftlink.protocol.control import digest
from draftlink.schemes.topk import TopK
from tests.fake_models import HASH, random_logits
from tests.fakes import FakeTarget

SIZE, PROMPT, STEP_S = 20, 64 * 8, 15.0
HELLO = frames.Hello(frames.VERSION, HASH, SIZE, ["topk"], "test")
START = frames.Start(1, 0, [5] * PROMPT, Sampling(), TopK(4, 16), "stream", 3, [], 7)


class World:
    """A base station whose steps take long, and devices that say what the test says."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        self.target = FakeTarget(random_logits(1, SIZE))
        forward, self.fed = self.target.forward, 0

        def slow(feeds: Any) -> Any:
            loop.spend(STEP_S)
            self.fed += sum(len(feed.ids) for feed in feeds)
            return forward(feeds)

        self.target.forward = slow  # type: ignore[method-assign]
        self.scheduler = Scheduler(self.target)  # type: ignore[arg-type]
        self.memory = Conversations(
            self.target.open,  # type: ignore[arg-type]
            self.scheduler.close,
            Sealer(bytes(32)),
        )


class Device:
    """Says frames, and notes what comes and when."""

    def __init__(self, world: World) -> None:
        self.heard: list[tuple[float, frames.Frame]] = []
        self._up: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._down: asyncio.Queue[bytes] = asyncio.Queue()
        self.serving = asyncio.create_task(
            Connection(
                world.target,  # type: ignore[arg-type]
                world.scheduler,
                world.memory,
                self._up.get,
                self._down.put,
            ).serve()
        )

    def say(self, frame: frames.Frame | None) -> None:
        self._up.put_nowait(None if frame is None else frames.encode(frame))

    async def until(self, kind: type[frames.Frame]) -> frames.Frame:
        while True:
            frame = frames.decode(await self._down.get())
            self.heard.append((asyncio.get_running_loop().time(), frame))
            if isinstance(frame, kind):
                return frame


def test_a_device_hears_how_far_a_long_prompt_is():
    async def main() -> None:
        device = Device(World())
        device.say(HELLO)
        await device.until(frames.Welcome)
        device.say(START)
        await device.until(frames.Tokens)
        times = [at for at, _ in device.heard]
        assert times[-1] >= 8 * STEP_S  # of silence, else
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert max(gaps) <= frames.PROGRESS_S + 1e-6
        told = [frame for _, frame in device.heard if isinstance(frame, frames.Progress)]
        assert all(one.total == PROMPT and one.generation == 1 for one in told[:-1])
        fed = [one.fed for one in told[:-1]]
        assert fed == sorted(fed) and fed[0] < PROMPT / 4 and fed[-1] > PROMPT / 2
        device.say(None)
        await device.serving

    run(main())


def test_a_prompt_is_left_between_steps_when_its_device_has_gone_and_gone_on_with():
    """Else the next connection's Welcome would wait for all of it."""

    async def main() -> None:
        world, loop = World(), asyncio.get_running_loop()
        first = Device(world)
        first.say(HELLO)
        welcome = await first.until(frames.Welcome)
        first.say(START)
        await first.until(frames.Progress)
        second, asked_s = Device(world), loop.time()
        second.say(msgspec.structs.replace(HELLO, ticket=welcome.ticket))  # type: ignore[union-attr]
        await second.until(frames.Welcome)
        assert loop.time() - asked_s <= STEP_S
        await first.serving
        start = msgspec.structs.replace(START, base=PROMPT, ids=[])
        second.say(frames.Resume(start, 1, PROMPT, digest(START.ids), False, 0))
        await second.until(frames.Tokens)
        assert world.fed <= PROMPT + 64  # what was fed before is not fed again
        second.say(None)
        await second.serving

    run(main())


def test_a_device_hears_of_drafts_that_take_long_to_be_read(monkeypatch):
    """As where many send rows as wide as they may be, and all have but a share of the loop."""
    turn_s, count = 7.0, 9

    async def main() -> None:
        world, loop = World(), asyncio.get_running_loop()
        device, drafted = Device(world), Drafted.of(SparseRow(np.array([3]), np.array([16]), 16), 0)

        def slow(self: Generation, drafts: Any) -> Any:
            for _ in range(count):
                loop._jump.now += turn_s  # of the loop itself, which stands still meanwhile
                yield
            return [drafted]

        monkeypatch.setattr(Generation, "decoding", slow)
        monkeypatch.setattr(turns, "time", SimpleNamespace(thread_time=loop.time))
        device.say(HELLO)
        await device.until(frames.Welcome)
        device.say(msgspec.structs.replace(START, ids=[5, 6], mode="draft"))
        payload, _ = TopK(4, 16).encode([drafted], IdModel(SIZE))
        device.say(frames.Draft(1, 2, 1, payload, waits=True))
        device.heard.clear()
        begun_s = loop.time()
        await device.until(frames.Verdict)
        times = [begun_s, *(at for at, _ in device.heard)]
        assert times[-1] - begun_s >= turn_s * count
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert max(gaps) <= frames.PROGRESS_S + max(turn_s, STEP_S)
        told = [frame for _, frame in device.heard[:-1]]
        assert frames.Progress(1, 0, 1, 0) in told  # the first may still be of the prompt
        device.say(None)
        await device.serving

    run(main())


class Silent:
    """A WebSocket on which nothing comes."""

    async def receive(self) -> Any:
        await asyncio.Event().wait()


@pytest.mark.parametrize("owes", [True, False])
def test_nobody_is_idle_while_the_base_station_owes_something(monkeypatch, owes):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for module in (account, station):
            monkeypatch.setattr(module.time, "monotonic", loop.time)
        mine = Account(Tenant("x", Limits(idle_s=20.0)))
        mine.greeted, mine.owes = True, owes
        receiving = asyncio.ensure_future(DeviceSocket(Silent(), mine).receive())  # type: ignore[arg-type]
        await asyncio.sleep(200.0)
        assert receiving.done() is not owes
        mine.owes = False
        mine.heard_s = loop.time()
        with pytest.raises(Closing, match="idle for 20 s"):
            await receiving

    run(main())
