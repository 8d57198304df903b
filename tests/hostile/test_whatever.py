"""Whatever a base station says, in whatever order, the device ends with a LinkError or goes on.

In virtual time, so that a run costs what is computed in it; a base station of this kind knows where
the device is, and says what may come next, what may not, or nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from bench.virtual.loop import VirtualLoop
from device_runtime.device import Device, Sampling
from device_runtime.transport.connecting import LinkError
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from draftlink.protocol.states import State
from tests.fake_models import fake_device
from tests.hostile.stations import (
    SIZE,
    TABLE,
    WELCOME,
    WRITES_BOTH,
    Peer,
    greets,
    in_memory,
    silent,
)

RUNS = 400
MAX_TOKENS = 12
# A minute's worth of attempts, for each time that the generation moves, and for none.
ATTEMPTS = 40


def something(chance: random.Random, session: Session) -> frames.Frame | bytes | str:
    """What a base station may say, mostly with the numbers that would be right."""
    progress, state = session.progress, session.state
    epoch, base, generation = progress.epoch, progress.length, max(progress.generation, 1)
    if chance.random() < 0.1:
        epoch, base = chance.randrange(4), chance.randrange(40)
    drafted = sum(progress.drafts)
    ended = chance.random() < 0.2
    number = chance.randrange(SIZE)
    fitting = {
        State.STREAMING: [frames.Tokens(epoch, base, (number,), ended)],
        State.SWITCHING: [
            frames.Switched(generation, epoch + 1, base),
            frames.Tokens(epoch, base, (number,), ended),
        ],
        State.WRITING: [
            frames.Written(base, (number,), 0, ended, 0, 0),
            frames.Written(base, (number, 5), 1, ended, 0, 0),
        ],
        State.DRAFTING: [frames.Verdict(epoch, base, 0, number, ended, 0, 0)],
        State.VERIFYING: [
            frames.Verdict(epoch, base, 0, number, ended, 0, 0),
            frames.Verdict(epoch, base, drafted, number, ended, 0, 0),
        ],
        State.FINISHING: [
            frames.Done(generation, session.kept, epoch + 1),
            frames.Tokens(epoch, base, (number,), False),
            frames.Written(base, (number,), 0, False, 0, 0),
        ],
        State.RESUMING: [frames.Resumed(generation, chance.randrange(3), chance.random() < 0.8)],
        State.READY: [frames.Progress(generation, 1, 2, 0)],
    }.get(state, [WELCOME])
    anything: list[frames.Frame | bytes | str] = [
        *fitting * 8,
        *[frames.Progress(generation, chance.randrange(9), 9, 0)] * 4,
        frames.Refused("busy", "no", 3),
        frames.Resumed(generation, 0, True),
        frames.Done(generation, base, epoch + 1),
        WELCOME,
        "text",
        chance.randbytes(9),
    ]
    return chance.choice(anything)


class Whatever:
    """A base station by chance; ``moves``: what it said that a device may count as a step."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.device: Device
        self.moves = 0
        self.talkative = self.chance.choice((0.3, 0.8, 0.97))

    async def talk(self, peer: Peer, _: int) -> None:
        chance = self.chance
        if chance.random() < 0.05:
            await silent(peer)
        await greets(peer, WRITES_BOTH)
        while chance.random() < self.talkative:
            for _ in range(chance.randrange(6)):  # the device has its turns
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice((0.1, 5.0, 29.0)))
            said = something(chance, self.device.client.session)
            self.moves += not isinstance(said, frames.Progress | frames.Resumed | str | bytes)
            await peer.says(said)
        if chance.random() < 0.2:
            await silent(peer)


async def outcome(seed: int) -> str:
    station = Whatever(seed)
    connect, made = in_memory(station.talk)
    device = station.device = fake_device("ws://whatever", TABLE)
    device._connect = connect
    mode = station.chance.choice(("stream", "stop-and-wait", "run-ahead", "auto", "both"))
    loop = asyncio.get_running_loop()
    found = "ended"
    try:
        async with device:
            generation = device.generate(
                [1, 2, 3], mode=mode, max_tokens=MAX_TOKENS, sampling=Sampling(0.0)
            )
            async for _ in generation:
                assert len(generation.tokens) <= MAX_TOKENS
    except LinkError as error:
        assert str(error).isprintable()
        found = "gone" if "has gone" in str(error) else "refused"
    assert len(made) <= ATTEMPTS * (1 + station.moves), (seed, len(made), station.moves)
    # What is waited for is bounded too: silences, and patience that each step may renew.
    assert loop.time() <= 200.0 * (2 + station.moves + len(made)), (seed, loop.time())
    assert loop.time() < 100_000.0
    return found


def test_whatever_a_base_station_says():
    outcomes: Counter[str] = Counter()
    for seed in range(RUNS):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            try:
                outcomes[runner.run(outcome(seed))] += 1
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
    print(outcomes)
    # Each kind of end is there: a device that refused everything would pass the rest.
    assert all(outcomes[kind] > RUNS // 50 for kind in ("ended", "gone", "refused"))


def test_a_device_that_calls_at_once_is_noticed(monkeypatch):
    """The negative control: patience that every connection renews, as it once was."""
    from device_runtime.transport import client

    class Renewed(client.Patience):
        def after(self, now: float, lost: client.Lost) -> float | None:
            pause_s = super().after(now, lost)
            self.renew()
            return pause_s

    monkeypatch.setattr(client, "Patience", Renewed)

    async def talk(peer: Peer, number: int) -> None:
        if number > 1000:
            raise AssertionError("called a thousand times")
        await greets(peer)

    async def scenario() -> int:
        connect, made = in_memory(talk)
        device = fake_device("ws://whatever", TABLE)
        device._connect = connect
        async with device:
            reading = asyncio.create_task(anext(aiter(device.generate([1], mode="stream"))))
            for _ in range(200_000):
                if len(made) >= 1000:
                    break
                await asyncio.sleep(0)
            assert asyncio.get_running_loop().time() < 1.0
            reading.cancel()
            await asyncio.wait([reading])
        return len(made)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(scenario()) >= 1000
